"""Saved sessions opened from the list of sessions, driven through the keyboard."""

from pathlib import Path

from textual.pilot import Pilot

from lotr_tui.screens.dialogs.sessions import SessionsScreen
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.entries import Exchange
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.session_file import load_session
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support import pilot as ui
from tests.support.conversations import finish_reply, only_session


async def save_one_reply(make_app: ui.MakeApp) -> list[str]:
    """Write a session of one reply, and return the texts of its exchanges."""
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await ui.reply_to(pilot, "bilbo is", "1")
        return ui.entries(app, Exchange)


async def open_latest_session(pilot: Pilot[None]) -> None:
    await pilot.press("ctrl+s")
    await ui.until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen))
    await pilot.press("enter")
    await ui.until(pilot, lambda: not isinstance(pilot.app.screen, SessionsScreen))
    await pilot.pause()


def conversation_with_states(branch: Reply) -> Conversation:
    """Return a conversation that still has the decoder states of `branch`."""
    assert branch.decoder_state(1) is not None
    conversation = Conversation(0)
    conversation.replies_by_exchange = {reply.exchange: reply for reply in branch.turn.replies}
    return conversation


async def test_resumed_session_is_shown_branched_and_saved_in_its_file(make_app: ui.MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        ui.set_field(app, "max_tokens", "12")
        await pilot.press("f6")
        await ui.reply_to(pilot, "bilbo is", "1")
        await ui.reply_to(pilot, "the lamp", "2")
        await pilot.press("ctrl+g", "left", "left", "left", "enter")
        await ui.until_reply_ended(pilot)
        branch = ui.latest_reply(app)
        ui.conversation_of(app).rename_branch(branch, "the better one")
        before = ui.entries(app, Exchange)
        await pilot.press("escape", "ctrl+g", "left")
        await ui.until(pilot, lambda: f"WORD {len(branch.tokens) - 1} of" in ui.inspector_text(app))
        inspected = ui.inspector_text(app)
    never_closed, path = conversation_with_states(branch), only_session(tmp_path)
    assert [reply.parent_id for reply in load_session(path).replies] == [None, 0, 1]

    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        ui.set_field(app, "max_tokens", "12")
        await open_latest_session(pilot)
        assert ui.entries(app, Exchange) == before
        assert "branch 2 of 2 'the better one'" in ui.exchange_text(app)
        assert app.screen.focused is app.screen.query_one("#prompt", PromptInput)
        await pilot.press("ctrl+g", "left")
        await ui.until(pilot, lambda: f"WORD {len(branch.tokens) - 1} of" in ui.inspector_text(app))
        assert ui.inspector_text(app) == inspected
        ui.set_field(app, "seed", "9")
        await pilot.press("enter")
        await ui.until_reply_ended(pilot)
        new = ui.latest_reply(app)
    assert only_session(tmp_path) == path
    session = load_session(path)
    assert [reply.parent_id for reply in session.replies] == [None, 0, 1, 2]
    assert session.replies[2].name == "the better one"
    assert new.num_shared_tokens == len(branch.tokens) - 2
    never_closed.branch(branch, new.num_shared_tokens, [new.tokens[new.num_shared_tokens].id], branch.settings, 9)
    expected = finish_reply(never_closed)
    never_closed.close()
    assert len(expected.tokens) > new.num_shared_tokens + 1
    assert [token.id for token in new.tokens] == [token.id for token in expected.tokens]
    own_tokens = expected.tokens[new.num_shared_tokens :]
    assert [token.text for token in session.replies[3].tokens] == [token.text for token in own_tokens]


async def test_opening_another_session_stops_the_generation_and_saves_its_tokens(
    make_app: ui.MakeApp, tmp_path: Path
) -> None:
    saved_entries = await save_one_reply(make_app)
    app = make_app(pace=20)
    async with app.run_test(size=(100, 30)) as pilot:
        ui.set_field(app, "max_tokens", "900")
        await ui.send(pilot, "the lamp")
        await ui.until(pilot, lambda: len(ui.exchange_text(app).split()) > 6)
        generating = ui.conversation_of(app)
        await open_latest_session(pilot)
        assert ui.entries(app, Exchange) == saved_entries
        assert generating.active_reply is None
        sessions = [load_session(path) for path in (tmp_path / "sessions").iterdir()]
        (stopped,) = (session for session in sessions if session.replies[0].prompt == "the lamp")
        assert stopped.replies[0].reason == "cancelled"
        assert len(stopped.replies[0].tokens) > 3
        await pilot.press("ctrl+s")
        await ui.until(pilot, lambda: isinstance(app.screen, SessionsScreen))
        await pilot.press("escape")
        assert ui.entries(app, Exchange) == saved_entries


async def test_damaged_session_is_reported_in_one_line_and_the_open_one_stays(
    make_app: ui.MakeApp, tmp_path: Path
) -> None:
    await save_one_reply(make_app)
    with only_session(tmp_path).open("a") as file:
        file.write('{"reply": {"id": "[red]"}}\n')
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        open_conversation = ui.conversation_of(app)
        await open_latest_session(pilot)
        assert "damaged" in ui.notices(app)
        assert "\n" not in ui.notices(app)  # one notice of one line
        assert ui.conversation_of(app) is open_conversation
        await ui.reply_to(pilot, "the lamp", "2")
        assert "words/s" in ui.exchange_text(app)
