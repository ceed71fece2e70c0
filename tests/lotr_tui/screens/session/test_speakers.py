"""Conversations with a model that knows speakers: lines and answers, roles, scenes, names and colours."""

import re
from dataclasses import replace

from textual.widgets import Input

from lotr_tui.formatting import format_percent
from lotr_tui.screens.dialogs.questions import SamplerDialog
from lotr_tui.screens.session.keys import parse_scene
from lotr_tui.screens.session.side import WhoAnswersBars
from lotr_tui.screens.session.transcript import Transcript
from lotr_tui.session.transcript import Note
from lotr_tui.widgets.keys import KeyFooter
from lotr_tui.widgets.prompt import PromptInput
from lotr_tui.widgets.slider import SamplerPanel
from tests.support import pilot as ui
from tests.support.dialogues import CAST, dialogue_session_model
from tests.support.speaking import labels, num_turns, run, say, who_answers

SIZE = (120, 35)


async def until_turns(pilot, number):
    await ui.until(pilot, lambda: num_turns(pilot.app) == number)
    await ui.until_reply_ended(pilot)


async def test_an_answer_stands_below_the_line_under_the_name_of_its_speaker(opened):
    async with opened(session_model=dialogue_session_model(), size=SIZE) as (pilot, app):
        await ui.until(pilot, lambda: labels(app) == ["as a stranger", "to anyone", "conversation", "best of auto"])
        assert "Say hello to Gandalf." in ui.entries(app, Note)[0]
        assert app.screen.query_one(PromptInput).placeholder == "say something; / lists commands"
        reply = await say(pilot)
        assert reply.speaker in CAST[:3]
        lines = ui.transcript_text(app).splitlines()
        said = next(index for index, line in enumerate(lines) if "the lamp was lit" in line)
        assert lines[said].split()[:2] == ["❯", "You"]
        assert lines[said + 1].split()[0] == reply.speaker.capitalize()
        assert f"{reply.speaker.capitalize()} by the model" in ui.exchange_text(app)
        assert "best of 8" in ui.exchange_text(app)
        assert re.search("‹ [1-8]/8 ›", ui.transcript_text(app))
        assert "seed" not in ui.transcript_text(app)  # until the reply is selected
        for number, key in enumerate(("ctrl+n", "enter"), 2):
            await pilot.press(key)
            await until_turns(pilot, number)
            assert ui.latest_reply(app).prompt == ""
            assert ui.exchange_text(app).count("\n") == 1  # the answer and its figures
        await pilot.press("ctrl+g", "e")
        assert "no prompt that could be edited" in ui.notices(app)
        assert ui.text_of(app.screen.query_one("#prompt-mark")) == "❯"


async def test_the_opening_shows_the_people_of_the_welcome_line_and_then_whoever_is_likely(opened):
    cast = ("TOLLY", "ROSA", "HALETH", "LOBELIA", "GOLLUM", "SAM", "FRODO", "GANDALF", "STRANGER", "SOMEONE")
    async with opened(session_model=dialogue_session_model(cast), size=SIZE) as (pilot, app):
        await ui.until(pilot, lambda: len(who_answers(app)) > 1)
        assert [line.split()[0] for line in who_answers(app)[1:]] == ["Gandalf", "Frodo", "Sam", "Gollum"]
        await ui.until(pilot, lambda: "if Gandalf answers" in ui.bars_text(app))
        app.screen.query_one(PromptInput).value = "hello"
        names = {"Gandalf", "Frodo", "Sam", "Gollum"}
        await ui.until(pilot, lambda: {line.split()[0] for line in who_answers(app)[1:]} != names)


async def test_roles_that_are_chosen_speak_and_answer(opened):
    async with opened(session_model=dialogue_session_model(), size=SIZE) as (pilot, app):
        await run(pilot, "/set best-of 1")
        await run(pilot, "/as frodo")
        await run(pilot, "/to Gollum")
        assert labels(app)[:2] == ["as Frodo", "to Gollum"]
        reply = await say(pilot)
        assert (reply.speaking_as, reply.speaker) == ("FRODO", "GOLLUM")
        line = next(line for line in ui.transcript_text(app).splitlines() if "the lamp was lit" in line)
        assert line.split()[:2] == ["❯", "Frodo"]
        assert "Gollum by your choice" in ui.exchange_text(app)
        await run(pilot, "/to Golum")
        assert "did you mean Gollum?" in ui.notices(app)
        assert labels(app)[1] == "to Gollum"
        await run(pilot, "/to !Golum")  # any name can speak
        assert "has to imagine" in ui.notices(app)
        await pilot.press("ctrl+n")
        await until_turns(pilot, 2)
        assert ui.latest_reply(app).speaker == "GOLUM"
        await run(pilot, "/as anyone")  # which is nobody's name
        await run(pilot, "/to anyone")
        assert labels(app)[:2] == ["as a stranger", "to anyone"]
        second = await say(pilot, "where is frodo")
        await pilot.press("ctrl+g", "e")
        assert app.screen.query_one(PromptInput).value == "where is frodo"
        await say(pilot, "where is bilbo")
        assert ui.latest_reply(app).turn is second.turn


