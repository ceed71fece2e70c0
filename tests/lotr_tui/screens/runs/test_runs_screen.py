"""Screen with the runs."""

import re

import pytest
from textual.widgets import Input, OptionList, Static

from engine.runs.directory import BUNDLED_FOLDERS
from lotr_tui.monitor.run_list import RUN_COLUMNS, list_selectable_runs
from lotr_tui.screens.dialogs.dialog import ConfirmDialog, Dialog
from lotr_tui.screens.dialogs.paths import ExportDialog
from lotr_tui.screens.runs.comparison import OverlayChart
from lotr_tui.screens.runs.screen import RunsScreen
from tests.support.pilot import lines_of, text_of, until
from tests.support.scenes import write_recorded_runs


@pytest.fixture
def runs_dir(tmp_path):
    """Directory with three runs, latest first: ring (with a model), shire, and active (locked as if training)."""
    lock = write_recorded_runs(tmp_path / "runs")
    yield tmp_path / "runs"
    lock.close()


async def show(pilot, runs_dir):
    """Open the screen, and return a list that gets the result of the screen."""
    results = []
    pilot.app.push_screen(RunsScreen(runs_dir), results.append)
    await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and len(rows(pilot)) >= 5)
    return results


async def open_dialog(pilot, key, dialog):
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, dialog))


async def highlight(pilot, name):
    await pilot.press("home", *["down"] * names(pilot).index(name))


def rows(pilot):
    return [str(option.prompt) for options in pilot.app.screen.query(OptionList) for option in options.options]


def names(pilot):
    return [row[3:].split()[0] for row in rows(pilot)]


def static_text(pilot, id):
    return text_of(pilot.app.screen.query_one(f"#{id}", Static))


def differences(pilot):
    """Return the table of differences, or the text in its place, with single spaces."""
    lines = lines_of(pilot.app.screen.query_one("#settings")).splitlines()
    return "\n".join(re.sub(" +", " ", line.rstrip()) for line in lines)


def message(pilot):
    return static_text(pilot, "message")


def chart_text(pilot):
    return lines_of(pilot.app.screen.query_one(OverlayChart))


async def test_list_is_aligned_sorted_and_filtered(make_host, runs_dir):
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, runs_dir)
        row_by_name = {row.split()[0]: row for row in rows(pilot)}
        assert set(row_by_name) == {"bundled", "lstm", "base", "ring", "shire", "active"}
        assert row_by_name["active"].split()[1:3] == ["running", "101.2"]  # 90 + 90 / 8
        assert row_by_name["ring"].split()[1:4] == ["finished", "70.0", "72.0"]
        assert [name for name in names(pilot) if name not in BUNDLED_FOLDERS] == ["ring", "shire", "active"]  # by age
        sort_columns = set()
        for _ in RUN_COLUMNS:
            await pilot.press("s")
            await pilot.pause()
            header = " " * 3 + static_text(pilot, "columns")
            column = next(column for column in RUN_COLUMNS if f"{column.name}↓" in header)
            sort_columns.add(column.name)
            row = next(row for row in rows(pilot) if "ring" in row)
            run = next(run for run in list_selectable_runs(runs_dir) if run.name == "ring")
            if column.name == "run":
                assert names(pilot) == ["active", "base", "bundled", "lstm", "ring", "shire"]
            else:
                assert row[: header.index("↓") + 1].endswith(f" {column.format(run)}")
        assert sort_columns == {column.name for column in RUN_COLUMNS}
        await pilot.press("s", "s")
        assert names(pilot)[0] == "active"  # by state

        await pilot.press("slash", "r", "i", "n")
        await until(pilot, lambda: names(pilot) == ["ring"])
        await pilot.press("d")  # a letter in the filter, not the key of an action
        await until(pilot, lambda: names(pilot) == [])
        assert not pilot.app.screen.has_class("-differences")
        await pilot.press("escape")
        await until(pilot, lambda: len(names(pilot)) == 6)
        assert not results
        await pilot.press("slash", *"ring", "enter", "enter")
        await until(pilot, lambda: results)
        assert results == [str(runs_dir / "ring")]


