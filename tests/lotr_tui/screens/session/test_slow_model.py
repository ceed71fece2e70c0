"""The session with a slow model by others: keys while it computes, previews, conversation by its chat template."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Label

from engine.errors import RunError
from engine.generation.preview import next_token_probs
from engine.generation.prompt import prefill_prompt
from engine.models.pretrained.loading import LoadingProgress
from lotr_tui.app import LotrApp
from lotr_tui.screens.runs.open_run import load_run
from lotr_tui.screens.session.conversation.inspection import InspectedToken
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.screens.session.next_token_bars import NextTokenBars
from lotr_tui.session.conversation import state_cache
from lotr_tui.session.conversation.entries import Note
from lotr_tui.session.session_file import list_sessions
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import EXAMPLE_SYSTEM_PROMPT
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from lotr_tui.widgets.sampler_panel import SamplerPanel
from tests.support.app import make_decoder
from tests.support.learn import open_class_before
from tests.support.pilot import (
    MakeApp,
    bars_text,
    conversation_of,
    entries,
    exchange_text,
    inspector_text,
    latest_reply,
    notices,
    reply_to,
    send,
    set_field,
    text_of,
    transcript_text,
    until,
    until_reply_ended,
)
from tests.support.slow_models import REFUSED_TEXT, FakeSlowModel, slow_session_model


@pytest.fixture
def model() -> Iterator[FakeSlowModel]:
    model = FakeSlowModel()
    yield model
    model.release()  # lets the threads of a failed test end


@asynccontextmanager
async def open_session(
    make_app: MakeApp, model: FakeSlowModel, size: tuple[int, int] = (120, 35)
) -> AsyncIterator[Pilot[None]]:
    app = make_app(session_model=slow_session_model(model))
    async with app.run_test(size=size) as pilot:
        yield pilot
        model.release()
    assert threading.main_thread().name not in model.threads


def prompt_of(app: LotrApp) -> PromptInput:
    return app.screen.query_one("#prompt", PromptInput)


def first_bar(app: LotrApp) -> tuple[str, float] | None:
    """Return the first token of the bars and its probability after sampling; None without bars."""
    preview = app.screen.query_one(NextTokenBars)._preview
    return None if preview is None else (preview.candidates[0].text, preview.candidates[0].sampling_prob)


def inspected(app: LotrApp) -> InspectedToken:
    found = app.screen.query_one(ConversationView)._inspected
    assert found is not None
    return found


# Keys while the model computes


async def test_keys_are_handled_while_the_model_reads_the_draft(make_app: MakeApp, model: FakeSlowModel) -> None:
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        await pilot.press("f6")  # continue
        await until(pilot, lambda: first_bar(app))
        model.hold()
        await pilot.press(*"the wi")
        await until(pilot, lambda: app.screen._slow_preview._task.is_running)
        await pilot.press(*"z", "f8")
        assert prompt_of(app).value == "the wiz"
        assert app.settings_store.current.sampler.temperature == 0.85
        await pilot.press(*"a")
        model.release()
        state = prefill_prompt(model, ids := model.tokenizer.encode("the wiza").tolist())
        settings = app.screen._panes.sampler.settings()
        history = ids[: len(ids) - state.num_reread_tokens]
        expected = next_token_probs(state.log_probs, settings, history, model.tokenizer, 1, is_first_token=True)
        model.threads.clear()  # of this test
        await until(pilot, lambda: not app.screen._slow_preview.is_reading)
        text, prob = first_bar(app) or ("", 0.0)
        assert (text, pytest.approx(prob, abs=1e-5)) == (
            expected.candidates[0].text,
            expected.candidates[0].sampling_prob,
        )


async def test_keys_are_handled_while_the_model_writes(make_app: MakeApp, model: FakeSlowModel) -> None:
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        model.hold()
        await send(pilot, "Hello there")
        await pilot.press(*"and then")
        assert prompt_of(app).value == "and then"
        assert conversation_of(app).active_reply is not None
        assert "Slowpoke-1B" in transcript_text(app)
        model.release()
        await until_reply_ended(pilot)
        assert latest_reply(app).tokens


async def test_the_bars_follow_a_reply_without_running_the_model(make_app: MakeApp, model: FakeSlowModel) -> None:
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        reply = await reply_to(pilot, "Hello there")
        num_read = model.num_read
        await until(pilot, lambda: "after" in bars_text(app))
        state = reply.decoder_state(len(reply.tokens))
        assert state is not None
        text, _ = first_bar(app) or ("", 0.0)
        assert text == model.tokenizer.tokens[int(np.argmax(state.log_probs))]
        for key in ("f7", "f7", "f8"):
            before = first_bar(app)
            await pilot.press(key)
            assert first_bar(app) != before
        assert model.num_read == num_read


async def test_a_reply_stops_the_preview_and_starts_from_what_was_read(make_app: MakeApp, model: FakeSlowModel) -> None:
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        prompt_of(app).value = "Hello there, where is the Ring?"
        await until(pilot, lambda: first_bar(app))
        model.num_read = 0
        set_field(app, "max_tokens", "5")
        await pilot.press("enter")
        await until_reply_ended(pilot)
        assert model.num_read <= 5 + 20  # without the messages; the completion of the draft may have been read


async def test_a_stopped_reply_keeps_its_words(make_app: MakeApp, model: FakeSlowModel) -> None:
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        model.prefer("the is", 6)  # instead of an end
        model.holds_at_pass = model.num_passes + 10
        set_field(app, "max_tokens", "10000")
        await send(pilot, "Hello there")
        await until(pilot, lambda: len(latest_reply(app).tokens) > 3)
        await pilot.press("escape")
        model.release()
        await until_reply_ended(pilot)
        assert "stopped by you" in exchange_text(app)


async def test_completion_of_a_word_comes_from_a_thread(make_app: MakeApp, model: FakeSlowModel) -> None:
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        model.prefer(" wizard", 20)
        await pilot.press("f6")  # continue
        model.hold()
        await pilot.press(*"the wiz")
        assert prompt_of(app).suggestion == ""
        model.release()
        await until(pilot, lambda: prompt_of(app).suggestion == "ard")
        await pilot.press("tab")
        assert prompt_of(app).value == "the wizard"


# Words


async def test_alternatives_are_read_in_a_thread_where_they_were_evicted(
    make_app: MakeApp, model: FakeSlowModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_cache, "MAX_LOG_PROB_BYTES", 3 * 4 * len(model.tokenizer))
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        reply = await reply_to(pilot, "Hello there")
        await pilot.press("ctrl+g")
        assert inspected(app).alternatives
        model.hold()
        await pilot.press("home")
        assert inspected(app).position == 1
        assert inspected(app).alternatives == ()
        assert "surprise" in inspector_text(app)
        model.release()
        await until(pilot, lambda: inspected(app).alternatives)
        number = next(
            number for number, each in enumerate(inspected(app).alternatives, 1) if each.text != reply.tokens[0].text
        )
        await pilot.press(str(number))
        await until_reply_ended(pilot)
        branch = latest_reply(app)
        assert branch.turn is reply.turn
        assert branch.tokens[0].id != reply.tokens[0].id


async def test_whole_words_are_shown_on_request(make_app: MakeApp, model: FakeSlowModel) -> None:
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        await reply_to(pilot, "Hello there")
        assert "NEXT TOKEN" in bars_text(app)
        await pilot.press("ctrl+right_square_bracket")
        await until(pilot, lambda: "NEXT WORD" in bars_text(app))
        assert app.settings_store.current.preview_unit == "word"  # as for other models


# Conversation


async def test_system_prompt_is_shown_edited_and_saved(make_app: MakeApp, model: FakeSlowModel) -> None:
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        assert "You help." in text_of(app.screen.query_one("#system"))
        await send(pilot, "/system You are Gandalf.")
        assert "You are Gandalf." in text_of(app.screen.query_one("#system"))
        await reply_to(pilot, "Who are you?")
        assert model.chat is not None
        assert [message.text for message in model.chat.encoded[-1]][:1] == ["You are Gandalf."]
        await pilot.press("ctrl+d")
        line = app.screen.query_one(Input)
        assert line.value == "You are Gandalf."
        await pilot.press("tab")
        assert line.value == EXAMPLE_SYSTEM_PROMPT
        await pilot.press("enter")
        assert app.settings_store.current.system_prompt == EXAMPLE_SYSTEM_PROMPT
        (session,) = list_sessions()
        assert '"system_prompt": "You are Gandalf."' in session.path.read_text()


async def test_answers_have_a_length_of_their_own(make_app: MakeApp, model: FakeSlowModel) -> None:
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        saved = app.settings_store
        sampler = app.screen.query_one(SamplerPanel)
        assert sampler.settings().max_tokens == saved.current.chat_max_tokens == 200
        await send(pilot, "/length 50")
        await until(pilot, lambda: saved.current.chat_max_tokens == 50)
        await pilot.press("f6")
        assert sampler.settings().max_tokens == saved.current.sampler.max_tokens == 30
        await send(pilot, "/length 20")
        await until(pilot, lambda: saved.current.sampler.max_tokens == 20)
        await pilot.press("f6")
        assert sampler.settings().max_tokens == 50


async def test_saved_conversation_is_continued(make_app: MakeApp, model: FakeSlowModel) -> None:
    async with open_session(make_app, model) as pilot:
        await reply_to(pilot, "Hello there")
    (session,) = list_sessions()
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        view = app.screen.query_one(ConversationView)
        assert view.open_session(session.path, app.screen.session_model)
        await reply_to(pilot, "Where is the Ring?")
        assert model.chat is not None
        assert [message.role for message in model.chat.encoded[-1]] == ["user", "assistant", "user"]


async def test_conversation_that_the_template_refuses_is_one_line(make_app: MakeApp, model: FakeSlowModel) -> None:
    async with open_session(make_app, model) as pilot:
        await send(pilot, REFUSED_TEXT)
        await until(pilot, lambda: "chat template cannot write" in notices(pilot.app))
        assert conversation_of(pilot.app).current_reply is None
        assert (await reply_to(pilot, "Hello there")).tokens


async def test_model_without_a_template_continues_texts(make_app: MakeApp) -> None:
    model = FakeSlowModel(has_chat=False)
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        assert app.screen.reply_mode == "continue"
        assert "without a chat template" in "".join(entries(app, Note))
        await send(pilot, "/system You are Gandalf.")
        assert "needs a model with a chat template" in notices(app)
        await pilot.press("f6")
        await reply_to(pilot, "Hello there")
        assert "has no chat template; it continues your text after a line break" in "".join(entries(app, Note))


async def test_full_context_is_noted_once(make_app: MakeApp) -> None:
    model = FakeSlowModel(context_size=60)
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        for _ in range(4):
            await reply_to(pilot, "Hello there")
        text = "The context of 60 tokens is full; the model now forgets the oldest half."
        assert [note for note in entries(app, Note) if "context" in note] == [text]


@pytest.mark.parametrize("size", [(200, 50), (120, 35), (80, 24), (60, 20)])
async def test_conversation_fits_each_terminal(make_app: MakeApp, model: FakeSlowModel, size: tuple[int, int]) -> None:
    async with open_session(make_app, model, size) as pilot:
        await reply_to(pilot, "Hello there")
        text = transcript_text(pilot.app)
        assert "You" in text
        assert "Slowpoke-1B" in text or "Slowpoke…" in text or "Slowp" in text
        assert text_of(pilot.app.screen.query_one("#reply-mode", Label)) == "conversation"


# Other models


async def test_session_continues_while_another_model_is_loaded(
    make_app: MakeApp, model: FakeSlowModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    released = threading.Event()

    def load(name: str, on_progress: object) -> object:
        on_progress(LoadingProgress("reading the weights", 123))  # type: ignore[operator]
        assert released.wait(10)
        return slow_session_model(model)

    monkeypatch.setattr("lotr_tui.session.session_model.load_pretrained_session_model", load)
    file = tmp_path / "slowpoke.gguf"
    file.write_bytes(b"GGUF")
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await send(pilot, f"/model gguf:{file}")
        await until(pilot, lambda: "loading slowpoke: reading the weights" in text_of(app.screen.query_one("#status")))
        assert (await reply_to(pilot)).session_model.name == "bundled"
        released.set()
        await until(pilot, lambda: "Slowpoke-1B-Instruct" in text_of(app.screen.query_one("#status")))
        assert "loading" not in text_of(app.screen.query_one("#status"))
        assert (await reply_to(pilot, "Hello there")).is_chat
        assert app.settings_store.current.recent_models == ("gguf:/models/Slowpoke-1B-Instruct.gguf",)
        assert not app.screen.query_one("#training").display
    assert threading.main_thread().name not in model.threads


async def test_choosing_a_run_ends_the_progress_of_another_model(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    released = threading.Event()

    def load(name: str, on_progress: object) -> object:
        assert released.wait(10)
        raise RunError("nobody waits for this model")

    monkeypatch.setattr("lotr_tui.session.session_model.load_pretrained_session_model", load)
    file = tmp_path / "slowpoke.gguf"
    file.write_bytes(b"GGUF")
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await send(pilot, f"/model gguf:{file}")
        await until(pilot, lambda: "loading slowpoke" in text_of(app.screen.query_one("#status")))
        load_run(app.screen, "bundled", app.screen.use_model)  # as the list of runs does
        await until(pilot, lambda: "loading" not in text_of(app.screen.query_one("#status")))
        released.set()
        await pilot.pause()
        assert "nobody" not in notices(app)


@pytest.mark.parametrize("name", ["gguf:/no/such.gguf", "hf:/no/such/folder", "hf:", "gguf:"])
async def test_model_that_cannot_be_loaded_is_one_line(make_app: MakeApp, name: str) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await send(pilot, f"/model {name}")
        await until(pilot, lambda: name in notices(app))
        assert "\n" not in notices(app)
        assert (await reply_to(pilot)).session_model.name == "bundled"


async def test_conversation_with_a_model_that_knows_no_template_begins_another_mode(
    make_app: MakeApp, model: FakeSlowModel
) -> None:
    open_class_before()
    async with open_session(make_app, model) as pilot:
        app = pilot.app
        assert app.screen.reply_mode == "conversation"
        app.screen.set_session_model(SessionModel("mine", "", make_decoder()))
        assert app.screen.reply_mode == "continue"
        assert app.screen.query_one("#training").display
        app.screen.set_session_model(slow_session_model(model))
        assert app.screen.reply_mode == "conversation"
        help_line = text_of(app.screen.query_one(HelpLine))
        assert "Slowpoke" in help_line
