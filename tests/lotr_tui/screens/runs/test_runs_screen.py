"""Screen with the runs."""

import re

import pytest
from textual.widgets import Input

from engine.runs.directory import BUNDLED_FOLDERS
from lotr_tui.formatting import PRETRAINED_MARK_NOTE
from lotr_tui.monitor.run_list import RUN_COLUMNS, list_selectable_runs
from lotr_tui.screens.dialogs.dialog import ConfirmDialog, Dialog
from lotr_tui.screens.dialogs.paths import ExportDialog
from lotr_tui.screens.runs.screen import RunsScreen
from tests.support.lists import answer, message, open_dialog, refuse, rows, show
from tests.support.pilot import lines_of, text_of, until
from tests.support.scenes import write_recorded_runs


@pytest.fixture
def runs_dir(tmp_path):
    """Directory with three runs, latest first: ring (with a model), shire, and active (locked as if training)."""
    lock = write_recorded_runs(tmp_path / "runs")
    yield tmp_path / "runs"
    lock.close()


async def highlight(pilot, name):
    await pilot.press("home", *["down"] * names(pilot).index(name))


def names(pilot):
    return [row[3:].split()[0] for row in rows(pilot)]


def differences(pilot):
    """Return the table of differences, or the text in its place, with single spaces."""
    lines = lines_of(pilot.app.screen.query_one("#settings")).splitlines()
    return "\n".join(re.sub(" +", " ", line.rstrip()) for line in lines)


def chart_text(pilot):
    return lines_of(pilot.app.screen.query_one("#curves"))


async def test_list_is_aligned_sorted_and_filtered(make_host, runs_dir):
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, RunsScreen(runs_dir))
        row_by_name = {row.split()[0]: row for row in rows(pilot)}
        assert set(row_by_name) == {"bundled", "lstm", "base", "ring", "shire", "active"}
        assert row_by_name["active"].split()[1:3] == ["running", "101.2"]  # 90 + 90 / 8
        assert row_by_name["ring"].split()[1:4] == ["finished", "70.0", "72.0"]
        assert [name for name in names(pilot) if name not in BUNDLED_FOLDERS] == ["ring", "shire", "active"]  # by age
        run = next(run for run in list_selectable_runs(runs_dir) if run.name == "ring")
        sort_columns = set()
        for _ in RUN_COLUMNS:
            await pilot.press("s")
            header = " " * 3 + text_of(pilot.app.screen.query_one("#columns"))
            column = next(column for column in RUN_COLUMNS if f"{column.name}↓" in header)
            sort_columns.add(column.name)
            row = next(row for row in rows(pilot) if "ring" in row)
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
        await pilot.press("escape")
        await until(pilot, lambda: len(names(pilot)) == 6)
        assert not results
        await pilot.press("slash", *"ring", "enter", "enter")
        await until(pilot, lambda: results == [str(runs_dir / "ring")])


async def test_marked_runs_are_compared_with_each_other_and_one_mark_with_the_selected_run(make_host, runs_dir):
    async with make_host().run_test(size=(140, 40)) as pilot:
        await show(pilot, RunsScreen(runs_dir))
        await highlight(pilot, "ring")
        await pilot.press("c")
        await until(pilot, lambda: "Mark a run with space" in differences(pilot))
        await pilot.press("space", "down", "space")
        assert "".join(row[1] for row in rows(pilot)).split() == ["12"]
        await until(pilot, lambda: "1 ring 70.0" in chart_text(pilot) and "2 shire 80.0" in chart_text(pilot))
        assert any(0x2800 < ord(character) < 0x2900 for character in chart_text(pilot))
        assert "not comparable" in chart_text(pilot)
        assert message(pilot) == f"valid, test: of the best epoch {PRETRAINED_MARK_NOTE}"  # after a key
        await until(pilot, lambda: "\nlr " in differences(pilot))
        assert "different settings 1 ring 2 shire" in differences(pilot)
        assert "embedding_size" in differences(pilot)
        assert "dropout" not in differences(pilot)
        assert "valid perplexity ↓ 70.0 80.0" in differences(pilot)  # without a best one: other vocabularies
        assert "other vocabulary" in differences(pilot).replace("\n", " ")

        await pilot.press("up", "space", "down", "down")  # shire is the only marked one
        await until(pilot, lambda: "1 shire 2 active" in differences(pilot))
        assert re.search(r"\nvalid perplexity ↓ \*80.0 101.2\n \+21.2 \+27 %\n", differences(pilot))
        assert "1 shire 80.0   2 active 101." in chart_text(pilot)

        await pilot.press("escape")
        await show(pilot, RunsScreen(runs_dir))
        (runs_dir / "shire" / "config.json").write_text("{")  # after the list was read
        await highlight(pilot, "shire")
        await pilot.press("c", "space", "down")
        await until(pilot, lambda: "Settings unknown" in differences(pilot))


async def test_runs_are_renamed_deleted_and_exported_unless_they_are_active_or_bundled(
    make_host, runs_dir, monkeypatch
):
    monkeypatch.chdir(runs_dir.parent)
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, RunsScreen(runs_dir))
        await highlight(pilot, "ring")
        await pilot.press("space")
        await open_dialog(pilot, "e", Dialog)
        await refuse(pilot, **{"../x": "'../x'", "shire": "'shire'"})
        long_name = "a-run-whose-name-is-longer-than-its-column-is"
        pilot.app.screen.query_one(Input).value = long_name
        await pilot.press("enter")
        await until(pilot, lambda: f"ring is now {long_name}" in message(pilot))
        (row,) = (row for row in rows(pilot) if "a-run" in row)
        assert row.startswith(" 1 a-run-whose-name")  # the mark follows its run
        assert row.split()[1].endswith("…")

        await open_dialog(pilot, "ctrl+s", ExportDialog)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and "Exported to" in message(pilot))
        assert (runs_dir.parent / f"{long_name}-csv" / "evaluated.csv").is_file()

        await answer(pilot, "x", ConfirmDialog, "n")
        assert (runs_dir / long_name).is_dir()
        await answer(pilot, "x", ConfirmDialog, "y")
        await until(pilot, lambda: "deleted a-run" in message(pilot))
        assert not (runs_dir / long_name).exists()
        refusals = {"bundled": "is part of lotr-tui and cannot be deleted", "active": "being trained; stop it first"}
        for name, refusal in refusals.items():
            await highlight(pilot, name)
            await answer(pilot, "x", ConfirmDialog, "y")
            await until(pilot, lambda: refusal in message(pilot))  # noqa: B023
        assert (runs_dir / "active").is_dir()
