"""Screen with the saved sessions."""

import json
import os
from types import SimpleNamespace

import pytest
from textual.widgets import Input

from lotr_tui.screens.dialogs.dialog import ConfirmDialog, Dialog
from lotr_tui.screens.dialogs.paths import ExportDialog
from lotr_tui.screens.dialogs.sessions import SessionsScreen
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_file import Session, list_sessions
from tests.support.lists import answer, message, open_dialog, refuse, rows, show
from tests.support.pilot import entries, reply_to, send, text_of, until
from tests.support.sessions import save_replies, saved_reply


@pytest.fixture
def sessions_dir(tmp_path):
    """Directory with three sessions, latest first: newer, broken (damaged) and older."""
    sessions_dir = tmp_path / "sessions"
    for prompt, modified in (("an older [red]prompt[/]", 1_000_000_000), ("a newer prompt", 1_600_000_000)):
        path = save_replies(sessions_dir, saved_reply(prompt=prompt), model="shire", started=modified)
        os.utime(path, (modified, modified))
    (sessions_dir / "broken.jsonl").write_text("{}\n")
    os.utime(sessions_dir / "broken.jsonl", (1_300_000_000,) * 2)
    return sessions_dir


async def test_latest_session_is_first_and_damage_is_shown(make_host, sessions_dir):
    async with make_host().run_test(size=(200, 20)) as pilot:
        await show(pilot, SessionsScreen(None, sessions_dir))
        newer, broken, older = rows(pilot)
        assert newer.rstrip().endswith("a newer prompt")
        assert newer.split()[5] == "1"  # replies, after name, age and unit
        assert "shire" in newer
        assert "✗ a line describes neither" in broken
        assert older.rstrip().endswith("an older [red]prompt[/]")  # not interpreted as markup
        assert "sessions · 3" in text_of(pilot.app.screen.query_one("#status"))
        await pilot.press("slash", *"shire red", "enter")
        assert len(rows(pilot)) == 1


async def test_the_filter_finds_what_was_said(make_host, sessions_dir):
    save_replies(
        sessions_dir, saved_reply(), saved_reply(1, 0, 2, prompt="Do you know Lórien?", text="the golden wood")
    )
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, SessionsScreen(None, sessions_dir))
        await pilot.press("slash", *"golden LÓRIEN")
        await until(pilot, lambda: [row.split()[0] for row in rows(pilot)] == ["bilbo"])
        assert message(pilot) == ""


async def test_sessions_are_opened_and_the_current_one_is_not(make_host, sessions_dir, tmp_path):
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, SessionsScreen(None, sessions_dir))
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: results)
        assert "older" in results[0].read_text()
        results = await show(pilot, SessionsScreen(SimpleNamespace(name=results[0].stem), sessions_dir))
        assert rows(pilot)[2].startswith(" ● an older")
        await pilot.press("end", "enter")
        assert "is the current session" in message(pilot)
        assert not results
        await pilot.press("escape")

        await show(pilot, SessionsScreen(None, tmp_path / "none"))
        for key in ("enter", "e", "x", "ctrl+s"):
            await pilot.press(key)
            assert "No saved sessions yet" in message(pilot)


async def test_sessions_are_renamed_and_deleted_unless_another_window_has_them(make_host, sessions_dir):
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, SessionsScreen(None, sessions_dir))
        writer = Session.resume(next(path for path in sessions_dir.glob("*.jsonl") if "newer" in path.stem))
        await answer(pilot, "x", ConfirmDialog, "y")
        await until(pilot, lambda: "is open in another window; close it there first" in message(pilot))
        await open_dialog(pilot, "e", Dialog)
        await refuse(pilot, **{"x": "is open in another window", "a/b": "'/' is not allowed"})
        writer.close()
        await refuse(pilot, broken="exists already")
        pilot.app.screen.query_one(Input).value = "Bilbo 🎂"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen) and "Bilbo 🎂" in rows(pilot)[0])
        assert "is now Bilbo 🎂" in message(pilot)
        await pilot.press("slash", "b")
        await until(pilot, lambda: not message(pilot))
        assert text_of(pilot.app.screen.query_one("#filter-row Label")) == "filter"
        await pilot.press("escape")
        assert (sessions_dir / "Bilbo 🎂.jsonl").exists()
        await answer(pilot, "x", ConfirmDialog, "n")
        await answer(pilot, "x", ConfirmDialog, "y")
        await until(pilot, lambda: "deleted Bilbo" in message(pilot))
        assert [each.first_prompt for each in list_sessions(sessions_dir)] == ["", "an older [red]prompt[/]"]


async def test_the_current_session_is_renamed_left_and_deleted_without_losing_a_reply(opened):
    async with opened((80, 24)) as (pilot, app):
        await until(pilot, lambda: app.screen.query(ConversationView))

        async def open_sessions():
            await send(pilot, "/sessions")
            await until(pilot, lambda: isinstance(app.screen, SessionsScreen) and rows(pilot))

        await reply_to(pilot)
        await open_sessions()
        await open_dialog(pilot, "e", Dialog)
        await pilot.press(*"party", "enter")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen) and rows(pilot)[0].startswith(" ● party"))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SessionScreen))
        await reply_to(pilot, "the lamp")
        (summary,) = list_sessions()
        assert (summary.name, summary.num_replies) == ("party", 2)

        await open_sessions()
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, SessionScreen) and not entries(app, Reply))
        await reply_to(pilot, "bread")
        assert sorted(each.first_prompt for each in list_sessions()) == ["bilbo is", "bread"]

        await open_sessions()
        await open_dialog(pilot, "x", ConfirmDialog)
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, SessionScreen) and not entries(app, Reply))
        assert [each.name for each in list_sessions()] == ["party"]
        await reply_to(pilot, "winter")
        assert sorted(each.first_prompt for each in list_sessions()) == ["bilbo is", "winter"]


async def test_export_asks_for_a_path_and_suggests_the_last_folder(hosted, sessions_dir, monkeypatch):
    monkeypatch.chdir(sessions_dir.parent)
    folder = sessions_dir.parent / "elsewhere"
    folder.mkdir()
    async with hosted((120, 24)) as (pilot, app):
        await show(pilot, SessionsScreen(None, sessions_dir))
        for kind, suggested in (("md", sessions_dir.parent), ("json", folder)):
            await open_dialog(pilot, "ctrl+s", ExportDialog)
            path = app.screen.query_one(Input)
            assert path.value == f"{suggested}/a newer prompt.md"
            assert path.cursor_position == len(path.value)
            path.value = f"{folder}/mine.{kind}"
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, SessionsScreen))
            assert message(pilot) == f"Exported to {folder}/mine.{kind}"
            assert "newer" in (folder / f"mine.{kind}").read_text()
        assert json.loads((folder / "mine.json").read_text())["replies"][0]["prompt"] == "a newer prompt"
        assert app.state.settings.current.export_folder == str(folder)
