"""Screen with the saved sessions."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from lotr_tui.screens.dialogs.confirm import ConfirmDialog
from lotr_tui.screens.dialogs.line_dialog import RenameDialog
from lotr_tui.screens.dialogs.path_dialog import ExportDialog
from lotr_tui.screens.dialogs.sessions import OpenSession, SessionsScreen
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.session.conversation.entries import Exchange
from lotr_tui.session.session_file import SessionWriter, list_sessions, rename_session
from tests.support.pilot import MakeApp, conversation_of, entries, reply_to, text_of, until, until_reply_ended
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


async def show(pilot: Pilot[None], sessions_dir: Path, open_session: OpenSession | None = None) -> list[object]:
    """Open the screen, and return a list that gets the result of the screen."""
    results: list[object] = []
    await pilot.app.push_screen(SessionsScreen(open_session, sessions_dir), results.append)
    await until(pilot, lambda: rows(pilot) or "No saved sessions" in message(pilot))
    await pilot.pause()
    return results


async def open_dialog(pilot: Pilot[None], key: str, dialog: type) -> None:
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, dialog))


def rows(pilot: Pilot[None]) -> list[str]:
    return [str(option.prompt) for option in pilot.app.screen.query_one(OptionList).options]


def message(pilot: Pilot[None]) -> str:
    return text_of(pilot.app.screen.query_one("#message", Static)).replace("\n", "")


def problem(pilot: Pilot[None]) -> str:
    return text_of(pilot.app.screen.query_one("#problem", Static))


class FakeSession:
    """The session that is open in this window, without a conversation."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_deleted = False

    def rename(self, name: str) -> None:
        self.name = name

    def delete(self) -> None:
        self.is_deleted = True


# The list


@pytest.mark.parametrize("width", [60, 80, 200])
async def test_latest_session_is_first_and_damage_is_shown(make_app: MakeApp, sessions_dir: Path, width: int) -> None:
    async with make_app().run_test(size=(width, 20)) as pilot:
        await show(pilot, sessions_dir)
        newer, broken, older = rows(pilot)
        assert newer.endswith("a newer prompt")
        assert newer.split()[3] == "1"  # replies, after name, age and unit
        assert ("shire" in newer) == (width >= 100)
        assert "✗ a line describes neither" in broken
        assert older.endswith("an older [red]prompt[/]")  # not interpreted as markup
        assert "3 saved" in text_of(pilot.app.screen.query_one("#status"))


@pytest.mark.parametrize("width", [60, 80])
async def test_long_name_ends_with_an_ellipsis(make_app: MakeApp, sessions_dir: Path, width: int) -> None:
    path = next(path for path in sessions_dir.glob("2*.jsonl") if "newer" in path.read_text())
    rename_session(path, "the ring went south in the long winter of the year")
    async with make_app().run_test(size=(width, 20)) as pilot:
        await show(pilot, sessions_dir)
        assert rows(pilot)[0].startswith(" the ring went s… " if width == 60 else " the ring went south i… ")
        header = text_of(pilot.app.screen.query_one("#columns"))
        assert header.index("first prompt") == rows(pilot)[0].index("a newer prompt") - 1


async def test_enter_opens_an_intact_session(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, sessions_dir)
        await pilot.press("down", "enter")
        assert "cannot open broken" in message(pilot)
        await pilot.press("down", "enter")
        await until(pilot, lambda: results)
        assert isinstance(results[0], Path)
        assert "older" in results[0].read_text()


async def test_click_opens_a_session_and_escape_opens_none(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, sessions_dir)
        await pilot.click(OptionList, offset=(8, 0))
        await until(pilot, lambda: results)
        assert isinstance(results[0], Path)
        assert "newer" in results[0].read_text()
        results = await show(pilot, sessions_dir)
        await pilot.press("escape")
        assert results == [None]


async def test_current_session_is_highlighted_first_and_cannot_be_opened(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        current = next(path for path in sessions_dir.glob("2*.jsonl") if "older" in path.read_text())
        results = await show(pilot, sessions_dir, FakeSession(current.stem))
        assert "current · an older" in rows(pilot)[2]
        assert pilot.app.screen.query_one(OptionList).highlighted == 2
        await pilot.press("enter")
        assert "is the current session" in message(pilot)
        assert not results


async def test_refresh_lists_the_first_session(make_app: MakeApp, tmp_path: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path / "none")
        for key in ("enter", "r", "x", "m", "j", "s"):
            await pilot.press(key)
            assert "No saved sessions yet" in message(pilot)
        assert not results
        save_session(tmp_path / "none", "the first", 1_600_000_000)
        await pilot.press("f5")
        await until(pilot, lambda: len(rows(pilot)) == 1)


async def test_tiny_terminal(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(20, 5)) as pilot:
        await show(pilot, sessions_dir)
        await pilot.press("down", "up", "m")
        await until(pilot, lambda: isinstance(pilot.app.screen, ExportDialog))
        await pilot.press("escape")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: len(rows(pilot)) == 3)


# Changes


async def test_new_session_is_the_result_of_its_key(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, sessions_dir)
        await pilot.press("n")
        await until(pilot, lambda: results)
        assert results == ["new"]


async def test_refused_name_stays_in_the_dialog_until_it_is_valid(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await show(pilot, sessions_dir)
        await open_dialog(pilot, "r", RenameDialog)
        name = pilot.app.screen.query_one(Input)
        for typed, rule in (("a/b", "'/' is not allowed"), ("", "at least one"), ("broken", "exists already")):
            name.value = typed
            await pilot.press("enter")
            await until(pilot, lambda: rule in problem(pilot))  # noqa: B023
            assert name.value == typed
        name.value = "Bilbo 🎂"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen) and "Bilbo 🎂" in rows(pilot)[0])
        assert "is now Bilbo 🎂" in message(pilot)
        assert (sessions_dir / "Bilbo 🎂.jsonl").exists()


