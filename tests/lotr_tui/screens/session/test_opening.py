"""The session before its model is loaded, and a model that cannot be loaded."""

import threading

import pytest

from engine.errors import RunError
from engine.events import Checkpointed, Evaluated
from engine.models.pretrained.loading import LoadingProgress
from engine.models.pretrained.names import parse_pretrained_name
from engine.presets import PRESETS
from engine.runs.directory import MODEL_FILE
from engine.runs.loading import load_model
from lotr_tui.screens.dialogs.help import HelpScreen
from lotr_tui.screens.dialogs.new_training import NewTrainingDialog
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.session.conversation.entries import Note
from lotr_tui.session.model_loading import ModelLoader
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import SettingsStore
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.support.app import FakeJob, training_events
from tests.support.files import write_run
from tests.support.metrics import append_events
from tests.support.pilot import (
    bars_text,
    entries,
    exchange_text,
    latest_reply,
    notices,
    reply_to,
    screen_name,
    send,
    text_of,
    until,
)
from tests.support.prompt import type_text
from tests.support.slow_models import FakeSlowModel, slow_session_model


class HeldLoader:
    """Function that loads a model once it is released, or raises an error."""

    def __init__(self, session_model):
        self.session_model = session_model
        self.released = threading.Event()
        self.failure = None

    def __call__(self, *arguments):
        if arguments:  # as `load_pretrained_session_model`
            arguments[-1](LoadingProgress("reading the weights", 2**30))
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
def opening(make_app, loader):
    return make_app(session_model=None, load_session_model=loader)


def is_ready(app):
    return bool(app.screen.query(ConversationView)) and app.screen.is_ready


def status(app):
    return text_of(app.screen.query_one("#status"))


def regions(app):
    """Return the regions of everything that the first paint shows."""
    selectors = ("#status", "#body", "#controls", "#prompt", "HelpLine", "KeyFooter")
    return [app.screen.query_one(each).region for each in selectors] + [
        rule.region for rule in app.screen.query("Rule")
    ]


async def test_prompt_sent_before_the_model_is_loaded_waits_and_typed_text_stays(opening, loader):
    async with opening.run_test(size=(120, 30)) as pilot:
        app = pilot.app
        prompt = app.screen.query_one("#prompt", PromptInput)
        assert app.focused is prompt
        await type_text(pilot, "bilbo is")
        await pilot.press("enter", *"frodo qq")
        assert not app.screen.query(ConversationView)
        loader.release()
        await until(pilot, lambda: is_ready(app) and "words/s" in exchange_text(app))
        assert exchange_text(app).startswith("❯ bilbo is\n")
        await until(pilot, lambda: "after rare word" in bars_text(app))
        assert (prompt.value, prompt.unknown_words) == ("frodo qq", ("qq",))
        assert app.focused is prompt
        assert "74.9" in status(app)
        assert entries(app, Note) == ['Type "Bilbo Baggins is" and press enter.']


async def test_keys_and_commands_that_need_a_model_do_nothing_before_it_is_loaded(opening, loader):
    SettingsStore().update(reply_mode="reply")
    opening.settings_store = SettingsStore()
    async with opening.run_test(size=(80, 24)) as pilot:
        app = pilot.app
        keys = [key for binding in app.screen.BINDINGS for key in binding.key.split(",")]
        allowed = {"ctrl+o", "ctrl+t", "ctrl+underscore", "ctrl+slash"}
        assert allowed < set(keys)
        for key in keys:
            if key not in allowed:
                await pilot.press(key)
                assert app.screen is app.screen_stack[0], key
        await send(pilot, "/lens")
        await until(pilot, lambda: "/lens needs a model" in notices(app))
        await pilot.press("escape")
        assert app.screen.query_one("#prompt", PromptInput).value == ""
        await send(pilot, "/runs")
        await until(pilot, lambda: screen_name(app) == "RunsScreen")
        await pilot.press("escape")
        loader.release()
        await until(pilot, lambda: screen_name(app) == "SessionScreen" and is_ready(app))
        assert app.screen.query_one(TemperatureSlider).value == 0.8
        assert text_of(app.screen.query_one("#prompt-mark")) == "reply ❯"  # the saved mode


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (160, 45)])
async def test_layout_does_not_move_when_the_model_is_loaded(opening, loader, size):
    async with opening.run_test(size=size) as pilot:
        await pilot.pause()
        before = regions(pilot.app)
        assert before[1].height > 5
        loader.release()
        await until(pilot, lambda: is_ready(pilot.app))
        await pilot.pause()
        assert regions(pilot.app) == before


