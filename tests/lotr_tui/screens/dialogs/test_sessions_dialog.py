"""Screen with the saved sessions."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from engine.errors import InvalidInputError
from lotr_tui.screens.dialogs import sessions as module
from lotr_tui.screens.dialogs.sessions import SessionsScreen
from lotr_tui.session.session_file import SessionWriter
from tests.support.pilot import MakeApp, text_of, until
from tests.support.sessions import saved_reply


def save_session(sessions_dir: Path, prompt: str, modified: float) -> Path:
    writer = SessionWriter("shire", sessions_dir)
    writer.session = replace(writer.session, started=modified)
    writer.save(saved_reply(prompt=prompt))
    writer.close()
    path: Path = sessions_dir / f"{writer.session.name}.jsonl"
    os.utime(path, (modified, modified))
    return path


@pytest.fixture
def sessions_dir(tmp_path: Path) -> Path:
    """Directory with three sessions, latest first: newer, broken (damaged) and older."""
    sessions_dir = tmp_path / "sessions"
    save_session(sessions_dir, "an older [red]prompt[/]", 1_000_000_000)
    save_session(sessions_dir, "a newer prompt", 1_600_000_000)
    (sessions_dir / "broken.jsonl").write_text("{}\n")
    os.utime(sessions_dir / "broken.jsonl", (1_300_000_000,) * 2)
    return sessions_dir


async def show(pilot: Pilot[None], sessions_dir: Path, current_name: str = "") -> list[Path | None]:
    """Open the screen, and return a list that gets the result of the screen."""
    results: list[Path | None] = []
    pilot.app.push_screen(SessionsScreen(current_name, sessions_dir, sessions_dir.parent), results.append)
    await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen))
    await pilot.pause()
    return results


def rows(pilot: Pilot[None]) -> list[str]:
    return [str(option.prompt) for option in pilot.app.screen.query_one(OptionList).options]


def message(pilot: Pilot[None]) -> str:
    return text_of(pilot.app.screen.query_one("#message", Static))


@pytest.mark.parametrize("width", [60, 80, 200])
async def test_latest_session_is_first_and_damage_is_shown(make_app: MakeApp, sessions_dir: Path, width: int) -> None:
    async with make_app().run_test(size=(width, 20)) as pilot:
        await show(pilot, sessions_dir)
        newer, broken, older = rows(pilot)
        assert newer.endswith("shire  a newer prompt")
        assert "✗ broken: " in broken
        assert older.endswith("an older [red]prompt[/]")  # not interpreted as markup
        assert ("2020-09-13" in newer) == (width >= 80)


async def test_enter_opens_an_intact_session(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, sessions_dir)
        await pilot.press("down", "enter")
        assert "cannot open broken" in message(pilot)
        await pilot.press("down", "enter")
        await until(pilot, lambda: results)
        assert results[0] is not None
        assert "older" in results[0].read_text()


async def test_click_opens_a_session_and_escape_opens_none(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, sessions_dir)
        await pilot.click(OptionList, offset=(8, 0))
        await until(pilot, lambda: results)
        assert results[0] is not None
        assert "newer" in results[0].read_text()
        results = await show(pilot, sessions_dir)
        await pilot.press("escape")
        assert results == [None]


async def test_current_session_is_marked_and_cannot_be_opened(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        current = max(sessions_dir.glob("2*.jsonl"), key=lambda path: path.stat().st_mtime)
        results = await show(pilot, sessions_dir, current.stem)
        assert "current · a newer prompt" in rows(pilot)[0]
        await pilot.press("enter")
        assert "is the current session" in message(pilot)
        assert not results


@pytest.mark.parametrize(("key", "kind"), [("m", "md"), ("j", "json"), ("s", "svg")])
async def test_export_writes_a_new_file_each_time(make_app: MakeApp, sessions_dir: Path, key: str, kind: str) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await show(pilot, sessions_dir)
        await pilot.press(key)
        await until(pilot, lambda: message(pilot).startswith("written to "))
        (path,) = sessions_dir.parent.glob(f"*.{kind}")
        assert str(path) in message(pilot).replace("\n", "")
        assert "newer" in path.read_text()
        if kind == "json":
            assert json.loads(path.read_text())["replies"][0]["prompt"] == "a newer prompt"
        await pilot.press(key)
        await until(pilot, lambda: len(list(sessions_dir.parent.glob(f"*.{kind}"))) == 2)


async def test_exporting_a_damaged_session_renames_its_file(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await show(pilot, sessions_dir)
        await pilot.press("down", "m")
        await until(pilot, lambda: len(rows(pilot)) == 2)
        assert "broken.jsonl.damaged-1" in message(pilot).replace("\n", "")
        assert (sessions_dir / "broken.jsonl.damaged-1").exists()


async def test_export_error_is_shown(make_app: MakeApp, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Path:
        raise InvalidInputError("cannot write x.md: No space left on device; choose another folder")

    monkeypatch.setattr(module, "export_session", fail)
    async with make_app().run_test(size=(80, 24)) as pilot:
        await show(pilot, sessions_dir)
        await pilot.press("m")
        await until(pilot, lambda: "No space left" in message(pilot))


async def test_refresh_lists_the_first_session(make_app: MakeApp, tmp_path: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path / "none")
        await pilot.press("enter", "m", "j", "s")
        assert "No saved sessions yet" in message(pilot)
        assert not results
        save_session(tmp_path / "none", "the first", 1_600_000_000)
        await pilot.press("f5")
        await pilot.pause()
        assert len(rows(pilot)) == 1


async def test_tiny_terminal(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(20, 5)) as pilot:
        await show(pilot, sessions_dir)
        await pilot.press("down", "up", "m")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: message(pilot).startswith("written"))