async def test_marked_runs_are_compared_with_each_other_and_one_mark_with_the_selected_run(make_host, runs_dir):
    async with make_host().run_test(size=(140, 40)) as pilot:
        await show(pilot, runs_dir)
        await highlight(pilot, "ring")
        await pilot.press("c")
        await until(pilot, lambda: "Mark a run with space" in differences(pilot))
        await pilot.press("space", "down", "space")
        assert "".join(row[1] for row in rows(pilot)).split() == ["12"]
        await until(pilot, lambda: "1 ring 71.4" in chart_text(pilot) and "2 shire 81.4" in chart_text(pilot))
        assert any(0x2800 < ord(character) < 0x2900 for character in chart_text(pilot))
        assert message(pilot) == "* pre-trained on other text"  # of the bundled model, still there after a key
        await until(pilot, lambda: "\nlr " in differences(pilot))
        assert "different settings 1 ring 2 shire" in differences(pilot)
        assert "embedding_size" in differences(pilot)
        assert "dropout" not in differences(pilot)
        assert "valid ↓ 70.0 80.0" in differences(pilot)  # without a best one: the vocabularies are not the same
        assert "other vocabulary" in differences(pilot).replace("\n", " ")

        await pilot.press("up", "space", "down", "down")  # shire is the only marked one
        await until(pilot, lambda: "1 shire 2 active" in differences(pilot))
        lines = differences(pilot).split("\n")
        valid = next(number for number, line in enumerate(lines) if line.startswith("valid ↓"))
        assert lines[valid].strip() == "valid ↓ *80.0 101.2"
        assert lines[valid + 1].strip() == "+21.2 +27 %"
        assert "1 shire 81.4   2 active 101." in chart_text(pilot)

        await pilot.press("escape")
        await show(pilot, runs_dir)
        (runs_dir / "shire" / "config.json").write_text("{")  # after the list was read
        await highlight(pilot, "shire")
        await pilot.press("c", "space", "down")
        await until(pilot, lambda: "Settings unknown" in differences(pilot))


async def test_runs_are_renamed_deleted_and_exported_unless_they_are_active_or_bundled(
    make_host, runs_dir, monkeypatch
):
    monkeypatch.chdir(runs_dir.parent)
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, runs_dir)
        await highlight(pilot, "ring")
        await pilot.press("space")
        await open_dialog(pilot, "e", Dialog)
        for name in ("../x", "shire"):
            pilot.app.screen.query_one(Input).value = name
            await pilot.press("enter")
            await until(pilot, lambda: repr(name) in static_text(pilot, "problem"))  # noqa: B023
            assert pilot.app.screen.query_one(Input).value == name
        long_name = "a-run-whose-name-is-longer-than-its-column-is"
        pilot.app.screen.query_one(Input).value = long_name
        await pilot.press("enter")
        await until(pilot, lambda: f"ring is now {long_name}" in message(pilot))
        (row,) = (row for row in rows(pilot) if "a-run" in row)
        assert row.startswith(" 1 a-run-whose-name")  # the mark follows its run
        assert row.split()[1].endswith("…")

        await open_dialog(pilot, "ctrl+s", ExportDialog)
        await pilot.press("enter")
        folder = runs_dir.parent / f"{long_name}-csv"
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and "Exported to" in message(pilot))
        assert (folder / "evaluated.csv").is_file()

        for answer in ("n", "y"):
            assert (runs_dir / long_name).is_dir()
            await open_dialog(pilot, "x", ConfirmDialog)
            await pilot.press(answer)
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await until(pilot, lambda: "deleted a-run" in message(pilot))
        assert not (runs_dir / long_name).exists()

        refusals = {"bundled": "is part of lotr-tui and cannot be deleted", "active": "being trained; stop it first"}
        for name, refusal in refusals.items():
            await highlight(pilot, name)
            await open_dialog(pilot, "x", ConfirmDialog)
            await pilot.press("y")
            await until(pilot, lambda: refusal in message(pilot))  # noqa: B023
        assert (runs_dir / "active").is_dir()
