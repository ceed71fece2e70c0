"""The session before its model is loaded, and a model that cannot be loaded."""

import threading
from functools import partial

import pytest

from engine.errors import RunError
from engine.events import Checkpointed, Evaluated
from engine.models.pretrained.base import LoadingProgress
from engine.runs.directory import MODEL_FILE
from engine.runs.loading import load_model
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.session.model_loading import ModelLoader
from lotr_tui.session.session_model import SessionModel, load_session_model
from lotr_tui.session.settings import SettingsStore
from lotr_tui.session.transcript import Note
from lotr_tui.widgets.prompt import PromptInput
from lotr_tui.widgets.slider import TemperatureSlider
from tests.support import pilot as ui
from tests.support.files import write_run
from tests.support.prompt import type_text
from tests.support.runs import append_events
from tests.support.sessions import update_settings
from tests.support.slow_models import FakeSlowModel, slow_session_model


class HeldLoader(ModelLoader):
    """Function that loads a model once it is released, or raises an error."""

    def __init__(self, session_model):
        super().__init__(["held"])
        self.session_model = session_model
        self.released = threading.Event()
        self.failure = None

    def __call__(self, on_progress=None):
        if on_progress is not None:
            on_progress(LoadingProgress("reading the weights", 2**30, 68.4))
        assert self.released.wait(10), "the loader was never released"
        if self.failure is not None:
            raise self.failure
        return self.session_model

    def release(self, failure=None):
        self.failure = failure
        self.released.set()


@pytest.fixture
def loader(loaded):
    loader = HeldLoader(SessionModel.from_loaded(loaded))
    yield loader
    loader.release()  # lets the thread of a failed test end


@pytest.fixture
def opening(opened, loader):
    return partial(opened, session_model=loader)


def is_ready(app):
    return bool(app.screen.query(ConversationView)) and app.screen.is_ready


def status(app):
    return ui.text_of(app.screen.query_one("#status"))


async def test_prompt_sent_before_the_model_is_loaded_waits_and_typed_text_stays(opening, loader):
    async with opening(size=(120, 30)) as (pilot, app):
        prompt = app.screen.query_one("#prompt", PromptInput)
        assert app.focused is prompt
        await type_text(pilot, "bilbo is")
        await pilot.press("enter", *"frodo qq")
        assert not app.screen.query(ConversationView)
        loader.release()
        await ui.until(pilot, lambda: is_ready(app) and "words/s" in ui.exchange_text(app))
        assert ui.exchange_text(app).startswith("❯ bilbo is\n")
        await ui.until(pilot, lambda: "after rare word" in ui.bars_text(app))
        assert prompt.value == "frodo qq"
        assert app.focused is prompt
        assert "74.9" in status(app)
        assert ui.entries(app, Note) == ['Type "Bilbo Baggins is" and press enter.']


async def test_keys_and_commands_that_need_a_model_do_nothing_before_it_is_loaded(opening, loader):
    update_settings(SettingsStore(), reply_mode="reply")
    async with opening(size=(80, 24)) as (pilot, app):
        keys = {binding.key for binding in app.screen.BINDINGS if binding.key.startswith("ctrl+")}
        assert {"ctrl+o", "ctrl+t"} < keys
        for key in keys - {"ctrl+o", "ctrl+t"}:
            await pilot.press(key)
            assert app.screen is app.screen_stack[0], key
        await ui.send(pilot, "/inspect lens")
        await ui.until(pilot, lambda: "/inspect needs a model" in ui.notices(app))
        await pilot.press("escape")
        assert app.screen.query_one("#prompt", PromptInput).value == ""
        await ui.send(pilot, "/model")
        await ui.until(pilot, lambda: ui.screen_name(app) == "RunsScreen")
        await pilot.press("escape")
        loader.release()
        await ui.until(pilot, lambda: ui.screen_name(app) == "SessionScreen" and is_ready(app))
        assert app.screen.query_one(TemperatureSlider).value == 0.8
        assert ui.text_of(app.screen.query_one("#prompt-mark")) == "reply ❯"  # the saved mode


async def test_a_run_that_has_learned_nothing_says_so(opened, tmp_path):
    run = write_run(tmp_path / "runs" / "early")
    append_events(run, [Evaluated(0, 0.0, 150.0, True, 1.0), Checkpointed(0, MODEL_FILE)])
    async with opened(session_model=load_session_model([str(run)], None)) as (pilot, app):
        line = "nothing learned yet: step 0, plain random weights"
        await ui.until(pilot, lambda: is_ready(app) and Note(line) in app.screen.view.transcript.entries)