async def test_bad_arguments_are_explained_and_change_nothing_and_names_are_completed(opened):
    async with opened(session_model=dialogue_session_model(), size=SIZE) as (pilot, app):
        await ui.until(pilot, lambda: labels(app))
        before, prompt = labels(app), app.screen.query_one(PromptInput)
        for command, message in [
            ("/as ...", "is not a name"), ("/scene 0", "use 1 to 100"), ("/scene 3 Frodo, Sauron", "'sauron' is not"),
            ("/set best-of 65", "out of range"), ("/set best-of many", "is no number of answers"),
        ]:  # fmt: skip
            app.clear_notifications()
            await run(pilot, command)
            assert message in ui.notices(app).casefold()
        assert labels(app) == before
        assert ui.conversation_of(app).current_reply is None
        prompt.value = "/scene 3 Frodo, go"
        await pilot.press("end", "l", "tab")
        assert prompt.value == "/scene 3 Frodo, gollum"


async def test_a_scene_goes_on_for_its_turns_with_its_speakers_and_a_reader_stays(opened):
    async with opened(session_model=dialogue_session_model(), size=(80, 16)) as (pilot, app):
        await run(pilot, "/scene 4 Frodo, gollum")
        await until_turns(pilot, 4)
        assert {reply.speaker for reply in ui.conversation_of(app).replies.values()} <= {"FRODO", "GOLLUM"}
        transcript = app.screen.query_one(Transcript)
        ui.conversation_of(app).pace = 100
        await ui.send(pilot, "/scene 50")
        await ui.until(pilot, lambda: num_turns(app) >= 5)
        transcript.scroll_to(y=0, animate=False)
        await ui.until(pilot, lambda: num_turns(app) >= 7 and ui.latest_reply(app).tokens)
        assert transcript.scroll_offset.y == 0
        await pilot.press("escape")
        await ui.until(pilot, lambda: ui.conversation_of(app).active_reply is None)
        number = num_turns(app)
        await pilot.pause(0.1)
        assert num_turns(app) == number < 54


async def test_again_answers_as_the_same_speaker_or_as_another_one(opened):
    async with opened(session_model=dialogue_session_model(), size=SIZE) as (pilot, app):
        await run(pilot, "/set best-of 1")
        first = await say(pilot)
        ui.set_field(app, "seed", "8")
        await pilot.press("ctrl+r")
        await ui.until(pilot, lambda: len(first.turn.replies) == 2)
        await ui.until_reply_ended(pilot)
        assert ui.latest_reply(app).speaker == first.speaker
        other = next(name for name in CAST[:3] if name != first.speaker)
        await run(pilot, f"/to {other.lower()}")
        await pilot.press("ctrl+r")
        await ui.until(pilot, lambda: len(first.turn.replies) == 3)
        await ui.until_reply_ended(pilot)
        assert ui.latest_reply(app).speaker == other
        assert other.capitalize() in ui.transcript_text(app)
        await run(pilot, "/to anyone")
        await pilot.press("ctrl+r")
        await ui.until(pilot, lambda: len(first.turn.replies) == 4)
        await ui.until_reply_ended(pilot)
        assert ui.latest_reply(app).speaker == other
        await pilot.press("escape")
        await run(pilot, "/set best-of 3")
        assert labels(app)[-1] == "best of 3"
        assert len((await say(pilot)).turn.replies) == 3
        assert "best of 3" in ui.exchange_text(app)


async def test_best_of_has_one_name_in_its_label_the_command_and_the_dialog_of_all_controls(opened):
    async with opened(session_model=dialogue_session_model(), size=SIZE) as (pilot, app):
        await run(pilot, "/set best-of 3")
        await pilot.click("#best-of")
        await ui.until(pilot, lambda: isinstance(app.screen, SamplerDialog))
        assert app.screen.query_one("#best_of", Input).value == "3"
        for typed, problem in (("65", "best-of 65 is out of range"), ("many", "best-of 'many' is no number")):
            app.screen.query_one("#best_of", Input).value = typed
            app.screen.query_one("#top_k", Input).value = "7"
            await pilot.press("enter")
            await ui.until(pilot, lambda: problem in ui.text_of(app.screen.query_one("#problem")))  # noqa: B023
        app.screen.query_one("#best_of", Input).value = "2"
        await pilot.press("enter")
        await ui.until(pilot, lambda: labels(app)[-1] == "best of 2")
        assert app.screen.query_one(SamplerPanel).settings.top_k == 7
        await run(pilot, "/set best-of auto")
        assert labels(app)[-1] == "best of auto"


