"""Tests of the session before its model is loaded, and of a model that cannot be loaded."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.geometry import Region
from textual.widgets import Label, OptionList

from engine.errors import RunError
from engine.events import Checkpointed, Evaluated
from engine.presets import PRESETS
from engine.runs.directory import MODEL_FILE
from engine.runs.loading import LoadedModel, load_model
from lotr_tui.app import LotrApp
from lotr_tui.screens.dialogs.help import HelpScreen
from lotr_tui.screens.dialogs.new_training import NewTrainingDialog
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.session.conversation.entries import Note
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import SettingsStore
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.support.app import FakeJob, UseJob, training_events
from tests.support.files import write_run
from tests.support.metrics import append_events
from tests.support.pilot import MakeApp, bars_text, entries, exchange_text, text_of, until


class HeldLoader:
    """Function that loads a model once it is released, or raises an error."""

    def __init__(self, session_model: SessionModel) -> None:
        self._session_model = session_model
        self._released = threading.Event()
        self.failure: Exception | None = None

    def __call__(self) -> SessionModel:
        assert self._released.wait(10), "the loader was never released"
        if self.failure is not None:
            raise self.failure
        return self._session_model

    def release(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self._released.set()


@pytest.fixture
def loader(loaded: LoadedModel) -> Iterator[HeldLoader]:
    loader = HeldLoader(SessionModel.from_loaded(loaded))
    yield loader
    loader.release()  # lets the thread of a failed test end


def is_ready(app: LotrApp) -> bool:
    return bool(app.screen.query(ConversationView)) and app.screen.is_ready  # type: ignore[attr-defined]


def keys_of(text: str) -> list[str]:
    """Return the keys that type a text."""
    return ["space" if character == " " else character for character in text]


def regions(app: LotrApp) -> dict[str, Region]:
    """Return the regions of everything that the first paint shows."""
    frame = {
        name: app.screen.query_one(name).region
        for name in ("#status", "#body", "#controls", "#prompt", "HelpLine", "KeyFooter")
    }
    return frame | {f"rule {number}": rule.region for number, rule in enumerate(app.screen.query("Rule"))}


async def test_text_typed_before_the_model_is_loaded_stays(make_app: MakeApp, loader: HeldLoader) -> None:
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=(120, 30)) as pilot:
        prompt = app.screen.query_one("#prompt", PromptInput)
        assert app.focused is prompt
        await pilot.press(*keys_of("bilbo qq"))
        assert prompt.value == "bilbo qq"
        assert not app.screen.query(ConversationView)
        loader.release()
        await until(pilot, lambda: is_ready(app) and "after rare word" in bars_text(app))
        assert app.focused is prompt
        assert (prompt.value, prompt.unknown_words) == ("bilbo qq", ("qq",))
        assert "74.9" in text_of(app.screen.query_one("#status"))
        assert entries(app, Note) == ['Type "Bilbo Baggins is" and press enter.']


async def test_prompt_sent_before_the_model_is_loaded_waits(make_app: MakeApp, loader: HeldLoader) -> None:
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.press(*keys_of("bilbo is"), "enter", *"frodo")
        loader.release()
        await until(pilot, lambda: is_ready(app) and "words/s" in exchange_text(app))
        assert exchange_text(app).startswith("❯ bilbo is\n")
        assert app.screen.query_one("#prompt", PromptInput).value == "frodo"


async def test_keys_that_need_a_model_do_nothing_before_it_is_loaded(make_app: MakeApp, loader: HeldLoader) -> None:
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=(80, 24)) as pilot:
        keys = [key for binding in app.screen.BINDINGS for key in binding.key.split(",")]  # type: ignore[union-attr]
        allowed = {"ctrl+o", "ctrl+t", "ctrl+underscore", "ctrl+slash"}
        assert allowed < set(keys)
        for key in keys:
            if key not in allowed:
                await pilot.press(key)
                assert app.screen is app.screen_stack[0], key
        loader.release()
        await until(pilot, lambda: is_ready(app))
        assert app.screen.query_one(TemperatureSlider).value == 0.8
        await pilot.press("f8")
        assert app.screen.query_one(TemperatureSlider).value == pytest.approx(0.85)


@pytest.mark.parametrize("size", [(60, 20), (73, 24), (74, 24), (80, 24), (100, 30), (160, 45)])
async def test_layout_does_not_move_when_the_model_is_loaded(
    make_app: MakeApp, loader: HeldLoader, size: tuple[int, int]
) -> None:
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        before = regions(app)
        assert before["#body"].height > 5
        loader.release()
        await until(pilot, lambda: is_ready(app))
        await pilot.pause()
        assert regions(app) == before


async def test_saved_reply_mode_applies_when_the_model_is_loaded(
    make_app: MakeApp, loader: HeldLoader, tmp_path: Path
) -> None:
    store = SettingsStore(tmp_path / "settings.json")
    store.update(reply_mode="reply")
    app = make_app(session_model=None, load_session_model=loader, settings_store=store)
    async with app.run_test(size=(120, 30)) as pilot:
        loader.release()
        await until(pilot, lambda: is_ready(app))
        assert text_of(app.screen.query_one("#reply-mode")) == "reply"
        assert text_of(app.screen.query_one("#prompt-mark")) == "reply ❯"


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (RunError("model.safetensors is [damaged]" + 60 * " x"), "model.safetensors is [damaged]"),
        (ImportError("no numpy"), "ImportError: no numpy"),
    ],
)
async def test_failed_loading_shows_a_hint_and_a_run_can_be_chosen(
    make_app: MakeApp, loader: HeldLoader, tmp_path: Path, failure: Exception, message: str
) -> None:
    run = write_run(tmp_path / "runs" / "mine")
    append_events(run, [Evaluated(1, 1.0, 50.0, True, 1.0), Checkpointed(1, MODEL_FILE)])
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=(80, 24)) as pilot:
        loader.release(failure)
        await until(pilot, lambda: app.screen.query("#no-model"))
        text = text_of(app.screen.query_one("#no-model", Label))
        assert message in text
        assert "ctrl+o" in text
        assert "ctrl+t" in text
        await until(pilot, lambda: app.screen.query_one("#no-model").region.height > 4)  # wrapped, not cut
        await pilot.press(*keys_of("the road"), "enter", "f7", "ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.query_one(OptionList).options)
        await pilot.press("slash", *"mine", "enter", "enter")
        await until(pilot, lambda: is_ready(app) and "words/s" in exchange_text(app))
        assert not app.screen.query("#no-model")
        assert "mine" in text_of(app.screen.query_one("#status"))
        assert exchange_text(app).startswith("❯ the road\n")


async def test_model_can_be_trained_after_failed_loading(
    make_app: MakeApp, loader: HeldLoader, use_job: UseJob
) -> None:
    job = use_job(FakeJob(training_events()).release(2))
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=(160, 45)) as pilot:
        loader.release(RunError("it is damaged"))
        await until(pilot, lambda: app.screen.query("#no-model"))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, NewTrainingDialog))
        await pilot.press("escape")
        app.screen.start_training(PRESETS["tiny"])  # type: ignore[attr-defined]
        await until(pilot, lambda: "training" in text_of(app.screen.query_one("#status")))
        job.release(100)
        await until(pilot, lambda: is_ready(app) and "learning" in text_of(app.screen.query_one("#status")))
        await pilot.press(*"bilbo", "enter")
        await until(pilot, lambda: "words/s" in exchange_text(app))


async def test_run_chosen_during_loading_wins(make_app: MakeApp, loader: HeldLoader, tmp_path: Path) -> None:
    path = write_run(tmp_path / "runs" / "mine")
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.screen.use_model(load_model(path))  # type: ignore[attr-defined]
        await until(pilot, lambda: is_ready(app))
        loader.release()
        await until(pilot, lambda: not any(worker.group == "open" for worker in app.workers))
        assert "mine" in text_of(app.screen.query_one("#status"))


async def test_last_of_two_simultaneous_models_wins(make_app: MakeApp, loader: HeldLoader, tmp_path: Path) -> None:
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        for name in ("first", "second"):
            app.screen.use_model(load_model(write_run(tmp_path / "runs" / name)))  # type: ignore[attr-defined]
        await until(pilot, lambda: is_ready(app))
        await pilot.pause()
        assert len(app.screen.query(ConversationView)) == 1
        assert "second" in text_of(app.screen.query_one("#status"))


async def test_quitting_before_the_model_is_loaded_is_clean(make_app: MakeApp, loader: HeldLoader) -> None:
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*"bilbo", "enter", "ctrl+q")
        loader.release()
    assert app.return_code == 0


async def test_model_that_is_loaded_after_the_screen_was_closed_is_dropped(
    make_app: MakeApp, loader: HeldLoader
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)):
        screen = SessionScreen(None, None, 0, load_session_model=loader)
        await app.push_screen(screen)
        await app.pop_screen()
        loader.release()
        await screen._open_in_background()
        assert not screen.is_ready


async def test_double_enter_closes_one_screen(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[object] = []
    monkeypatch.setattr(LotrApp, "start_training", lambda self, config, run_name: configs.append(config))
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: is_ready(app))
        session = app.screen
        await pilot.press("ctrl+o", "escape", "ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, NewTrainingDialog))
        dialog = app.screen
        await app.push_screen(HelpScreen([]))
        dialog.dismiss(None)  # another screen is on top
        assert isinstance(app.screen, HelpScreen)
        app.screen.dismiss()
        await until(pilot, lambda: app.screen is dialog)
        presets = app.screen.query_one("#preset", OptionList)
        presets.action_select()
        presets.action_select()
        await until(pilot, lambda: configs)
        await pilot.pause()
        assert app.screen is session
        assert len(app.screen_stack) == 1
        assert len(configs) == 1


async def test_screen_closed_before_it_is_mounted(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: is_ready(app))
        session = app.screen
        dialog = NewTrainingDialog("")
        app.push_screen(dialog)
        dialog.dismiss(None)
        await until(pilot, lambda: app.screen is session and not dialog.is_running)
        assert app._exception is None
        assert dialog.is_mounted
