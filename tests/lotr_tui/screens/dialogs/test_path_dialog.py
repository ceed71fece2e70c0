"""Dialogs that ask for a path: completion, questions before writing, and errors that lose nothing."""

import os
import threading
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.errors import InvalidInputError
from lotr_tui.screens.dialogs import completing_input
from lotr_tui.screens.dialogs.completing_input import CompletingInput, list_names, match_names
from lotr_tui.screens.dialogs.confirm import ConfirmDialog
from lotr_tui.screens.dialogs.path_dialog import ExportDialog, OpenTextDialog
from lotr_tui.session.export_path import ExportTarget, check_export_target
from tests.support.pilot import MakeApp, notices, text_of, until

BAD_PATHS = {
    "folder": "is a folder",
    "/dev/full": "is not a regular file",
    "x" * 10_000: "File name too long|is not a path",
    "a\ud800b": "is not a path|cannot be read",
    "~nobody-of-this-name/x": "is not a path|cannot be read",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with some files."""
    folder = tmp_path / "work"
    (folder / "folder" / "inner").mkdir(parents=True)
    for name in ("letter one.txt", "letter two.txt", ".hidden", "Other.md"):
        (folder / name).write_text("the lamp was lit")
    monkeypatch.chdir(folder)
    return folder


def write_text(target: ExportTarget) -> None:
    target.path.write_text("exported")


async def show_export(pilot: Pilot[None], write: object = write_text) -> list[Path | None]:
    results: list[Path | None] = []

    def check(text: str) -> ExportTarget:
        return check_export_target(text, is_folder=False)

    dialog = ExportDialog("Export", Path.cwd() / "new.md", check, write)  # type: ignore[arg-type]
    await pilot.app.push_screen(dialog, results.append)
    await pilot.pause()
    return results


def path_input(pilot: Pilot[None]) -> CompletingInput:
    return pilot.app.screen.query_one(CompletingInput)


def problem(pilot: Pilot[None]) -> str:
    return text_of(pilot.app.screen.query_one("#problem", Static)).replace("\n", "")


def ghost(pilot: Pilot[None]) -> str:
    return path_input(pilot)._suggestion


# Completion


async def test_tab_takes_the_ghost_text_and_then_leaves(make_host: MakeApp, folder: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(OpenTextDialog())
        await pilot.press(*"fol")
        await until(pilot, lambda: ghost(pilot) == "folder/")
        await pilot.press("tab")
        await until(pilot, lambda: path_input(pilot).value == "folder/")
        await until(pilot, lambda: ghost(pilot) == "folder/inner/")
        await pilot.press("tab", "tab")
        await until(pilot, lambda: path_input(pilot).value == "folder/inner/")


async def test_tab_that_comes_before_the_ghost_text_completes_as_well(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(OpenTextDialog())
        await pilot.pause()
        path_input(pilot).value = "oth"
        path_input(pilot).action_accept_completion()
        await until(pilot, lambda: path_input(pilot).value == "Other.md")


async def test_down_shows_the_next_of_several_completions(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(OpenTextDialog())
        await pilot.press(*"le")
        await until(pilot, lambda: ghost(pilot) == "letter one.txt")
        shown = pilot.app.screen.query_one("#completions")
        await until(pilot, lambda: text_of(shown) == "letter one.txt  letter two.txt")
        await pilot.press("down")
        await until(pilot, lambda: ghost(pilot) == "letter two.txt")
        await pilot.press("down", "up", "tab")
        await until(pilot, lambda: path_input(pilot).value == "letter two.txt")
        assert text_of(shown) == ""


async def test_hanging_folder_delays_neither_keys_nor_the_tab_key(
    make_host: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network disk that does not answer blocks one thread, not the interface."""
    released, calls = threading.Event(), []

    def hang(folder: str) -> list[str]:
        calls.append(folder)
        released.wait()
        return ["letter.txt"]

    monkeypatch.setattr(completing_input, "list_names", hang)
    monkeypatch.setattr(completing_input, "COMPLETION_TIMEOUT", 0.01)
    async with make_host().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(OpenTextDialog())
        await pilot.press(*"let", "tab", *"t")
        assert path_input(pilot).value == "lett"
        assert calls == [""]
        released.set()
        await until(pilot, lambda: ghost(pilot) == "letter.txt")


def test_names_of_a_folder_are_sorted_and_unprintable_ones_left_out(folder: Path) -> None:
    Path(os.fsdecode(b"bad\xff")).touch()
    Path("bad\x1b[2J").touch()
    names = [".hidden", "folder/", "letter one.txt", "letter two.txt", "Other.md"]
    assert list_names("") == names
    assert list_names("folder/") == ["inner/"]
    for unreadable in ("missing/", "Other.md/", "~nobody-of-this-name/", "a\0b/", "x" * 10_000):
        assert list_names(unreadable) == []


@pytest.mark.parametrize(
    ("prefix", "matches"),
    [
        ("", ["folder/", "Other.md", "other.md.bak"]),
        ("o", ["Other.md", "other.md.bak"]),
        ("Other.md", []),  # a whole name: the tab key goes to the next field
        (".", [".hidden"]),
        ("hid", []),
    ],
)
def test_hidden_names_need_a_full_stop_and_whole_names_have_no_completion(prefix: str, matches: list[str]) -> None:
    assert match_names([".hidden", "folder/", "Other.md", "other.md.bak"], prefix) == matches


# Reading a file


async def test_text_file_is_read_and_a_bad_path_stays_in_the_dialog(make_host: MakeApp) -> None:
    results: list[tuple[str, str] | None] = []
    async with make_host().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(OpenTextDialog(), results.append)
        for path in (*BAD_PATHS, "missing.txt", ""):
            path_input(pilot).value = path
            await pilot.press("enter")
            await until(pilot, lambda: problem(pilot))
            assert not results
            assert path_input(pilot).value in (path, path[:4096])
            pilot.app.screen.query_one("#problem", Static).update("")
        path_input(pilot).value = "letter one.txt"
        await pilot.press("enter")
        await until(pilot, lambda: results)
        assert results == [("letter one.txt", "the lamp was lit")]


# Exporting


async def test_suggestion_is_a_new_name_with_the_cursor_at_its_end(make_host: MakeApp, folder: Path) -> None:
    (folder / "new.md").touch()
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show_export(pilot)
        await until(pilot, lambda: path_input(pilot).value == f"{folder}/new-2.md")
        await pilot.press("x", "enter")
        await until(pilot, lambda: results)
        assert results == [folder / "new-2.mdx"]
        assert (folder / "new-2.mdx").read_text() == "exported"


@pytest.mark.parametrize("answer", ["n", "y"])
async def test_existing_file_is_replaced_after_a_question(make_host: MakeApp, folder: Path, answer: str) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show_export(pilot)
        path_input(pilot).value = "Other.md"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmDialog))
        await pilot.press(answer)
        await until(pilot, lambda: results or isinstance(pilot.app.screen, ExportDialog))
        if answer == "n":
            assert path_input(pilot).value == "Other.md"
        else:
            await until(pilot, lambda: results == [folder / "Other.md"])
        assert (folder / "Other.md").read_text() == ("exported" if answer == "y" else "the lamp was lit")


