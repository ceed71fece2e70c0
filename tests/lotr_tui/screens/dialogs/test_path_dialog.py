"""The dialog that asks for a path: completion, questions before writing, and errors that lose nothing."""

import os
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.errors import InvalidInputError
from lotr_tui.screens.dialogs.dialog import ConfirmDialog, FieldInput
from lotr_tui.screens.dialogs.paths import ExportDialog, list_names
from lotr_tui.session.export import check_export_target
from tests.support.lists import answer, problem
from tests.support.pilot import lines_of, notices, until

BAD_PATHS = ("folder", "x" * 10_000, "a\ud800b")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    (folder / "folder" / "inner").mkdir(parents=True)
    for name in ("letter one.txt", "letter two.txt", ".hidden", "Other.md"):
        (folder / name).write_text("the lamp was lit")
    monkeypatch.chdir(folder)
    return folder


def write_text(target):
    target.path.write_text("exported")


async def show_export(pilot, write=write_text):
    results, host = [], SimpleNamespace(state=pilot.app.state)
    pilot.app.state.update_settings(export_folder="")
    check = partial(check_export_target, is_folder=False)
    dialog = ExportDialog(host, "Export", "new.md", check, write, on_exported=str)
    await pilot.app.push_screen(dialog, results.append)
    await pilot.pause()
    return results


def path_input(pilot):
    return pilot.app.screen.query_one(FieldInput)


async def test_tab_takes_the_ghost_text(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        for typed, completed in (("fol", "folder/"), ("le", "letter one.txt"), (".", ".hidden")):
            await show_export(pilot)
            await pilot.press("ctrl+u", *typed)
            await until(pilot, lambda: lines_of(path_input(pilot)).strip() == completed)  # noqa: B023  # in grey
            await pilot.press("tab")
            await until(pilot, lambda: path_input(pilot).value == completed)  # noqa: B023
            await pilot.press("ctrl+u", *"Oth", "tab")  # before the ghost text is shown
            await until(pilot, lambda: path_input(pilot).value == "Other.md")


def test_names_of_a_folder_are_sorted_and_unprintable_ones_left_out():
    Path(os.fsdecode(b"bad\xff")).touch()
    Path("bad\x1b[2J").touch()
    assert list_names("") == [".hidden", "folder/", "letter one.txt", "letter two.txt", "Other.md"]
    assert list_names("folder/") == ["inner/"]
    for unreadable in ("missing/", "Other.md/", "~nobody-of-this-name/", "a\0b/", "x" * 10_000):
        assert list_names(unreadable) == []


async def test_bad_paths_stay_in_the_dialog_with_their_problem(make_host):
    async with make_host().run_test(size=(60, 20)) as pilot:
        results = await show_export(pilot)
        for path in BAD_PATHS:
            path_input(pilot).value = path
            await pilot.press("enter")
            await until(pilot, lambda: problem(pilot))
            assert path_input(pilot).value in (path, path[:4096])
            assert path != "folder" or "is a folder" in problem(pilot)
            pilot.app.screen.show_problem("")
        assert not results


async def test_export_suggests_a_new_name_and_asks_before_it_replaces_or_creates_folders(make_host, folder):
    (folder / "new.md").touch()
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show_export(pilot)
        await until(pilot, lambda: path_input(pilot).value == f"{folder}/new-2.md")
        await pilot.press("x", "enter")  # the cursor is at the end
        await until(pilot, lambda: results == [folder / "new-2.mdx"])
        assert (folder / "new-2.mdx").read_text() == "exported"
        for path in ("Other.md", "a/b/x.md"):
            results = await show_export(pilot)
            path_input(pilot).value = path
            await answer(pilot, "enter", ConfirmDialog, "n")
            assert path_input(pilot).value == path
            assert not (folder / "a").exists()
            assert (folder / "Other.md").read_text() != "exported" or path != "Other.md"
            await answer(pilot, "enter", ConfirmDialog, "y")
            await until(pilot, lambda: results == [folder / path])  # noqa: B023
            assert (folder / path).read_text() == "exported"


async def test_a_failed_write_keeps_the_dialog_and_a_slow_one_is_reported_later(make_host, folder):
    def fail(_):
        raise InvalidInputError("cannot write new.md: No space left on device; choose another folder")

    written = threading.Event()

    def write_slowly(target):
        written.wait(10)
        write_text(target)

    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show_export(pilot, fail)
        await pilot.press("enter")
        await until(pilot, lambda: "No space left" in problem(pilot))
        assert path_input(pilot).value == f"{folder}/new.md"
        assert not (folder / "new.md").exists()
        assert not results

        results = await show_export(pilot, write_slowly)
        await pilot.press("enter")
        await until(pilot, lambda: "writing new.md" in problem(pilot))
        await pilot.press("enter", "escape")
        await until(pilot, lambda: results == [None])
        written.set()
        await until(pilot, lambda: f"Exported to {folder}/new.md" in notices(pilot.app))