async def test_after_failed_loading_a_run_can_be_chosen(opening, loader, tmp_path):
    run = write_run(tmp_path / "runs" / "mine")
    append_events(run, [Evaluated(1, 1.0, 50.0, True, 1.0), Checkpointed(1, MODEL_FILE)])
    async with opening.run_test(size=(80, 24)) as pilot:
        app = pilot.app
        loader.release(RunError("model.safetensors is [damaged]" + 60 * " x"))
        await until(pilot, lambda: app.screen.query("#no-model"))
        for text in ("model.safetensors is [damaged]", "ctrl+o", "ctrl+t"):
            assert text in text_of(app.screen.query_one("#no-model"))
        await until(pilot, lambda: app.screen.query_one("#no-model").region.height > 4)  # wrapped, not cut
        await type_text(pilot, "the road")
        await send(pilot, "the road")
        await pilot.press("f7", "ctrl+o")
        await until(pilot, lambda: screen_name(app) == "RunsScreen" and app.screen.query_one("#runs").option_count)
        await pilot.press("slash", *"mine", "enter", "enter")
        await until(pilot, lambda: screen_name(app) == "SessionScreen" and is_ready(app))
        await until(pilot, lambda: "words/s" in exchange_text(app))
        assert not app.screen.query("#no-model")
        assert "mine" in status(app)
        assert exchange_text(app).startswith("❯ the road\n")


async def test_after_failed_loading_a_model_can_be_trained(opening, loader, use_job):
    job = use_job(FakeJob(training_events()).release(2))
    async with opening.run_test(size=(160, 45)) as pilot:
        app = pilot.app
        loader.release(ImportError("no numpy"))
        await until(pilot, lambda: app.screen.query("#no-model"))
        assert "ImportError: no numpy" in text_of(app.screen.query_one("#no-model"))
        app.screen.start_training(PRESETS["tiny"])
        await until(pilot, lambda: "training" in status(app))
        job.release(100)
        await until(pilot, lambda: is_ready(app) and "learning" in status(app))
        assert (await reply_to(pilot)).tokens


async def test_last_of_several_models_wins(opening, loader, tmp_path):
    async with opening.run_test(size=(80, 24)) as pilot:
        app = pilot.app
        await pilot.pause()
        for name in ("first", "second"):
            app.screen.use_model(load_model(write_run(tmp_path / "runs" / name)))
        await until(pilot, lambda: is_ready(app))
        loader.release()
        await until(pilot, lambda: not any(worker.group == "open" for worker in app.workers))
        assert len(app.screen.query(ConversationView)) == 1
        assert "second" in status(app)


async def test_quitting_before_the_model_is_loaded_is_clean(opening, loader):
    async with opening.run_test(size=(80, 24)) as pilot:
        await pilot.press(*"bilbo", "enter", "ctrl+q")
        loader.release()
    assert opening.return_code == 0


async def test_a_screen_that_is_dismissed_twice_or_below_another_one_closes_once(make_app):
    async with make_app().run_test(size=(80, 24)) as pilot:
        app = pilot.app
        await until(pilot, lambda: is_ready(app))
        session = app.screen
        await pilot.press("ctrl+t")
        await until(pilot, lambda: screen_name(app) == "NewTrainingDialog")
        dialog = app.screen
        await app.push_screen(HelpScreen([]))
        dialog.dismiss(None)  # another screen is on top
        assert isinstance(app.screen, HelpScreen)
        app.screen.dismiss()
        await until(pilot, lambda: app.screen is dialog)
        dialog.dismiss(None)
        dialog.dismiss(None)
        await until(pilot, lambda: app.screen is session)
        closed = NewTrainingDialog("")
        app.push_screen(closed)
        closed.dismiss(None)  # before it is mounted
        await until(pilot, lambda: app.screen is session and not closed.is_running)
        assert app.screen_stack == [session]


