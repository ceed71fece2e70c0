"""Screen with the saved sessions."""

import json
import os
from types import SimpleNamespace

import pytest
from textual.widgets import Input, OptionList, Static

from lotr_tui.screens.dialogs.dialog import ConfirmDialog, Dialog
from lotr_tui.screens.dialogs.paths import ExportDialog
from lotr_tui.screens.dialogs.sessions import SessionsScreen
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_file import Session, list_sessions
from tests.support.pilot import entries, reply_to, send, text_of, until
from tests.support.sessions import save_replies, saved_reply


def save_session(sessions_dir, prompt, modified):
    path = save_replies(sessions_dir, saved_reply(prompt=prompt), model="shire", started=modified)
    os.utime(path, (modified, modified))
    return path


@pytest.fixture
def sessions_dir(tmp_path):
    """Directory with three sessions, latest first: newer, broken (damaged) and older."""
    sessions_dir = tmp_path / "sessions"
    save_session(sessions_dir, "an older [red]prompt[/]", 1_000_000_000)
    save_session(sessions_dir, "a newer prompt", 1_600_000_000)
    (sessions_dir / "broken.jsonl").write_text("{}\n")
    os.utime(sessions_dir / "broken.jsonl", (1_300_000_000,) * 2)
    return sessions_dir


def path_of(sessions_dir, text):
    return next(path for path in sessions_dir.glob("*.jsonl") if text in path.read_text())


async def show(pilot, sessions_dir, open_session=None):
    """Open the screen, and return a list that gets the result of the screen."""
    results = []
    await pilot.app.push_screen(SessionsScreen(open_session, sessions_dir), results.append)
    await until(pilot, lambda: rows(pilot) or "No saved sessions" in message(pilot))
    await pilot.pause()
    return results


async def open_dialog(pilot, key, dialog):
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, dialog))


def rows(pilot):
    return [str(option.prompt) for option in pilot.app.screen.query_one(OptionList).options]


def message(pilot):
    return text_of(pilot.app.screen.query_one("#message", Static)).replace("\n", "")


def problem(pilot):
    return text_of(pilot.app.screen.query_one("#problem", Static))


# The list


async def test_latest_session_is_first_and_damage_is_shown(make_host, sessions_dir):
    async with make_host().run_test(size=(200, 20)) as pilot:
        await show(pilot, sessions_dir)
        newer, broken, older = rows(pilot)
        assert newer.rstrip().endswith("a newer prompt")
        assert newer.split()[5] == "1"  # replies, after name, age and unit
        assert "shire" in newer
        assert "✗ a line describes neither" in broken
        assert older.rstrip().endswith("an older [red]prompt[/]")  # not interpreted as markup
        assert "sessions · 3" in text_of(pilot.app.screen.query_one("#status"))
        await pilot.press("s")
        assert [row.split()[0] for row in rows(pilot)] == ["a", "an", "broken"]
        await pilot.press("slash", *"shire red", "enter")
        assert len(rows(pilot)) == 1


async def test_intact_sessions_are_opened_and_the_current_or_a_damaged_one_is_not(make_host, sessions_dir, tmp_path):
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, sessions_dir)
        await pilot.press("down", "enter")
        assert "cannot open broken" in message(pilot)
        await pilot.press("down", "enter")
        await until(pilot, lambda: results)
        assert "older" in results[0].read_text()
        results = await show(pilot, sessions_dir, SimpleNamespace(name=path_of(sessions_dir, "older").stem))
        assert rows(pilot)[2].startswith(" ● an older")
        await pilot.press("end", "enter")
        assert "is the current session" in message(pilot)
        assert not results
        await pilot.press("escape")

        results = await show(pilot, tmp_path / "none")
        for key in ("enter", "e", "x", "ctrl+s"):
            await pilot.press(key)
            assert "No saved sessions yet" in message(pilot)


# Changes


async def test_sessions_are_renamed_and_deleted_after_valid_answers(make_host, sessions_dir):
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, sessions_dir)
        await open_dialog(pilot, "e", Dialog)
        name = pilot.app.screen.query_one(Input)
        for typed, rule in (("a/b", "'/' is not allowed"), ("broken", "exists already")):
            name.value = typed
            await pilot.press("enter")
            await until(pilot, lambda: rule in problem(pilot))  # noqa: B023
            assert name.value == typed
        name.value = "Bilbo 🎂"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen) and "Bilbo 🎂" in rows(pilot)[0])
        assert "is now Bilbo 🎂" in message(pilot)
        assert (sessions_dir / "Bilbo 🎂.jsonl").exists()
        for answer, count in (("n", 3), ("y", 2)):
            await open_dialog(pilot, "x", ConfirmDialog)
            await pilot.press(answer)
            await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen))
            await until(pilot, lambda: len(rows(pilot)) == count)  # noqa: B023
        assert "deleted Bilbo" in message(pilot)
        assert [each.first_prompt for each in list_sessions(sessions_dir)] == ["", "an older [red]prompt[/]"]


async def test_a_session_of_another_window_is_neither_renamed_nor_deleted(make_host, sessions_dir):
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, sessions_dir)
        writer = Session.resume(path_of(sessions_dir, "newer"))
        await open_dialog(pilot, "x", ConfirmDialog)
        await pilot.press("y")
        await until(pilot, lambda: "is open in another window; close it there first" in message(pilot))
        await open_dialog(pilot, "e", Dialog)
        await pilot.press("x", "enter")
        await until(pilot, lambda: "is open in another window" in problem(pilot))
        writer.close()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen))
        assert (sessions_dir / "x.jsonl").exists()


async def test_the_current_session_is_renamed_left_and_deleted_without_losing_a_reply(make_app):
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.query(ConversationView))

        async def open_sessions():
            await send(pilot, "/sessions")
            await until(
                pilot, lambda: isinstance(app.screen, SessionsScreen) and app.screen.query_one(OptionList).options
            )

        await reply_to(pilot)
        await open_sessions()
        await open_dialog(pilot, "e", Dialog)
        await pilot.press(*"party", "enter")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen) and "party" in rows(pilot)[0])
        assert rows(pilot)[0].startswith(" ● party")
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
        await until(pilot, lambda: isinstance(app.screen, SessionScreen))
        await until(pilot, lambda: not entries(app, Reply))
        assert [each.name for each in list_sessions()] == ["party"]
        await reply_to(pilot, "winter")
        assert sorted(each.first_prompt for each in list_sessions()) == ["bilbo is", "winter"]


# Export


async def test_export_asks_for_a_path_and_suggests_the_last_folder(make_host, sessions_dir, monkeypatch):
    monkeypatch.chdir(sessions_dir.parent)
    folder = sessions_dir.parent / "elsewhere"
    folder.mkdir()
    app = make_host()
    async with app.run_test(size=(120, 24)) as pilot:
        await show(pilot, sessions_dir)
        for kind, suggested in (("md", sessions_dir.parent), ("json", folder)):
            await open_dialog(pilot, "ctrl+s", ExportDialog)
            path = app.screen.query_one(Input)
            assert path.value.startswith(f"{suggested}/a newer prompt.")
            assert path.value.endswith(".md")
            assert path.cursor_position == len(path.value)
            path.value = f"{folder}/mine.{kind}"
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, SessionsScreen))
            assert message(pilot) == f"Exported to {folder}/mine.{kind}"
            assert "newer" in (folder / f"mine.{kind}").read_text()
        assert json.loads((folder / "mine.json").read_text())["replies"][0]["prompt"] == "a newer prompt"
        assert app.state.settings.current.export_folder == str(folder)
