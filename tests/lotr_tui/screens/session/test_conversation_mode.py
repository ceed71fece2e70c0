"""Conversation mode of the session: lines and answers, scenes, and branches of a turn."""

import pytest

from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.first_steps import CONVERSATION_HINTS
from lotr_tui.screens.session.who_answers_bars import WhoAnswersBars
from lotr_tui.session.conversation.entries import Note
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support.dialogue_scenes import conversation as open_conversation
from tests.support.dialogues import CAST
from tests.support.pilot import (
    MakeApp,
    conversation_of,
    entries,
    exchange_text,
    latest_reply,
    send,
    set_field,
    text_of,
    transcript_text,
    until,
    until_reply_ended,
)
from tests.support.speaking import labels, make_speaking_app, num_turns, run, say


async def test_a_session_with_speakers_starts_with_a_conversation(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: labels(app) == ["as a stranger", "to anyone", "conversation", "best of auto"])
        assert "Say hello to Gandalf." in entries(app, Note)[0]
        assert app.screen.query_one(PromptInput).placeholder == "say something; / lists commands"
        assert app.screen.query_one(WhoAnswersBars).display


async def test_an_answer_stands_below_the_line_under_the_name_of_its_speaker(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        reply = await say(pilot)
        assert reply.reply_mode == "conversation"
        assert reply.speaker in CAST[:3]
        lines = transcript_text(app).splitlines()
        said = next(index for index, line in enumerate(lines) if "the lamp was lit" in line)
        assert lines[said].split()[:2] == ["❯", "You"]
        assert lines[said + 1].split()[0] == reply.speaker.capitalize()
        column = lines[said].index("the lamp")
        assert lines[said + 1][column - 1] == " " != lines[said + 1][column]
        assert f"{reply.speaker.capitalize()} by the model" in exchange_text(app)
        assert "best of 8" in exchange_text(app)


@pytest.mark.parametrize("send_key", ["ctrl+n", "enter"])
async def test_go_on_adds_a_turn_without_the_user(make_app: MakeApp, send_key: str) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        await say(pilot)
        await pilot.press(send_key)
        await until(pilot, lambda: num_turns(app) == 2)
        await until_reply_ended(pilot)
        assert latest_reply(app).prompt == ""
        assert exchange_text(app).count("\n") == 1  # the answer and its figures


@pytest.mark.parametrize("send_key", ["ctrl+n", "enter"])
async def test_who_is_chosen_to_answer_speaks_in_the_next_turn(make_app: MakeApp, send_key: str) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        for name in CAST[:3]:
            await run(pilot, f"/to {name}")
            number = num_turns(app)
            await pilot.press(send_key)
            await until(pilot, lambda number=number: num_turns(app) == number + 1)
            await until_reply_ended(pilot)
            assert latest_reply(app).speaker == name
            assert f"{name.capitalize()} by your choice" in exchange_text(app)


async def test_a_scene_goes_on_for_its_turns_with_its_speakers(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        await run(pilot, "/scene 5 Frodo, gollum")
        await until(pilot, lambda: num_turns(app) == 5)
        await until_reply_ended(pilot)
        replies = list(conversation_of(app).replies_by_exchange.values())
        assert {reply.speaker for reply in replies} <= {"FRODO", "GOLLUM"}
        shown = transcript_text(app)
        assert shown.count("Frodo") + shown.count("Gollum") >= 5
        await run(pilot, "/scene")
        await until(pilot, lambda: num_turns(app) == 9)


async def test_escape_ends_a_scene_at_a_word(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app, pace=40)
    async with app.run_test(size=(120, 35)) as pilot:
        await send(pilot, "/scene 50")
        await until(pilot, lambda: num_turns(app) == 2 and latest_reply(app).tokens)
        await pilot.press("escape")
        await until(pilot, lambda: conversation_of(app).active_reply is None)
        number = num_turns(app)
        await pilot.pause(0.3)
        assert num_turns(app) == number < 50


async def test_a_reader_who_has_scrolled_away_stays_while_a_scene_goes_on(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(80, 16)) as pilot:
        await run(pilot, "/scene 6")
        transcript = app.screen.query_one(Transcript)
        await until(pilot, lambda: transcript.max_scroll_y > 6)
        await send(pilot, "/scene 6")
        transcript.scroll_to(y=0, animate=False)
        await until(pilot, lambda: num_turns(app) == 12)
        await until_reply_ended(pilot)
        assert transcript.scroll_offset.y == 0


async def test_again_answers_as_the_same_speaker_or_as_another_one(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        await run(pilot, "/best 1")
        first = await say(pilot)
        set_field(app, "seed", "8")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(first.turn.replies) == 2)
        await until_reply_ended(pilot)
        assert latest_reply(app).speaker == first.speaker
        other = next(name for name in CAST[:3] if name != first.speaker)
        await run(pilot, f"/again {other.lower()}")
        assert latest_reply(app).speaker == other
        assert len(first.turn.replies) == 3
        assert other.capitalize() in transcript_text(app)
        await pilot.press("ctrl+d", *first.speaker.lower(), "ctrl+r")
        await until(pilot, lambda: len(first.turn.replies) == 4)
        await until_reply_ended(pilot)
        assert latest_reply(app).speaker == first.speaker
        assert labels(app)[1] == "to anyone"
        await pilot.press("ctrl+g", "c")
        await until(pilot, lambda: f"branch 1 of 4, {first.speaker.capitalize()}:" in transcript_text(app))


async def test_best_of_keeps_the_other_answers_as_branches(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        await run(pilot, "/best 3")
        assert labels(app)[-1] == "best of 3"
        reply = await say(pilot)
        assert len(reply.turn.replies) == 3
        assert "best of 3" in exchange_text(app)
        await pilot.click("#best-of")
        assert labels(app)[-1] == "best of 8"
        assert app.settings_store.current.best_of == 8


async def test_continue_mode_completes_a_line_of_the_chosen_speaker(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        await run(pilot, "/to gollum")
        await pilot.press("f6")
        reply = await say(pilot, "the lamp")
        assert (reply.reply_mode, reply.speaker) == ("continue", "GOLLUM")


async def test_hints_are_about_the_conversation(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(80, 24)) as pilot:
        help_line = app.screen.query_one(HelpLine)
        await say(pilot)
        await until(pilot, lambda: text_of(help_line) == CONVERSATION_HINTS["cast"])
        await pilot.press("ctrl+d", "down", "enter")  # done, so that its hint makes room for the next one
        await until(pilot, lambda: text_of(help_line) == CONVERSATION_HINTS["again"])
        await say(pilot)
        await until(pilot, lambda: text_of(help_line) == CONVERSATION_HINTS["words"])


async def test_no_line_moves_while_an_answer_is_drawn_and_written(make_app: MakeApp) -> None:
    """The lines above the answer, the labels, the prompt and the bars keep their places."""
    app = make_speaking_app(make_app, pace=100)
    async with app.run_test(size=(120, 35)) as pilot:
        await say(pilot)
        parts = ("#conversation", "#who", "#next", "#training", "#controls", "#roles", "#prompt")

        def regions() -> list[object]:
            return [app.screen.query_one(part).region for part in parts]

        before, lines = regions(), transcript_text(app).splitlines()[:4]
        await send(pilot, "where is frodo")
        while conversation_of(app).active_reply is not None:
            assert regions() == before
            assert transcript_text(app).splitlines()[:4] == lines
            await pilot.pause(0.01)
        assert regions() == before


async def test_a_saved_conversation_is_shown_with_names_and_continues(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await open_conversation(pilot)
        shown = transcript_text(app)
        assert [line.split()[:2] for line in shown.splitlines() if "❯" in line] == [["❯", "You"], ["❯", "Frodo"]]
        assert "the model does not know: wizard" in shown
        app.screen.query_one(PromptInput).value = ""
        await say(pilot)
        assert num_turns(app) == 4
        assert latest_reply(app).speaker == "GOLLUM"


async def test_an_edited_line_gets_another_answer_in_its_turn(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        await run(pilot, "/best 1")
        await say(pilot)
        second = await say(pilot, "where is frodo")
        await pilot.press("ctrl+x")
        prompt = app.screen.query_one(PromptInput)
        assert prompt.value == "where is frodo"
        await say(pilot, "where is bilbo")
        assert latest_reply(app).turn is second.turn
        assert latest_reply(app).prompt == "where is bilbo"