@pytest.mark.parametrize("answer", ["n", "y"])
async def test_missing_folder_is_created_after_a_question(make_host: MakeApp, folder: Path, answer: str) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show_export(pilot)
        path_input(pilot).value = "a/b/x.md"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmDialog))
        await pilot.press(answer)
        await until(pilot, lambda: results or isinstance(pilot.app.screen, ExportDialog))
        if answer == "n":
            assert not (folder / "a").exists()
        else:
            await until(pilot, lambda: results == [folder / "a" / "b" / "x.md"])


async def test_bad_path_is_one_line_and_stays_in_the_dialog(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show_export(pilot)
        for path in BAD_PATHS:
            path_input(pilot).value = path
            await pilot.press("enter")
            await until(pilot, lambda: problem(pilot))
            assert path_input(pilot).value in (path, path[:4096])
            pilot.app.screen.query_one("#problem", Static).update("")
        assert not results


async def test_failed_write_keeps_the_dialog_open(make_host: MakeApp, folder: Path) -> None:
    def fail(_: ExportTarget) -> None:
        raise InvalidInputError("cannot write new.md: No space left on device; choose another folder")

    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show_export(pilot, fail)
        await pilot.press("enter")
        await until(pilot, lambda: "No space left" in problem(pilot))
        assert path_input(pilot).value == f"{folder}/new.md"
        assert not results


async def test_export_that_is_not_waited_for_is_reported_later(make_host: MakeApp, folder: Path) -> None:
    written = threading.Event()

    def write_slowly(target: ExportTarget) -> None:
        written.wait(10)
        write_text(target)

    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show_export(pilot, write_slowly)
        await pilot.press("enter")
        await until(pilot, lambda: "writing new.md" in problem(pilot))
        await pilot.press("enter", "escape")
        await until(pilot, lambda: results == [None])
        written.set()
        await until(pilot, lambda: f"Exported to {folder}/new.md" in notices(pilot.app))


async def test_a_dialog_cancelled_while_its_path_is_checked_writes_nothing(make_host: MakeApp, folder: Path) -> None:
    """The check ends between the removal of the dialog and that of its worker."""
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show_export(pilot)
        dialog = pilot.app.screen
        assert isinstance(dialog, ExportDialog)
        pilot.app.pop_screen()
        await pilot.pause()
        await dialog.use("new.md")
        assert not (folder / "new.md").exists()


async def test_click_on_a_key_in_the_last_line_presses_it(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show_export(pilot)
        await pilot.click("KeysLine", offset=(1, 0))
        await until(pilot, lambda: results)
        await pilot.app.push_screen(OpenTextDialog(), results.append)  # type: ignore[arg-type]
        await pilot.pause()
        await pilot.click("KeysLine", offset=(29, 0))
        await until(pilot, lambda: len(results) == 2)
        assert results[1] is None


async def test_dialog_fits_a_small_terminal(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(60, 20)) as pilot:
        await show_export(pilot)
        path_input(pilot).value = "folder"
        await pilot.press("enter")
        await until(pilot, lambda: problem(pilot))
        dialog = pilot.app.screen.query_one(".dialog")
        assert pilot.app.screen.region.contains_region(dialog.region)
        assert pilot.app.screen.query_one("KeysLine").region.bottom < dialog.region.bottom
        assert isinstance(pilot.app.screen.focused, Input)


async def test_question_is_answered_by_a_click(make_host: MakeApp) -> None:
    answers: list[bool | None] = []
    async with make_host().run_test(size=(80, 24)) as pilot:
        for x, answer in ((1, True), (9, False)):
            await pilot.app.push_screen(ConfirmDialog("Really?"), answers.append)
            await pilot.pause()
            await pilot.click("KeysLine", offset=(x, 0))
            await until(pilot, lambda: answers and answers[-1] == answer)  # noqa: B023
