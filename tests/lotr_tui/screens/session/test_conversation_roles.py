"""Roles in a conversation: labels, bars, dialog, reply mode and commands."""

import pytest

from lotr_tui.screens.session.roles_screen import parse_scene
from lotr_tui.screens.session.who_answers_bars import WhoAnswersBars
from lotr_tui.session.conversation.entries import Note
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support.bindings.observations import screen_name
from tests.support.dialogues import CAST, dialogue_model, dialogue_session_model
from tests.support.pilot import (
    MakeApp,
    bars_text,
    conversation_of,
    entries,
    exchange_text,
    notices,
    transcript_text,
    until,
)
from tests.support.speaking import labels, make_speaking_app, run, say, screen_of, who_answers


async def test_the_line_of_a_role_has_its_name_and_keeps_the_mark_of_the_user(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        await run(pilot, "/as frodo")
        await run(pilot, "/to Gollum")
        assert labels(app)[:2] == ["as Frodo", "to Gollum"]
        reply = await say(pilot)
        assert (reply.speaking_as, reply.speaker) == ("FRODO", "GOLLUM")
        line = next(line for line in transcript_text(app).splitlines() if "the lamp was lit" in line)
        assert line.split()[:2] == ["❯", "Frodo"]
        assert "Gollum by your choice" in exchange_text(app)
        await run(pilot, "/as stranger")
        await run(pilot, "/to anyone")
        assert labels(app)[:2] == ["as a stranger", "to anyone"]


async def test_roles_are_kept_for_the_next_session_and_forgotten_where_the_cast_lacks_them(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test() as pilot:
        await run(pilot, "/to Gollum")
        assert app.settings_store.current.answering == "GOLLUM"
        screen_of(app).set_session_model(dialogue_session_model(("FRODO", "SAM", "SOMEONE")))
        await until(pilot, lambda: labels(app)[1] == "to anyone")
        screen_of(app).set_session_model(dialogue_session_model())
        await until(pilot, lambda: labels(app)[1] == "to Gollum")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/as Golum", "Gollum"),
        ("/to Nobody of the cast", "not in the cast"),
        ("/again xyz", "not in the cast"),
        ("/scene 0", "use 1 to 100"),
        ("/scene 3 Sauron", "not in the cast"),
        ("/best 65", "out of range"),
        ("/best many", "is no number of answers"),
    ],
)
async def test_a_bad_argument_is_explained_and_changes_nothing(make_app: MakeApp, command: str, message: str) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        before = labels(app)
        await run(pilot, command)
        assert message.casefold() in notices(app).casefold()
        assert labels(app) == before
        assert conversation_of(app).current_reply is None


async def test_names_complete_in_commands(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        prompt = app.screen.query_one(PromptInput)
        await pilot.press(*"/to", "space", "G", "o", "tab")
        assert prompt.value == "/to Gollum"
        prompt.value = ""
        await pilot.press(*"/as", "space", "g", "a", "tab")  # in any case
        assert prompt.value == "/as gandalf"
        await pilot.press("enter")
        await until(pilot, lambda: labels(app)[0] == "as Gandalf")
        await pilot.press(*"/scene", "space", "3", "space", *"Frodo", "comma", "space", *"gol", "tab")
        assert prompt.value == "/scene 3 Frodo, gollum"


async def test_the_bars_follow_the_typed_line_and_mark_the_choice(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: who_answers(app)[:1] == ["WHO ANSWERS  the model chooses"])
        before = who_answers(app)
        assert {line.split()[0] for line in before[1:]} == {"Gandalf", "Frodo", "Gollum"}
        app.screen.query_one(PromptInput).value = "frodo is a friend"
        await until(pilot, lambda: who_answers(app) != before)
        await pilot.click(WhoAnswersBars, offset=(5, 3))
        chosen = app.settings_store.current.answering
        assert chosen
        assert who_answers(app)[0] == f"WHO ANSWERS  {chosen.capitalize()} by your choice"
        assert f"● {chosen.capitalize()}" in "\n".join(who_answers(app))
        assert f"if {chosen.capitalize()} answers" in bars_text(app)
        row = next(row for row, line in enumerate(who_answers(app)) if "●" in line)
        await pilot.click(WhoAnswersBars, offset=(5, row + 1))
        assert app.settings_store.current.answering == ""


async def test_labels_open_the_dialog_and_switch_the_mode(make_app: MakeApp) -> None:
    app = make_speaking_app(make_app)
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause()
        await pilot.click("#as")
        await until(pilot, lambda: screen_name(app) == "CastDialog")
        await pilot.press("down", "enter")
        await until(pilot, lambda: labels(app)[0] == "as Gandalf")
        await pilot.click("#to")
        await until(pilot, lambda: screen_name(app) == "CastDialog")
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: labels(app)[1] == "to Frodo")
        await pilot.click("#reply-mode")
        await until(pilot, lambda: labels(app) == ["a line of Frodo", "continue"])
        assert not app.screen.query_one(WhoAnswersBars).display
        await pilot.press("f6")
        assert labels(app)[2] == "conversation"


async def test_a_model_without_speakers_offers_no_conversation(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: labels(app) == ["continue"])
        await pilot.press("ctrl+d")
        assert screen_name(app) == "SessionScreen"
        for command in ("/to Gollum", "/scene 3", "/scene", "/as Frodo", "/best 4"):
            await run(pilot, command)
            assert notices(app).endswith("train one with --mode dialogue")
            app.clear_notifications()
        await pilot.press("f6")
        assert labels(app) == ["reply"]
        screen_of(app).set_session_model(dialogue_session_model())
        await until(pilot, lambda: "conversation" in labels(app))
        assert "Say hello to Gandalf." in entries(app, Note)[0]


async def test_the_mode_is_kept_but_plain_models_do_not_end_conversations(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: labels(app) == ["continue"])
        await pilot.press("f6", "f6")
        screen_of(app).set_session_model(dialogue_session_model())
        await until(pilot, lambda: screen_of(app).reply_mode == "conversation")
        await pilot.press("f6")
        assert app.settings_store.current.reply_mode == "continue"


async def test_the_next_word_is_of_the_speaker_who_is_chosen_or_likeliest(make_app: MakeApp) -> None:
    app = make_app(session_model=SessionModel("short", "short lines", dialogue_model(eos_bias=3.0)))
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: len(who_answers(app)) > 1)
        likeliest = who_answers(app)[1].split()[0]
        assert f"NEXT WORD  if {likeliest} answers" in bars_text(app)
        assert (await say(pilot)).has_ended_line
        await until(pilot, lambda: f"if {who_answers(app)[1].split()[0]} answers" in bars_text(app))
        await run(pilot, "/to frodo")
        await until(pilot, lambda: "NEXT WORD  if Frodo answers" in bars_text(app))


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("6", (6, None)),
        ("6 Frodo, gollum", (6, ("FRODO", "GOLLUM"))),
        ("frodo,Frodo", (4, ("FRODO",))),
        ("2 frodo,", (2, ("FRODO",))),
    ],
)
def test_scene_arguments_are_turns_and_names(argument: str, expected: object) -> None:
    assert parse_scene(argument, CAST) == expected
