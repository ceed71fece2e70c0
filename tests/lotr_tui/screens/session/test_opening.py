"""The session before its model is there: what is seen and typed, and what becomes of a model that cannot be read."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.geometry import Region
from textual.widgets import Label, OptionList

from engine.config import PRESETS
from engine.errors import RunError
from engine.events import Evaluated, to_record
from engine.runs.store import METRICS, LoadedModel, load
from engine.training import job as jobs
from lotr_tui.app import LotrApp
from lotr_tui.screens.dialogs.help import HelpScreen
from lotr_tui.screens.dialogs.new_training import NewTraining
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.session.entries import Note
from lotr_tui.session.player import Player
from lotr_tui.session.settings import KeptSettings
from lotr_tui.widgets.prompt import Prompt
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.conftest import write_run
from tests.lotr_tui.conftest import FakeJob, training_events
from tests.lotr_tui.screens.session.test_session_screen import bars_text, entries, exchange_text, text_of, until

MakeApp = Callable[..., LotrApp]


class Held:
    """A model that is there when it is let go, or an error in its place."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._go = threading.Event()
        self.failure: Exception | None = None

    def __call__(self) -> Player:
        assert self._go.wait(10), "it was never let go"
        if self.failure is not None:
            raise self.failure
        return self._player

    def let_go(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self._go.set()


@pytest.fixture
def held(loaded: LoadedModel) -> Iterator[Held]:
    opening = Held(Player.of(loaded))
    yield opening
    opening.let_go()  # else a test that fails would wait for its thread


def is_open(app: LotrApp) -> bool:
    return bool(app.screen.query(ConversationView)) and app.screen._is_open  # type: ignore[attr-defined]


def typed(text: str) -> list[str]:
    """The keys that type it."""
    return ["space" if character == " " else character for character in text]


def places(app: LotrApp) -> dict[str, Region]:
    """Where what was painted first stands."""
    seen = {
        name: app.screen.query_one(name).region for name in ("#status", "#body", "#controls", "#prompt", "KeysFooter")
    }
    return seen | {f"rule {number}": rule.region for number, rule in enumerate(app.screen.query("Rule"))}


async def test_what_is_typed_before_the_model_is_there_stays(make_app: MakeApp, held: Held) -> None:
    app = make_app(player=None, opening=held)
    async with app.run_test(size=(120, 30)) as pilot:
        prompt = app.screen.query_one("#prompt", Prompt)
        assert app.focused is prompt
        await pilot.press(*typed("bilbo qq"))
        assert prompt.value == "bilbo qq"
        assert not app.screen.query(ConversationView)
        held.let_go()
        await until(pilot, lambda: is_open(app) and '"<unk>"' in bars_text(app))
        assert app.focused is prompt
        assert (prompt.value, prompt.unknown) == ("bilbo qq", ("qq",))
        assert "74.9" in text_of(app.screen.query_one("#status"))
        assert "This is bundled" in entries(app, Note)[0]


async def test_a_prompt_that_is_sent_early_waits_and_what_is_typed_behind_it_stays(
    make_app: MakeApp, held: Held
) -> None:
    app = make_app(player=None, opening=held)
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.press(*typed("bilbo is"), "enter", *"frodo")
        held.let_go()
        await until(pilot, lambda: is_open(app) and "words/s" in exchange_text(app))
        assert exchange_text(app).startswith("❯ bilbo is\n")
        assert app.screen.query_one("#prompt", Prompt).value == "frodo"


async def test_keys_that_need_a_model_do_nothing_before_it_is_there(make_app: MakeApp, held: Held) -> None:
    app = make_app(player=None, opening=held)
    async with app.run_test(size=(80, 24)) as pilot:
        keys = [key for binding in app.screen.BINDINGS for key in binding.key.split(",")]  # type: ignore[union-attr]
        ways = {"ctrl+o", "ctrl+t"}
        assert ways < set(keys)
        for key in keys:
            if key not in ways:
                await pilot.press(key)
                assert app.screen is app.screen_stack[0], key
        held.let_go()
        await until(pilot, lambda: is_open(app))
        assert app.screen.query_one(TemperatureSlider).value == 0.8
        await pilot.press("f8")
        assert app.screen.query_one(TemperatureSlider).value == pytest.approx(0.85)


@pytest.mark.parametrize("size", [(60, 20), (73, 24), (74, 24), (80, 24), (100, 30), (160, 45)])
async def test_nothing_moves_when_the_model_comes(make_app: MakeApp, held: Held, size: tuple[int, int]) -> None:
    app = make_app(player=None, opening=held)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        before = places(app)
        assert before["#body"].height > 5
        held.let_go()
        await until(pilot, lambda: is_open(app))
        await pilot.pause()
        assert places(app) == before


async def test_the_kept_way_and_controls_are_those_of_the_model_that_comes(
    make_app: MakeApp, held: Held, tmp_path: Path
) -> None:
    kept = KeptSettings(tmp_path / "settings.json")
    kept.keep(way="reply")
    app = make_app(player=None, opening=held, kept=kept)
    async with app.run_test(size=(120, 30)) as pilot:
        held.let_go()
        await until(pilot, lambda: is_open(app))
        assert text_of(app.screen.query_one("#way")) == "reply"
        assert text_of(app.screen.query_one("#prompt-mark")) == "reply ❯"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (RunError("model.safetensors is [damaged]" + 60 * " x"), "model.safetensors is [damaged]"),
        (ImportError("no numpy"), "ImportError: no numpy"),
    ],
)
async def test_without_a_model_it_says_what_to_do_and_a_run_can_be_chosen(
    make_app: MakeApp, held: Held, tmp_path: Path, failure: Exception, said: str
) -> None:
    run = write_run(tmp_path / "runs" / "mine")
    (run / METRICS).write_text(json.dumps(to_record(Evaluated(1, 1.0, 50.0, True, 1.0))) + "\n")
    app = make_app(player=None, opening=held)
    async with app.run_test(size=(80, 24)) as pilot:
        held.let_go(failure)
        await until(pilot, lambda: app.screen.query("#no-model"))
        text = text_of(app.screen.query_one("#no-model", Label))
        assert said in text
        assert "ctrl+o" in text
        assert "ctrl+t" in text
        await until(pilot, lambda: app.screen.query_one("#no-model").region.height > 4)  # wrapped, not cut
        await pilot.press(*typed("the road"), "enter", "f7", "ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.query_one(OptionList).options)
        await pilot.press("slash", *"mine", "enter", "enter")
        await until(pilot, lambda: is_open(app) and "words/s" in exchange_text(app))
        assert not app.screen.query("#no-model")
        assert "mine" in text_of(app.screen.query_one("#status"))
        assert exchange_text(app).startswith("❯ the road\n")


async def test_without_a_model_one_can_be_trained(
    make_app: MakeApp, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = FakeJob(training_events()).release(2)
    monkeypatch.setattr(jobs, "prepare_job", lambda *_, **__: job)
    app = make_app(player=None, opening=held)
    async with app.run_test(size=(160, 45)) as pilot:
        held.let_go(RunError("it is damaged"))
        await until(pilot, lambda: app.screen.query("#no-model"))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, NewTraining))
        await pilot.press("escape")
        app.screen.begin_training(PRESETS["tiny"])  # type: ignore[attr-defined]
        await until(pilot, lambda: "training" in text_of(app.screen.query_one("#status")))
        job.release(100)
        await until(pilot, lambda: is_open(app) and "learning" in text_of(app.screen.query_one("#status")))
        await pilot.press(*"bilbo", "enter")
        await until(pilot, lambda: "words/s" in exchange_text(app))


