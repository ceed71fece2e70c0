"""The session with a slow model by others: keys while it computes, previews, conversation by its chat template."""

import re
import threading
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from textual.widgets import Input

from engine.generation.generate import TextInProgress, next_token_probs
from lotr_tui.session import read_text
from lotr_tui.session.read_text import NextTokenContext
from lotr_tui.session.session_file import list_sessions
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import CHAT_SAMPLER, EXAMPLE_SYSTEM_PROMPT
from lotr_tui.session.transcript import Note
from lotr_tui.widgets.prompt import PromptInput
from lotr_tui.widgets.slider import SamplerPanel
from tests.support import pilot as ui
from tests.support.app import make_decoder
from tests.support.dialogues import with_cast
from tests.support.slow_models import REFUSED_TEXT, FakeSlowModel, slow_session_model
from tests.support.speaking import num_turns, who_answers


@pytest.fixture
def model():
    model = FakeSlowModel()
    yield model
    model.release()  # lets the threads of a failed test end


@pytest.fixture
def talking(opened, model):
    """Return a context with the session of a model, which the thread of the keys must never call."""

    @asynccontextmanager
    async def talking(session_model=None, size=(120, 35)):
        async with opened(session_model=session_model or slow_session_model(model), size=size) as session:
            yield session
            model.release()
        assert threading.main_thread().name not in model.threads

    return talking


def prompt_of(app):
    return app.screen.query_one("#prompt", PromptInput)


def first_bar(app):
    """Return the line of the likeliest token; "" without bars."""
    lines = [line for line in ui.bars_text(app).splitlines() if "%" in line]
    return lines[0] if lines else ""


async def test_keys_are_handled_while_the_model_reads_the_draft(talking, model):
    async with talking() as (pilot, app):
        await pilot.click("#reply-mode")  # continue
        await ui.until(pilot, lambda: first_bar(app))
        num_passes = model.num_passes
        model.hold()
        await pilot.press(*"the wiz", "ctrl+up", "a")
        assert prompt_of(app).value == "the wiza"
        assert app.screen.slot.settings.sampler.temperature == 0.65
        assert model.num_passes == num_passes
        model.release()
        ids, settings = model.tokenizer.encode("the wiza").tolist(), replace(CHAT_SAMPLER, temperature=0.65)
        (expected,) = next_token_probs(TextInProgress(FakeSlowModel(), ids, settings), 1).candidates
        text = expected.text.replace(" ", "·")
        await ui.until(
            pilot, lambda: first_bar(app).startswith(text) and f"{expected.sampling_prob:.1%}" in first_bar(app)
        )


async def test_keys_are_handled_while_the_model_writes_and_a_stopped_reply_keeps_its_words(talking, model):
    async with talking() as (pilot, app):
        await pilot.press(*"Hello there")
        await ui.until(pilot, lambda: first_bar(app))
        model.prefer("the is", 6)  # instead of an end
        model.holds_at_pass = model.num_passes + 10
        ui.set_field(app, "max_tokens", "10000")
        await pilot.press("enter")
        await ui.until(pilot, lambda: len(ui.latest_reply(app).tokens) > 3)
        assert "Slowpoke-1B" in ui.transcript_text(app)
        await pilot.press(*"and then", "escape")
        assert prompt_of(app).value == "and then"
        assert ui.conversation_of(app).active_reply is not None
        model.release()
        await ui.until_reply_ended(pilot)
        assert "stopped by you" in ui.exchange_text(app)
        assert len(ui.latest_reply(app).tokens) > 3


async def test_alternatives_of_another_answer_wait_until_a_reply_is_written(talking, model, monkeypatch):
    monkeypatch.setattr(read_text, "MAX_LOG_PROBS", 1)
    async with talking() as (pilot, app):
        model.prefer("the is", 6)
        ui.set_field(app, "max_tokens", "5")
        await ui.reply_to(pilot, "Hello there")
        model.holds_at_pass = model.num_passes + 2
        await pilot.press("ctrl+r")
        await ui.until(pilot, lambda: ui.latest_reply(app).tokens)
        await pilot.press("ctrl+g", "left_square_bracket", "home", "right")
        await ui.until(pilot, lambda: "alternatives once the reply is written" in ui.bars_text(app))
        await pilot.press("2")
        assert "alternatives once the reply is written" in ui.notices(app)
        model.holds_at_pass = None
        model.release()
        await ui.until(pilot, lambda: re.search("^2[ ●].*%", ui.bars_text(app), re.MULTILINE))


