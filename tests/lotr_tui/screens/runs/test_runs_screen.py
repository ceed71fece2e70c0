"""Screen with the runs."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input, OptionList, Static

from engine.config import Config
from engine.events import Checkpointed, Evaluated, Finished
from engine.runs.directory import BUNDLED_FOLDERS, MODEL_FILE
from engine.runs.locked_run import create_run
from lotr_tui.monitor import compared_run, run_list
from lotr_tui.monitor.run_list import RUN_COLUMNS, list_selectable_runs
from lotr_tui.screens.dialogs.confirm import ConfirmDialog
from lotr_tui.screens.dialogs.line_dialog import RenameDialog
from lotr_tui.screens.dialogs.path_dialog import ExportDialog
from lotr_tui.screens.runs import screen as module
from lotr_tui.screens.runs.difference_table import DifferenceTable
from lotr_tui.screens.runs.overlay_chart import OverlayChart
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session.screen import SessionScreen
from tests.support.files import write_run
from tests.support.metrics import append_events
from tests.support.pilot import MakeApp, lines_of, text_of, until
from tests.support.runs import VOCABULARY


@pytest.fixture
def runs_dir(tmp_path: Path) -> Iterator[Path]:
    """Directory with three runs, latest first: ring (with a model), shire, and active (locked as if training)."""
    runs_dir = tmp_path / "runs"
    for number, (name, best, epochs) in enumerate((("active", 90.0, 3), ("shire", 80.0, 6), ("ring", 70.0, 6))):
        if name == "ring":
            path = write_run(runs_dir / name)
        else:
            run = create_run(Config("tiny").with_values(lr=0.1 * (number + 1)), VOCABULARY, name, runs_dir)
            path = run.path
            if name == "active":
                active_run = run
            else:
                run.lock.release()
        for epoch in range(epochs + 1):
            step = 10 * epoch
            evaluated = Evaluated(step, float(epoch), best + 90 * 0.5**epoch, True, float(epoch))
            append_events(path, [evaluated, Checkpointed(step, MODEL_FILE)])
        if name != "active":
            append_events(path, [Finished("done", name, float(epochs), best, best + 2, 9.0)])
        os.utime(path / "config.json", (1_000_000_000 + number,) * 2)
    yield runs_dir
    active_run.lock.release()


async def show(pilot: Pilot[None], runs_dir: Path) -> list[str | None]:
    """Open the screen, and return a list that gets the result of the screen."""
    results: list[str | None] = []
    pilot.app.push_screen(RunsScreen(runs_dir), results.append)
    await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and len(rows(pilot)) >= 5)
    return results


async def open_dialog(pilot: Pilot[None], key: str, dialog: type[Screen[Any]]) -> None:
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, dialog))


async def highlight(pilot: Pilot[None], name: str) -> None:
    """Move the cursor from the first row to a run."""
    await pilot.press(*["down"] * names(pilot).index(name))


def rows(pilot: Pilot[None]) -> list[str]:
    return [str(option.prompt) for options in pilot.app.screen.query(OptionList) for option in options.options]


def names(pilot: Pilot[None]) -> list[str]:
    return [row[3:].split()[0] for row in rows(pilot)]


def static_text(pilot: Pilot[None], id: str) -> str:
    return text_of(pilot.app.screen.query_one(f"#{id}", Static))


def differences(pilot: Pilot[None]) -> str:
    """Return the table of differences, or the text in its place, with single spaces."""
    return re.sub(" +", " ", text_of(pilot.app.screen.query_one(DifferenceTable)))


def message(pilot: Pilot[None]) -> str:
    return static_text(pilot, "message")


def chart_text(pilot: Pilot[None]) -> str:
    return lines_of(pilot.app.screen.query_one(OverlayChart))


# List


@pytest.mark.parametrize("width", [60, 80, 200])
async def test_list_shows_aligned_columns(make_host: MakeApp, runs_dir: Path, width: int) -> None:
    async with make_host().run_test(size=(width, 24)) as pilot:
        await show(pilot, runs_dir)
        row_by_name = {row.split()[0]: row for row in rows(pilot)}
        assert set(row_by_name) == {"bundled", "base", "ring", "shire", "active"}
        assert row_by_name["active"].split()[1:3] == ["running", "101.2"]  # 90 + 90 / 8
        assert "finished" in row_by_name["ring"]
        assert "72.0" in row_by_name["ring"]
        header = static_text(pilot, "columns")
        assert header.index("state") + len("state") == rows(pilot)[0].index("finished") + len("finished") - 3
        assert ("size" in header) == (width >= 80)
        assert all(len(row) <= width for row in rows(pilot))


async def test_sort_keys_change_column_and_direction(make_host: MakeApp, runs_dir: Path) -> None:
    async with make_host().run_test(size=(120, 24)) as pilot:
        await show(pilot, runs_dir)
        assert [name for name in names(pilot) if name not in BUNDLED_FOLDERS] == ["ring", "shire", "active"]  # by age
        await pilot.press("s", "s")  # size, then name
        assert names(pilot) == ["active", "base", "bundled", "ring", "shire"]
        await pilot.press("S")
        assert names(pilot) == ["shire", "ring", "bundled", "base", "active"]


@pytest.mark.parametrize("width", [60, 80])
async def test_sort_column_is_always_visible(
    make_host: MakeApp, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(run_list, "format_age", lambda seconds: "3 h")  # does not change during the test
    for number in range(20):  # more than fit, so that there is a scroll bar
        write_run(runs_dir / f"other{number}")
    async with make_host().run_test(size=(width, 24)) as pilot:
        await show(pilot, runs_dir)
        sort_columns = set()
        for _ in RUN_COLUMNS:
            await pilot.press("s")
            await pilot.pause()
            options = pilot.app.screen.query_one("#runs", OptionList)
            header = " " * 3 + static_text(pilot, "columns")
            sort_column = next(column for column in RUN_COLUMNS if f"{column.name}↓" in header)
            sort_columns.add(sort_column.name)
            row = next(line for y in range(5) if "other" in (line := options.render_line(y).text))
            run = next(run for run in list_selectable_runs(runs_dir) if run.name == row.split()[0])
            if sort_column.name == "run":
                assert row.strip().startswith(run.name)
            else:
                assert row[: header.index("↓") + 1].endswith(f" {sort_column.format(run)}")
        assert sort_columns == {column.name for column in RUN_COLUMNS}


async def test_filter_applies_while_the_user_types(make_host: MakeApp, runs_dir: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, runs_dir)
        await pilot.press("slash", "r", "i", "n")
        await until(pilot, lambda: names(pilot) == ["ring"])
        await pilot.press("d")  # a letter in the filter, not the key of an action
        await until(pilot, lambda: names(pilot) == [])
        assert not pilot.app.screen.has_class("-differences")
        await pilot.press("backspace", "enter")
        await until(pilot, lambda: names(pilot) == ["ring"])
        assert not results
        await pilot.press("enter")
        await until(pilot, lambda: results)
        assert results == [str(runs_dir / "ring")]


async def test_escape_clears_the_filter_and_then_closes(make_host: MakeApp, runs_dir: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, runs_dir)
        await pilot.press("slash", "x", "escape")
        await until(pilot, lambda: len(names(pilot)) == 5)
        assert pilot.app.screen.query_one("#filter", Input).value == ""
        assert not results
        await pilot.press("escape")
        await until(pilot, lambda: results)
        assert results == [None]


async def test_refresh_lists_a_new_run(make_host: MakeApp, tmp_path: Path) -> None:
    async with make_host().run_test(size=(60, 20)) as pilot:
        pilot.app.push_screen(RunsScreen(tmp_path / "none"))
        await until(pilot, lambda: pilot.app.screen.query("#message"))
        await until(pilot, lambda: "No runs yet" in message(pilot))
        assert sorted(names(pilot)) == ["base", "bundled"]
        write_run(tmp_path / "none" / "first")
        await pilot.press("f5")
        await until(pilot, lambda: "first" in names(pilot))


async def test_tiny_terminal(make_host: MakeApp, runs_dir: Path) -> None:
    async with make_host().run_test(size=(20, 6)) as pilot:
        await show(pilot, runs_dir)
        await pilot.press("down", "space", "d", "slash", "r", "escape", "s")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: len(names(pilot)) == 5)


# Comparison


async def test_marked_runs_are_compared(make_host: MakeApp, runs_dir: Path) -> None:
    async with make_host().run_test(size=(140, 40)) as pilot:
        await show(pilot, runs_dir)
        await highlight(pilot, "ring")
        await pilot.press("space", "down", "space", "d")
        await until(pilot, lambda: "1 ring 71.4" in chart_text(pilot) and "2 shire 81.4" in chart_text(pilot))
        curves = chart_text(pilot).split("\n", 1)[1]
        assert "1" in curves
        assert "2" in curves
        assert any(0x2800 < ord(character) < 0x2900 for character in curves)
        await until(pilot, lambda: "\nlr " in differences(pilot))
        assert "different settings 1 ring 2 shire" in differences(pilot)
        assert "embedding_size" in differences(pilot)
        assert "dropout" not in differences(pilot)
        assert "valid ↓ 70.0 80.0" in differences(pilot)  # without a best one: the vocabularies are not the same
        assert "other vocabulary" in differences(pilot).replace("\n", " ")
        await pilot.press("space")  # removes the mark of shire
        await until(pilot, lambda: "shire" not in chart_text(pilot))
        assert "Mark two or more runs" in differences(pilot)


@pytest.mark.parametrize("size", [(200, 50), (120, 35), (80, 24), (60, 20)], ids=str)
async def test_pinned_baseline_is_compared_with_the_selected_run(
    make_host: MakeApp, runs_dir: Path, size: tuple[int, int]
) -> None:
    async with make_host().run_test(size=size) as pilot:
        await show(pilot, runs_dir)
        await highlight(pilot, "shire")
        await pilot.press("b")
        await until(pilot, lambda: "Select or mark another run" in differences(pilot))
        assert "shire is the baseline" in message(pilot)
        assert [row[1] for row in rows(pilot)] == ["b" if name == "shire" else " " for name in names(pilot)]
        await pilot.press("down")
        await until(pilot, lambda: "b shire 1 active" in differences(pilot))
        lines = differences(pilot).split("\n")
        valid = next(number for number, line in enumerate(lines) if line.startswith("valid ↓"))
        assert lines.index(next(line for line in lines if line.startswith("lr "))) < valid
        assert lines[valid].strip() == "valid ↓ 80.0* 101.2"  # 90 + 90 / 8
        assert lines[valid + 1].strip() == "+21.2 +27 %"
        table = pilot.app.screen.query_one(DifferenceTable)
        assert all(cell_len(line) <= table.size.width for line in text_of(table).split("\n"))
        assert table.region.intersection(pilot.app.screen.region).area
        if size[0] >= 100:
            assert "b shire 81.4   1 active 101." in chart_text(pilot)
        await pilot.press("up", "space")
        await until(pilot, lambda: "press b to unpin it" in message(pilot))
        await pilot.press("b")
        await until(pilot, lambda: "no longer the baseline" in message(pilot))
        await until(pilot, lambda: "Mark two or more runs" in differences(pilot))


async def test_baseline_is_pinned_again_when_the_list_is_opened_again(make_host: MakeApp, runs_dir: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, runs_dir)
        await highlight(pilot, "ring")
        await pilot.press("b", "r")
        await until(pilot, lambda: isinstance(pilot.app.screen, RenameDialog))
        await pilot.press(*"other", "enter")
        await until(pilot, lambda: "ring is now other" in message(pilot))
        await pilot.press("escape")
        await show(pilot, runs_dir)
        assert any(row.startswith(" b other") for row in rows(pilot))
        await highlight(pilot, "other")
        await open_dialog(pilot, "x", ConfirmDialog)
        await pilot.press("y")
        await until(pilot, lambda: "deleted other" in message(pilot))
        assert pilot.app.settings_store.current.baseline_run == ""  # type: ignore[attr-defined]


async def test_many_marked_runs_are_rows_that_scroll(make_host: MakeApp, runs_dir: Path) -> None:
    for number in range(8):
        write_run(runs_dir / f"other{number}")
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, runs_dir)
        await until(pilot, lambda: len(rows(pilot)) == 13)
        await pilot.press("s", "s", "home", "b", "d", *["down", "space"] * 10)
        assert "At most 9 runs can be marked" in message(pilot)
        await pilot.press("d")
        await until(pilot, lambda: "\nb active" in differences(pilot) and "\n9 other" in differences(pilot))
        pane = pilot.app.screen.query_one("#differences")
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: pane.scroll_y > 0)
        await pilot.press("d", "left_square_bracket", "d")  # the key does nothing while the table is hidden
        await pilot.pause()
        assert pane.scroll_y > 0
        await pilot.press(*["left_square_bracket"] * 9)
        await until(pilot, lambda: pane.scroll_y == 0)


async def test_damaged_configuration_of_the_baseline_is_unknown(make_host: MakeApp, runs_dir: Path) -> None:
    async with make_host().run_test(size=(120, 35)) as pilot:
        await show(pilot, runs_dir)
        (runs_dir / "shire" / "config.json").write_text("{")  # after the list was read
        await highlight(pilot, "shire")
        await pilot.press("b", "down")
        await until(pilot, lambda: "Settings unknown" in differences(pilot))
        assert "no setting differs" in differences(pilot)


@pytest.mark.parametrize("removed", ["*", "#curves", "#settings"])
async def test_closing_during_a_comparison_raises_no_error(make_host: MakeApp, runs_dir: Path, removed: str) -> None:
    async with make_host().run_test(size=(120, 24)) as pilot:
        await show(pilot, runs_dir)
        screen = pilot.app.screen
        assert isinstance(screen, RunsScreen)
        await screen.query(removed).remove()  # as Textual does when it closes a screen
        if removed != "*":
            await pilot.press("space")
        screen.action_refresh()
        await pilot.pause()
        await screen.workers.wait_for_complete()
    assert not pilot.app.return_code


# Changes


async def test_rename(make_host: MakeApp, runs_dir: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, runs_dir)
        await highlight(pilot, "ring")
        await open_dialog(pilot, "r", RenameDialog)
        await pilot.press(*"other", "enter")
        await until(pilot, lambda: "other" in message(pilot))
        assert (runs_dir / "other").is_dir()
        await open_dialog(pilot, "r", RenameDialog)
        for name in ("../x", "shire", ""):
            pilot.app.screen.query_one(Input).value = name
            await pilot.press("enter")
            await until(pilot, lambda: repr(name) in static_text(pilot, "problem"))  # noqa: B023
            assert pilot.app.screen.query_one(Input).value == name
        assert (runs_dir / "other").is_dir()


async def test_delete_asks_for_confirmation(make_host: MakeApp, runs_dir: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, runs_dir)
        await highlight(pilot, "ring")
        await open_dialog(pilot, "x", ConfirmDialog)
        await pilot.press("n")
        await pilot.pause()
        assert (runs_dir / "ring").is_dir()
        await open_dialog(pilot, "x", ConfirmDialog)
        await pilot.press("y")
        await until(pilot, lambda: "deleted ring" in message(pilot))
        assert not (runs_dir / "ring").exists()
        assert "ring" not in names(pilot)


@pytest.mark.parametrize("key", ["r", "x"])
async def test_active_run_cannot_be_renamed_or_deleted(make_host: MakeApp, runs_dir: Path, key: str) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, runs_dir)
        await highlight(pilot, "active")
        await pilot.press(key)
        await pilot.pause()
        if key == "r":
            await until(pilot, lambda: isinstance(pilot.app.screen, RenameDialog))
            await pilot.press(*"other", "enter")
        reason = "problem" if key == "r" else "message"
        await until(pilot, lambda: "being trained; stop it first" in static_text(pilot, reason))
        assert (runs_dir / "active").is_dir()


@pytest.mark.parametrize("name", ["bundled", "base"])
async def test_bundled_model_can_be_played_and_not_deleted(make_host: MakeApp, runs_dir: Path, name: str) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, runs_dir)
        await highlight(pilot, name)
        await open_dialog(pilot, "x", ConfirmDialog)
        await pilot.press("y")
        await until(pilot, lambda: message(pilot).startswith("✗") and "bundled" in message(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: results)
        assert results == [name]


async def test_export_asks_for_a_new_folder(
    make_host: MakeApp, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs_dir.parent)
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, runs_dir)
        await highlight(pilot, "ring")
        await open_dialog(pilot, "c", ExportDialog)
        await pilot.press("enter")
        folder = runs_dir.parent / "ring-csv"
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and "Exported to" in message(pilot))
        assert message(pilot).replace("\n", "").endswith(str(folder))
        assert (folder / "evaluated.csv").is_file()
        await open_dialog(pilot, "c", ExportDialog)
        path = pilot.app.screen.query_one(Input)
        await until(pilot, lambda: path.value.endswith("ring-csv-2"))
        path.value = str(folder)
        await pilot.press("enter")
        await until(pilot, lambda: "is not empty, and nothing in it is replaced" in static_text(pilot, "problem"))
        assert sorted(path.name for path in folder.iterdir()) == [
            "checkpointed.csv",
            "evaluated.csv",
            "finished.csv",
        ]


@pytest.mark.parametrize("width", [60, 80])
async def test_long_name_ends_with_an_ellipsis(make_host: MakeApp, runs_dir: Path, width: int) -> None:
    (runs_dir / "ring").rename(runs_dir / "a-run-whose-name-is-longer-than-its-column-is")
    async with make_host().run_test(size=(width, 24)) as pilot:
        await show(pilot, runs_dir)
        (row,) = (row for row in rows(pilot) if "a-run" in row)
        name = row.split()[0]
        assert name.endswith("…")
        assert "a-run-whose-name-is-longer".startswith(name[:-1])
        assert row[3 + row.strip().index("…") + 1] == " "  # the columns stay aligned


async def test_session_continues_with_the_selected_run(make_app: MakeApp, runs_dir: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and len(rows(pilot)) >= 5)
        await pilot.press("slash", *"ring", "enter", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, SessionScreen))
        await until(pilot, lambda: "ring" in text_of(pilot.app.screen.query_one("#status")))


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 35), (200, 50)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_runs_screen_snapshots(
    snap_compare: Callable[..., bool],
    make_host: MakeApp,
    runs_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
) -> None:
    """Run `pytest --snapshot-update` after a change that was checked."""
    monkeypatch.setattr(module, "POLL_INTERVAL", 1000)
    monkeypatch.setattr(run_list, "format_age", lambda seconds: "3 h")
    monkeypatch.setattr(compared_run, "directory_size", lambda path: 4_200_000)
    monkeypatch.setattr(
        module,
        "list_selectable_runs",
        lambda runs_dir: [
            replace(run, size_bytes=4_200_000)
            for run in list_selectable_runs(runs_dir)
            if run.name not in BUNDLED_FOLDERS
        ],
    )

    async def show_comparison(pilot: Pilot[None]) -> None:
        pilot.app.push_screen(RunsScreen(runs_dir))
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press("s", "s", "home", "b", "down", "down", "space", *(["d"] if size == (80, 24) else []))
        await until(pilot, lambda: "\nresults" in differences(pilot))
        await pilot.pause(0.2)

    assert snap_compare(make_host(), terminal_size=size, run_before=show_comparison)