async def test_a_run_chosen_while_the_model_is_opened_is_the_one_that_is_played(
    make_app: MakeApp, held: Held, tmp_path: Path
) -> None:
    path = write_run(tmp_path / "runs" / "mine")
    app = make_app(player=None, opening=held)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.screen._play_run(load(path))  # type: ignore[attr-defined]
        await until(pilot, lambda: is_open(app))
        held.let_go()
        await until(pilot, lambda: not any(worker.group == "open" for worker in app.workers))
        assert "mine" in text_of(app.screen.query_one("#status"))


async def test_of_two_models_that_come_together_the_last_is_played(
    make_app: MakeApp, held: Held, tmp_path: Path
) -> None:
    app = make_app(player=None, opening=held)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        for name in ("first", "second"):
            app.screen._play_run(load(write_run(tmp_path / "runs" / name)))  # type: ignore[attr-defined]
        await until(pilot, lambda: is_open(app))
        await pilot.pause()
        assert len(app.screen.query(ConversationView)) == 1
        assert "second" in text_of(app.screen.query_one("#status"))


async def test_leaving_before_the_model_is_there_is_quiet(make_app: MakeApp, held: Held) -> None:
    app = make_app(player=None, opening=held)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*"bilbo", "enter", "ctrl+q")
        held.let_go()
    assert app.return_code == 0


async def test_two_times_enter_closes_one_screen(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[object] = []
    monkeypatch.setattr(LotrApp, "start_training", lambda self, config: begun.append(config))
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: is_open(app))
        session = app.screen
        await pilot.press("ctrl+o", "escape", "ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, NewTraining))
        asking = app.screen
        await app.push_screen(HelpScreen([]))
        asking.dismiss(None)  # too late: another one is on top
        assert isinstance(app.screen, HelpScreen)
        app.screen.dismiss()
        await until(pilot, lambda: app.screen is asking)
        presets = app.screen.query_one("#preset", OptionList)
        presets.action_select()
        presets.action_select()
        await until(pilot, lambda: begun)
        await pilot.pause()
        assert app.screen is session
        assert len(app.screen_stack) == 1
        assert len(begun) == 1


async def test_a_screen_that_is_closed_before_it_is_there(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: is_open(app))
        session = app.screen
        asking = NewTraining("")
        app.push_screen(asking)
        asking.dismiss(None)
        await until(pilot, lambda: app.screen is session and not asking.is_running)
        assert app._exception is None
        assert asking.is_mounted