async def test_who_answers_shows_what_the_reply_was_drawn_from_until_the_next_line_is_typed(opened):
    def shown(app):
        return [(line.split()[0], line.split()[-2]) for line in who_answers(app)[1:]]

    async with opened(session_model=dialogue_session_model(), size=SIZE) as (pilot, app):
        ui.conversation_of(app).pace = 20
        await run(pilot, "/set best-of 1")
        await ui.send(pilot, "the lamp was lit")
        await ui.until(pilot, lambda: len(ui.latest_reply(app).tokens) > 1)
        reply = ui.latest_reply(app)
        expected = [(each.name.capitalize(), format_percent(each.prob).split()[0]) for each in reply.speaker_probs]
        assert reply.speaker_prob in [each.prob for each in reply.speaker_probs]
        await ui.until(pilot, lambda: shown(app) == expected)
        ui.conversation_of(app).pace = 0
        await ui.until_reply_ended(pilot)
        await pilot.pause()
        assert shown(app) == expected
        await pilot.press(*"gollum, where")
        await ui.until(pilot, lambda: [name for name, _ in shown(app)] == ["Gollum"])
        await pilot.press("ctrl+u")
        await ui.until(pilot, lambda: shown(app) == expected)


async def test_the_bars_follow_the_typed_line_and_a_click_chooses_who_answers(opened):
    async with opened(session_model=dialogue_session_model(), size=SIZE) as (pilot, app):
        await ui.until(pilot, lambda: who_answers(app)[:1] == ["WHO ANSWERS  the model chooses"])
        before = who_answers(app)
        assert {line.split()[0] for line in before[1:]} == {"Gandalf", "Frodo", "Gollum"}
        assert f"NEXT WORD  if {before[1].split()[0]} answers" in ui.bars_text(app)
        await pilot.press(*"frodo is a friend")
        await ui.until(pilot, lambda: who_answers(app) != before)
        await pilot.click(WhoAnswersBars, offset=(5, 3))
        chosen = app.screen.slot.settings.answering
        assert who_answers(app)[0] == f"WHO ANSWERS  {chosen.capitalize()} by your choice"
        assert f"● {chosen.capitalize()}" in "\n".join(who_answers(app))
        assert f"if {chosen.capitalize()} answers" in ui.bars_text(app)
        row = next(row for row, line in enumerate(who_answers(app)) if "●" in line)
        await pilot.click(WhoAnswersBars, offset=(5, row + 1))
        assert app.screen.slot.settings.answering == ""


async def test_labels_open_the_dialog_and_switch_the_mode(opened):
    async with opened(session_model=dialogue_session_model(), size=(60, 20)) as (pilot, app):
        for selector, keys, index, label in (
            ("#as", (*"gan", "enter"), 0, "as Gandalf"),
            ("#to", (*"fro", "enter"), 1, "to Frodo"),
        ):
            await pilot.pause()
            await pilot.click(selector)
            await ui.until(pilot, lambda: ui.screen_name(app) == "CastDialog")
            await pilot.press(*keys)
            await ui.until(pilot, lambda index=index, label=label: labels(app)[index] == label)
        await pilot.click("#reply-mode")
        await ui.until(pilot, lambda: labels(app) == ["a line of Frodo", "continue"])
        assert not app.screen.query_one(WhoAnswersBars).display
        reply = await say(pilot, "the lamp")
        assert (reply.reply_mode, reply.speaker) == ("continue", "FRODO")


async def test_roles_and_mode_are_kept_and_a_model_without_speakers_offers_no_conversation(opened):
    async with opened(size=SIZE) as (pilot, app):
        await ui.until(pilot, lambda: labels(app) == ["continue"])
        await ui.press_letter(pilot, "w")
        assert ui.screen_name(app) == "SessionScreen"
        await run(pilot, "/set mode reply")
        app.screen.set_session_model(dialogue_session_model())
        await ui.until(pilot, lambda: "conversation" in labels(app))  # plain models do not end conversations
        assert "Say hello to Gandalf." in ui.entries(app, Note)[0]
        await run(pilot, "/to Gollum")
        assert ui.entries(app, Note)[0] == "Say hello to Gollum. With /to anyone, the model chooses who answers."
        await run(pilot, "/temperature 1.2")
        others = replace(dialogue_session_model(("FRODO", "SAM", "SOMEONE")), name="others")
        app.screen.set_session_model(others, "now using others")
        await ui.until(pilot, lambda: labels(app)[1] == "to anyone")
        assert app.screen.query_one(SamplerPanel).settings.temperature == 0.8
        own = "with settings of its own: as a stranger to anyone, T 0.80"
        assert ui.entries(app, Note) == ["Say hello to Frodo. Sam can answer too.", f"now using others, {own}"]
        app.screen.set_session_model(dialogue_session_model())
        await ui.until(pilot, lambda: labels(app)[1] == "to Gollum")
        assert app.screen.query_one(SamplerPanel).settings.temperature == 1.2
        await say(pilot)
        await ui.until(pilot, lambda: "^n go on" in ui.lines_of(app.screen.query_one(KeyFooter)))
        await run(pilot, "/new")
        assert ui.entries(app, Note)[0].startswith("Say hello to Gollum.")
        await run(pilot, "/set mode continue")
        assert app.state.settings.current.reply_mode == "continue"


def test_scene_arguments_are_turns_and_names():
    assert parse_scene("6", CAST) == (6, None)
    assert parse_scene("6 Frodo, gollum", CAST) == (6, ("FRODO", "GOLLUM"))
    assert parse_scene("frodo,Frodo,", CAST) == (4, ("FRODO",))