async def test_delete_asks_and_keeps_the_session_on_no(make_app: MakeApp, sessions_dir: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await show(pilot, sessions_dir)
        for answer, count in (("n", 3), ("y", 2)):
            await open_dialog(pilot, "x", ConfirmDialog)
            await pilot.press(answer)
            await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen))
            await until(pilot, lambda: len(rows(pilot)) == count)  # noqa: B023
        assert "deleted 2020" in message(pilot)
        assert [each.first_prompt for each in list_sessions(sessions_dir)] == ["", "an older [red]prompt[/]"]


async def test_session_of_another_window_is_neither_renamed_nor_deleted(make_app: MakeApp, sessions_dir: Path) -> None:
    path = next(path for path in sessions_dir.glob("2*.jsonl") if "newer" in path.read_text())
    async with make_app().run_test(size=(80, 24)) as pilot:
        await show(pilot, sessions_dir)
        writer = SessionWriter.resume(path)
        await open_dialog(pilot, "x", ConfirmDialog)
        await pilot.press("y")
        await until(pilot, lambda: "is open in another window; close it there first" in message(pilot))
        await open_dialog(pilot, "r", RenameDialog)
        await pilot.press("x", "enter")
        await until(pilot, lambda: "is open in another window" in problem(pilot))
        writer.close()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen))
        assert (sessions_dir / "x.jsonl").exists()


async def test_session_that_another_window_renamed_is_reported_as_gone(make_app: MakeApp, sessions_dir: Path) -> None:
    path = next(path for path in sessions_dir.glob("2*.jsonl") if "newer" in path.read_text())
    async with make_app().run_test(size=(80, 24)) as pilot:
        await show(pilot, sessions_dir)
        rename_session(path, "elsewhere")
        await open_dialog(pilot, "x", ConfirmDialog)
        await pilot.press("y")
        await until(pilot, lambda: "is gone" in message(pilot))
        await until(pilot, lambda: "elsewhere" in rows(pilot)[0])


async def test_renaming_the_current_session_keeps_the_conversation(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.query(ConversationView))
        await reply_to(pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen) and app.screen.query_one(OptionList).options)
        await open_dialog(pilot, "r", RenameDialog)
        await pilot.press(*"party", "enter")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen) and "party" in rows(pilot)[0])
        assert "current · " in rows(pilot)[0]
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SessionScreen))
        assert conversation_of(app).name == "party"
        await reply_to(pilot, "the lamp")
        (summary,) = list_sessions()
        assert (summary.name, summary.num_replies) == ("party", 2)


async def test_deleting_the_current_session_begins_a_new_one(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.query(ConversationView))
        await reply_to(pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen) and app.screen.query_one(OptionList).options)
        await open_dialog(pilot, "x", ConfirmDialog)
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, SessionScreen))
        await until(pilot, lambda: not entries(app, Exchange))
        assert list_sessions() == []
        await pilot.press(*"the lamp", "enter")
        await until_reply_ended(pilot)
        assert [each.first_prompt for each in list_sessions()] == ["the lamp"]


async def test_new_session_keeps_the_previous_one(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.query(ConversationView))
        await reply_to(pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, SessionScreen) and not entries(app, Exchange))
        await reply_to(pilot, "the lamp")
        assert sorted(each.first_prompt for each in list_sessions()) == ["bilbo is", "the lamp"]


# Export


@pytest.mark.parametrize(("key", "kind"), [("m", "md"), ("j", "json"), ("s", "svg")])
async def test_export_asks_for_a_path_and_suggests_the_last_folder(
    make_app: MakeApp, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch, key: str, kind: str
) -> None:
    monkeypatch.chdir(sessions_dir.parent)
    folder = sessions_dir.parent / "elsewhere"
    folder.mkdir()
    app = make_app()
    async with app.run_test(size=(120, 24)) as pilot:
        await show(pilot, sessions_dir)
        await open_dialog(pilot, key, ExportDialog)
        path = app.screen.query_one(Input)
        assert path.value.startswith(f"{sessions_dir.parent}/2020")
        assert path.value.endswith(f".{kind}")
        assert path.cursor_position == len(path.value)
        path.value = f"{folder}/mine.{kind}"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen))
        assert message(pilot) == f"Exported to {folder}/mine.{kind}"
        assert "newer" in (folder / f"mine.{kind}").read_text()
        if kind == "json":
            assert json.loads((folder / f"mine.{kind}").read_text())["replies"][0]["prompt"] == "a newer prompt"
        await open_dialog(pilot, key, ExportDialog)
        assert app.screen.query_one(Input).value.startswith(f"{folder}/2020")
        assert app.settings_store.current.export_folder == str(folder)


async def test_deep_damage_is_reported_in_the_dialog_and_the_file_is_set_aside(
    make_app: MakeApp, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sessions_dir.parent)
    path = next(path for path in sessions_dir.glob("2*.jsonl") if "newer" in path.read_text())
    path.write_bytes(path.read_bytes() + b"{}\n")
    async with make_app().run_test(size=(120, 24)) as pilot:
        await show(pilot, sessions_dir)
        await open_dialog(pilot, "m", ExportDialog)
        await pilot.press("enter")
        await until(pilot, lambda: ".damaged-1" in problem(pilot).replace("\n", ""))
        await pilot.press("escape")
        await until(pilot, lambda: len(rows(pilot)) == 2)