# Models by others


@pytest.fixture
def pretrained(monkeypatch, tmp_path):
    """Loader of a slow model, and the name of its file."""
    loader = HeldLoader(slow_session_model(FakeSlowModel()))
    monkeypatch.setattr("lotr_tui.session.session_model.load_pretrained_session_model", loader)
    file = tmp_path / "slowpoke.gguf"
    file.write_bytes(b"GGUF")
    yield loader, f"gguf:{file}"
    loader.release()


async def test_progress_and_memory_of_a_model_by_others_are_shown_and_keys_are_handled(make_app, pretrained):
    loader, name = pretrained
    app = make_app(session_model=None, load_session_model=ModelLoader(parse_pretrained_name(name)))
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.query("#loading"))
        await until(pilot, lambda: "reading the weights" in text_of(app.screen.query_one("#loading")))
        text = text_of(app.screen.query_one("#loading"))
        assert text.startswith("loading slowpoke: reading the weights · needs 1.0 GiB of ")
        assert "available" in text
        await pilot.press(*"hello", "enter")
        loader.release(RunError("gguf:slowpoke.gguf is damaged; download it again"))
        await until(pilot, lambda: app.screen.query("#no-model"))
        text = text_of(app.screen.query_one("#no-model"))
        assert text.startswith("No model: gguf:slowpoke.gguf is damaged; download it again\n")
        assert not app.screen.query("#loading")
        loader.release()
        await send(pilot, f"/model {name}")
        await until(pilot, lambda: is_ready(app))
        assert "Say something to Slowpoke-1B" in "".join(entries(app, Note))
        assert (await reply_to(pilot, "hello")).is_chat


async def test_session_continues_while_another_model_is_loaded_and_a_chosen_run_ends_its_progress(make_app, pretrained):
    loader, name = pretrained
    async with make_app().run_test(size=(120, 35)) as pilot:
        app = pilot.app
        for bad in ("gguf:/no/such.gguf", "hf:/no/such/folder", "hf:", "gguf:"):
            app.clear_notifications()
            await send(pilot, f"/model {bad}")
            await until(pilot, lambda bad=bad: bad in notices(app))
            assert "\n" not in notices(app)
        await send(pilot, f"/model {name}")
        await until(pilot, lambda: "loading slowpoke" in status(app))
        await send(pilot, "/model bundled")
        await until(pilot, lambda: "loading" not in status(app))
        await send(pilot, f"/model {name}")
        await until(pilot, lambda: "loading slowpoke: reading the weights" in status(app))
        assert (await reply_to(pilot)).session_model.name == "bundled"
        loader.release()
        await until(pilot, lambda: "Slowpoke-1B-Instruct" in status(app))
        assert "loading" not in status(app)
        assert (await reply_to(pilot, "Hello there")).is_chat
        assert app.settings_store.current.recent_models == ("gguf:/models/Slowpoke-1B-Instruct.gguf",)
        assert not app.screen.query_one("#training").display


@pytest.mark.slow
async def test_tiny_llama_from_a_folder(make_app, tmp_path):
    pytest.importorskip("transformers")
    from tests.support.pretrained import CONTEXT_SIZE, save_model

    save_model(tmp_path / "tiny-llama", "llama")
    loader = ModelLoader(parse_pretrained_name(f"hf:{tmp_path}/tiny-llama"))
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.is_ready, 60)
        assert "Say something to tiny-llama" in "".join(entries(app, Note))
        for _ in range(5):
            assert (await reply_to(pilot, "It is safe, for tonight.")).is_chat
        note = f"The context of {CONTEXT_SIZE} tokens is full; the model now forgets the oldest half."
        assert entries(app, Note).count(note) == 1
        await pilot.press("ctrl+g", "left", "2")
        await until(pilot, lambda: len(latest_reply(app).turn.replies) == 2 and latest_reply(app).done)
