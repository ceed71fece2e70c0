"""The list of saved sessions, driven as a person would."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from engine.errors import UnusableInput
from lotr_tui.app import LotrApp
from lotr_tui.screens.dialogs import sessions as module
from lotr_tui.screens.dialogs.sessions import SessionsScreen
from lotr_tui.session.session_file import SessionWriter
from tests.lotr_tui.screens.session.test_session_screen import until
from tests.lotr_tui.session.test_saved_session import node

MakeApp = Callable[..., LotrApp]


def save(folder: Path, prompt: str, changed: float, model: str = "shire") -> Path:
    writer = SessionWriter(model, folder)
    writer.session = replace(writer.session, started=changed)
    writer.keep(node(prompt=prompt))
    writer.close()
    path: Path = folder / f"{writer.session.name}.jsonl"
    os.utime(path, (changed, changed))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sessions, the second damaged; from the latest on: newer, damaged, older."""
    folder = tmp_path / "sessions"
    save(folder, "an older [red]prompt[/]", 1_000_000_000)
    save(folder, "a newer prompt", 1_600_000_000)
    (folder / "broken.jsonl").write_text("{}\n")
    os.utime(folder / "broken.jsonl", (1_300_000_000,) * 2)
    return folder


async def show(pilot: Pilot[None], folder: Path, current: str = "") -> list[Path | None]:
    """Open the screen; the list gets what it is dismissed with."""
    answers: list[Path | None] = []
    pilot.app.push_screen(SessionsScreen(current, folder, folder.parent), answers.append)
    await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen))
    await pilot.pause()
    return answers


def rows(pilot: Pilot[None]) -> list[str]:
    options = pilot.app.screen.query_one(OptionList)
    return [str(options.get_option_at_index(i).prompt) for i in range(options.option_count)]


def said(pilot: Pilot[None]) -> str:
    return str(pilot.app.screen.query_one("#said", Static).render())


@pytest.mark.parametrize("width", [60, 80, 200])
async def test_the_latest_comes_first_and_damage_is_told(make_app: MakeApp, folder: Path, width: int) -> None:
    async with make_app().run_test(size=(width, 20)) as pilot:
        await show(pilot, folder)
        newer, broken, older = rows(pilot)
        assert newer.endswith("shire  a newer prompt")
        assert "✗ broken: " in broken
        assert older.endswith("an older [red]prompt[/]")  # text is text
        assert ("2020-09-13" in newer) == (width >= 80)


async def test_opening_one(make_app: MakeApp, folder: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        answers = await show(pilot, folder)
        await pilot.press("down", "enter")
        assert "cannot be opened" in said(pilot)
        await pilot.press("down", "enter")
        await until(pilot, lambda: answers)
        assert answers[0] is not None
        assert "older" in answers[0].read_text()


async def test_opening_one_by_mouse_and_none(make_app: MakeApp, folder: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        answers = await show(pilot, folder)
        await pilot.click(OptionList, offset=(8, 0))
        await until(pilot, lambda: answers)
        assert answers[0] is not None
        assert "newer" in answers[0].read_text()
        answers = await show(pilot, folder)
        await pilot.press("escape")
        assert answers == [None]


async def test_the_session_that_goes_on(make_app: MakeApp, folder: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        current = max(folder.glob("2*.jsonl"), key=lambda path: path.stat().st_mtime)
        answers = await show(pilot, folder, current.stem)
        assert "now · a newer prompt" in rows(pilot)[0]
        await pilot.press("enter")
        assert "goes on" in said(pilot)
        assert not answers


@pytest.mark.parametrize(("key", "kind"), [("m", "md"), ("j", "json"), ("s", "svg")])
async def test_exporting(make_app: MakeApp, folder: Path, key: str, kind: str) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await show(pilot, folder)
        await pilot.press(key)
        await until(pilot, lambda: said(pilot).startswith("written to "))
        (path,) = folder.parent.glob(f"*.{kind}")
        assert str(path) in said(pilot).replace("\n", "")
        assert "newer" in path.read_text()
        if kind == "json":
            assert json.loads(path.read_text())["nodes"][0]["prompt"] == "a newer prompt"
        await pilot.press(key)  # again: nothing is overwritten
        await until(pilot, lambda: len(list(folder.parent.glob(f"*.{kind}"))) == 2)


async def test_exporting_what_is_damaged_sets_it_aside_and_says_so(make_app: MakeApp, folder: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await show(pilot, folder)
        await pilot.press("down", "m")
        await until(pilot, lambda: "set aside" in said(pilot))
        await until(pilot, lambda: len(rows(pilot)) == 2)
        assert (folder / "broken.jsonl.damaged-1").exists()


async def test_a_full_disk_is_told(make_app: MakeApp, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise UnusableInput("cannot write x.md: No space left on device; choose another folder")

    monkeypatch.setattr(module, "export", full)
    async with make_app().run_test(size=(80, 24)) as pilot:
        await show(pilot, folder)
        await pilot.press("m")
        await until(pilot, lambda: "No space left" in said(pilot))


async def test_no_sessions_and_then_one(make_app: MakeApp, tmp_path: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        answers = await show(pilot, tmp_path / "none")
        await pilot.press("enter", "m", "j", "s")
        assert "none yet" in said(pilot)
        assert not answers
        save(tmp_path / "none", "the first", 1_600_000_000)
        await pilot.press("f5")
        await pilot.pause()
        assert len(rows(pilot)) == 1


async def test_a_tiny_terminal(make_app: MakeApp, folder: Path) -> None:
    async with make_app().run_test(size=(20, 5)) as pilot:
        await show(pilot, folder)
        await pilot.press("down", "up", "m")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: said(pilot).startswith("written"))