async def test_after_failed_loading_a_run_can_be_chosen(opening, loader, tmp_path):
    run = write_run(tmp_path / "runs" / "mine")
    append_events(run, [Evaluated(1, 1.0, 50.0, True, 1.0), Checkpointed(1, MODEL_FILE)])
    async with opening(size=(80, 24)) as (pilot, app):
        loader.release(RunError("model.safetensors is [damaged]" + 60 * " x"))
        await ui.until(pilot, lambda: "No model" in ui.text_of(app.screen.query_one("#loading")))
        for text in ("model.safetensors is [damaged]", "ctrl+o", "ctrl+t"):
            assert text in ui.text_of(app.screen.query_one("#loading"))
        await ui.until(pilot, lambda: app.screen.query_one("#loading").region.height > 4)  # wrapped, not cut
        await type_text(pilot, "the road")
        await ui.send(pilot, "the road")
        await pilot.press("ctrl+down", "ctrl+o")
        await ui.until(
            pilot, lambda: ui.screen_name(app) == "RunsScreen" and app.screen.query_one("#rows").option_count
        )
        await pilot.press("slash", *"mine", "enter", "enter")
        await ui.until(pilot, lambda: ui.screen_name(app) == "SessionScreen" and is_ready(app))
        await ui.until(pilot, lambda: "words/s" in ui.exchange_text(app))
        await ui.until(pilot, lambda: not app.screen.query("#loading"))
        assert "mine" in status(app)
        assert ui.exchange_text(app).startswith("❯ the road\n")


async def test_last_of_several_models_wins(opening, loader, tmp_path):
    async with opening(size=(80, 24)) as (pilot, app):
        await pilot.pause()
        for name in ("first", "second"):
            app.screen.set_session_model(SessionModel.from_loaded(load_model(write_run(tmp_path / "runs" / name))))
        await ui.until(pilot, lambda: is_ready(app))
        loader.release()
        await ui.until(pilot, lambda: not any(worker.group == "open" for worker in app.workers))
        assert len(app.screen.query(ConversationView)) == 1
        assert "second" in status(app)


# Models by others


@pytest.fixture
def pretrained(monkeypatch, tmp_path):
    """Loader of a slow model, and the name of its file."""
    loader = HeldLoader(slow_session_model(FakeSlowModel()))
    file = tmp_path / "slowpoke.gguf"
    file.write_bytes(b"GGUF")

    def load(names, *arguments, on_progress, adapters):
        return loader(on_progress) if names == (f"gguf:{file}",) else load_session_model(names, *arguments)

    monkeypatch.setattr("lotr_tui.session.session_model.load_session_model", load)
    yield loader, f"gguf:{file}"
    loader.release()


async def test_progress_and_memory_of_a_model_by_others_are_shown_and_keys_are_handled(opened, pretrained):
    loader, name = pretrained
    async with opened(session_model=ModelLoader([name]), size=(120, 35)) as (pilot, app):
        await ui.until(pilot, lambda: app.screen.query("#loading"))
        text = "loading slowpoke: needs 1.0 GiB · about 68 tokens/s · "
        await ui.until(pilot, lambda: ui.text_of(app.screen.query_one("#loading")).startswith(text))
        await pilot.press(*"hello", "enter")
        loader.release(RunError("gguf:slowpoke.gguf is damaged; download it again"))
        await ui.until(pilot, lambda: "No model" in ui.text_of(app.screen.query_one("#loading")))
        text = ui.text_of(app.screen.query_one("#loading"))
        assert text.startswith("No model: gguf:slowpoke.gguf is damaged; download it again\n")
        loader.release()
        await ui.send(pilot, f"/model {name}")
        await ui.until(pilot, lambda: is_ready(app))
        assert "Say something to Slowpoke-1B" in "".join(ui.entries(app, Note))
        assert (await ui.reply_to(pilot, "hello")).is_chat


async def test_session_continues_while_another_model_is_loaded_and_a_chosen_run_ends_its_progress(
    opened, pretrained, tmp_path
):
    loader, name = pretrained
    write_run(tmp_path / "runs" / "mine")
    async with opened(size=(120, 35)) as (pilot, app):
        await ui.send(pilot, "/model hf:/no/such/folder")
        await ui.until(pilot, lambda: "hf:/no/such/folder" in ui.notices(app))
        await ui.send(pilot, f"/model {name}")
        await ui.until(pilot, lambda: "loading slowpoke" in status(app))
        await ui.send(pilot, "/model mine")
        await ui.until(pilot, lambda: "loading" not in status(app))
        await ui.send(pilot, f"/model {name}")
        await ui.until(pilot, lambda: "loading slowpoke: needs 1.0 GiB" in status(app))
        assert (await ui.reply_to(pilot)).session_model.name == "mine"
        loader.release()
        await ui.until(pilot, lambda: "Slowpoke-1B-Instruct" in status(app))
        assert "loading" not in status(app)
        assert (await ui.reply_to(pilot, "Hello there")).is_chat
        assert app.state.settings.current.recent_models == ("gguf:/models/Slowpoke-1B-Instruct.gguf",)
        assert not app.screen.query_one("#training").display