async def test_a_reply_starts_from_what_was_read_and_the_bars_follow_it_without_the_model(talking, model):
    async with talking() as (pilot, app):
        prompt_of(app).value = "Hello there, where is the Ring?"
        await ui.until(pilot, lambda: first_bar(app))
        model.num_read = 0
        ui.set_field(app, "max_tokens", "5")
        await pilot.press("enter")
        await ui.until_reply_ended(pilot)
        assert model.num_read <= 5 + 20  # without the messages; the completion of the draft may have been read
        num_read, reply = model.num_read, ui.latest_reply(app)
        state = ui.conversation_of(app).reader.read(NextTokenContext.of_reply(reply, len(reply.tokens)))
        likeliest = model.tokenizer.tokens[int(np.argmax(state.log_probs))]
        await ui.until(pilot, lambda: first_bar(app).startswith(likeliest.replace(" ", "·")))
        for key in ("ctrl+down", "ctrl+down", "ctrl+up"):
            before = first_bar(app)
            await pilot.press(key)
            assert first_bar(app) != before
        assert model.num_read == num_read
        assert "NEXT TOKEN" in ui.bars_text(app)
        await ui.press_letter(pilot, "u")
        await pilot.press("escape")
        await ui.until(pilot, lambda: "NEXT WORD" in ui.bars_text(app))


async def test_a_conversation_with_a_cast_never_waits_for_the_model(talking, model):
    model.prefer(" the is\n", 8)
    session_model = SessionModel("film", "", with_cast(model), predicts_eos=False)
    async with talking(session_model) as (pilot, app):
        await ui.until(pilot, lambda: who_answers(app) and first_bar(app))
        before = who_answers(app)
        model.hold()
        await pilot.press(*"Gollum, where is Frodo?")
        assert who_answers(app) == before
        model.release()
        await ui.until(pilot, lambda: [line.split()[0] for line in who_answers(app)[1:]] == ["Gollum"])
        await ui.until(pilot, lambda: "if Gollum answers" in ui.bars_text(app))
        model.num_read = 0
        await pilot.press("enter")
        await ui.until_reply_ended(pilot)
        reply = ui.latest_reply(app)
        assert (reply.speaker, reply.speaker_prob, reply.score.num_answers) == ("GOLLUM", 1.0, 4)
        assert model.num_read <= 8 * (len(reply.tokens) + 2) + len(reply.context_ids) + 30
        await ui.until(pilot, lambda: "if Gollum answers" not in ui.bars_text(app) and first_bar(app))
        await pilot.press("ctrl+n")
        await ui.until(pilot, lambda: num_turns(app) == 2)
        await ui.until_reply_ended(pilot)


async def test_system_prompt_is_shown_edited_and_saved_and_a_saved_conversation_continues(talking, model):
    async with talking() as (pilot, app):
        sampler = app.screen.query_one(SamplerPanel)
        assert sampler.settings == CHAT_SAMPLER
        assert "You help." in ui.text_of(app.screen.query_one("#system"))
        await ui.send(pilot, "/system You are Gandalf.")
        assert "You are Gandalf." in ui.text_of(app.screen.query_one("#system"))
        await ui.reply_to(pilot, "Who are you?")
        assert [message.text for message in model.chat.encoded[-1]][:1] == ["You are Gandalf."]
        await ui.send(pilot, REFUSED_TEXT)
        await ui.until(pilot, lambda: "chat template cannot write" in ui.notices(app))
        assert "\n" not in ui.notices(app)
        await ui.send(pilot, "/system")
        line = app.screen.query_one(Input)
        assert line.value == "You are Gandalf."
        line.value = EXAMPLE_SYSTEM_PROMPT
        await pilot.press("enter")
        assert app.state.settings.current.system_prompt == EXAMPLE_SYSTEM_PROMPT
    (session,) = list_sessions()
    assert '"system_prompt": "You are Gandalf."' in session.path.read_text()
    async with talking() as (pilot, app):
        await ui.send(pilot, "/sessions")
        await pilot.press("enter")
        await ui.until(pilot, lambda: "Who are you?" in ui.transcript_text(app))
        await ui.reply_to(pilot, "Where is the Ring?")
        assert [message.role for message in model.chat.encoded[-1]] == ["system", "user", "assistant", "user"]


async def test_model_without_a_template_continues_texts_and_says_so(talking, model):
    async with talking(slow_session_model(FakeSlowModel(has_chat=False, context_size=60)), (60, 20)) as (pilot, app):
        mode = app.screen.query_one("#reply-mode")
        assert ui.text_of(mode) == "continue"
        assert "without a chat template" in "".join(ui.entries(app, Note))
        await ui.send(pilot, "/system You are Gandalf.")
        assert "needs a model with a chat template" in ui.notices(app)
        prompt_of(app).clear()
        await pilot.click("#reply-mode")
        ui.set_field(app, "max_tokens", "30")
        for _ in range(3):
            await ui.reply_to(pilot, "Hello there")
        text = "The context of 60 tokens is full; the model now forgets the oldest half."
        assert [note for note in ui.entries(app, Note) if "context" in note] == [text]  # once
        app.screen.set_session_model(slow_session_model(model))
        await ui.until(pilot, lambda: ui.text_of(mode) == "conversation")
        await ui.reply_to(pilot, "Hello there")
        assert "Slowp" in ui.transcript_text(app)
        app.screen.set_session_model(SessionModel("mine", "", make_decoder()))
        await ui.until(pilot, lambda: ui.text_of(mode) == "reply")
