"""Every screen with something on it that never changes: no seed is drawn, nothing is timed, no date is today's."""

import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input

from engine.analysis.memorization import TrainingIndex
from engine.data.lines import Line
from engine.generation.settings import SamplerSettings
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import Decoder
from engine.runs.store import METRICS, KeptEpoch
from lotr_tui.app import LotrApp
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.activations.screen import InsideScreen
from lotr_tui.screens.comparison import side_by_side
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.comparison.screen import ColumnsScreen
from lotr_tui.screens.comparison.side_by_side import ChooseColumn, SideBySideScreen
from lotr_tui.screens.dashboard.screen import TrainScreen
from lotr_tui.screens.dialogs.confirm import Confirm
from lotr_tui.screens.dialogs.name import AskName
from lotr_tui.screens.dialogs.new_training import NewTraining
from lotr_tui.screens.dialogs.sessions import SessionsScreen
from lotr_tui.screens.lens import screen as lens
from lotr_tui.screens.lens.path_dialog import AskPath
from lotr_tui.screens.lens.screen import LensScreen
from lotr_tui.screens.memorization import screen as memorised
from lotr_tui.screens.memorization.screen import MemorisedScreen
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.session import unit_search
from lotr_tui.session.player import Player
from lotr_tui.session.saved_session import Node, Word
from lotr_tui.session.session_file import SessionWriter, sessions_folder
from lotr_tui.widgets.prompt import Prompt
from tests.conftest import write_run
from tests.lotr_tui.conftest import VOCABULARY, finished, make_decoder, training_events
from tests.lotr_tui.screens.activations.test_activations_screen import at_rest as inside_at_rest
from tests.lotr_tui.screens.activations.test_activations_screen import make as make_lstm
from tests.lotr_tui.screens.comparison.test_ladder import ended
from tests.lotr_tui.screens.lens.test_lens_screen import at_rest as lens_at_rest
from tests.lotr_tui.screens.memorization.test_memorization_screen import at_rest as memorised_at_rest
from tests.lotr_tui.screens.session.test_session_screen import until

Scene = Callable[[Pilot[None]], Awaitable[None]]

NUCLEUS = SamplerSettings(top_p=0.9)
REPLIES = (
    Node(0, None, 0, "Bilbo Baggins is", "continue", (), 7, NUCLEUS, "eos", 14_200.0, "bundled"),
    Node(1, 0, 4, None, "continue", (), 8, NUCLEUS, "length", 13_800.0, "bundled", (), "the pony"),
    Node(2, None, 0, "Where is the wizard", "continue", (), 7, NUCLEUS, "eos", 14_100.0, "bundled", ("wizard",)),
)
TEXTS = (
    "a very old friend of mine and i think he knows it",
    "pony that walked all night down from the north before winter came",
    "he kept his promise and walked with our friend down from the high tower",
)
TRAINING_TEXT = (
    ("ROSA", "We walked all night with our pony."),
    ("TOLLY", "I think he knows it!"),
    ("ROSA", "That ranger kept his promise, and walked all night with our bread."),
    ("", "The lamp was lit in the high tower before winter came down from the north."),
)
SAID = "Bilbo Baggins is a very old friend and i think he knows it we walked all night with our wizard the lamp was lit"
READ = "Bilbo Baggins is a friend. The wizard was lit!\nWe walked all night with our pony.\n\nBread"


def make_fixed(monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """What screens read of a run is the same everywhere, each line so many times, and so is the hour."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    lines = [Line(text, speaker) for speaker, text in TRAINING_TEXT * times]
    train = tuple(VOCABULARY.encode(VOCABULARY.tokenize(line.text)) for line in lines)
    index = TrainingIndex(train, lines)
    data = SimpleNamespace(vocabulary=VOCABULARY, train_lines=train)
    counts = KneserNey(np.random.default_rng(0).integers(0, len(VOCABULARY), 500).astype(np.int32), VOCABULARY, 3)
    monkeypatch.setattr(unit_search, "training_data", lambda run: data)
    monkeypatch.setattr(memorised, "training_data", lambda run: data)
    monkeypatch.setattr(memorised, "training_index", lambda run: index)
    monkeypatch.setattr(lens, "_kneser_ney", lambda run: counts)
    monkeypatch.setattr(
        side_by_side, "load_choice", lambda choice, runs_dir: Player(choice.name, "3-gram counts · valid 94.1", counts)
    )


def a_view() -> TrainingView:
    """A training that has ended."""
    view = TrainingView()
    for event in [*training_events(), finished(make_decoder())]:
        view.apply(event)
    return view


def saved(folder: Path | None = None, when: float = 1_600_000_000) -> Path:
    """A session of two exchanges; the first has a branch off its fourth word, with a name."""
    folder = folder or sessions_folder()
    writer = SessionWriter("bundled", folder)
    writer.session = replace(writer.session, started=when)
    for node, text in zip(REPLIES, TEXTS, strict=True):
        words = tuple(Word(VOCABULARY.index[word], word, -2.0, 0.14, 3, 5.2) for word in text.split())
        writer.keep(replace(node, words=words))
    writer.close()
    path: Path = folder / f"{writer.session.name}.jsonl"
    os.utime(path, (when, when))
    return path


def player_of(app: LotrApp) -> Player:
    """What a session plays with."""
    assert app._player is not None
    return app._player


# The session


async def session(pilot: Pilot[None]) -> None:
    """Two exchanges, the curve of a training, and a prompt half typed."""
    app = pilot.app
    await until(pilot, lambda: app.screen.query("#training"))
    await pilot.pause(0.1)
    view = app.screen.query_one(ConversationView)
    assert isinstance(app, LotrApp)
    assert view._open(saved(), player_of(app))
    app.screen.query_one("#prompt", Prompt).value = "the lamp"
    app.screen._curve.show(a_view())  # type: ignore[attr-defined]
    await pilot.pause()


async def _pressed(pilot: Pilot[None], *keys: str) -> None:
    await session(pilot)
    await pilot.press(*keys)
    await pilot.pause()


async def next_word(pilot: Pilot[None]) -> None:
    """Its second pane."""
    await _pressed(pilot, "f2")


async def training(pilot: Pilot[None]) -> None:
    """Its third pane."""
    await _pressed(pilot, "f2", "f2")


async def walk(pilot: Pilot[None]) -> None:
    """The cursor on a word."""
    await _pressed(pilot, "ctrl+g", "left", "left", "j")


async def branches(pilot: Pilot[None]) -> None:
    """Two branches compared."""
    await _pressed(pilot, "ctrl+g", "up", "right", "right", "c")


async def search(pilot: Pilot[None]) -> None:
    """Some words are looked for."""
    await _pressed(pilot, "ctrl+f", *"the")


async def controls(pilot: Pilot[None]) -> None:
    """All of the sampler, one with something wrong."""
    await _pressed(pilot, "f4", *"40", "tab", *"1.5")


async def reply_mode(pilot: Pilot[None]) -> None:
    """An earlier prompt is edited, in a conversation."""
    await _pressed(pilot, "f6", "ctrl+x")


# Other screens


async def _open(pilot: Pilot[None], screen: Screen[Any]) -> None:
    await pilot.app.push_screen(screen)
    await pilot.pause()


async def dashboard(pilot: Pilot[None]) -> None:
    """A training that has ended."""
    await _open(pilot, TrainScreen(a_view(), lambda command: None, follows=True))


async def _columns(pilot: Pilot[None], screen: ColumnsScreen) -> None:
    await _open(pilot, screen)
    await ended(pilot, screen)


async def ladder(pilot: Pilot[None]) -> None:
    """Five temperatures."""
    app: Any = pilot.app
    await _columns(pilot, LadderScreen(player_of(app), "the tower", SamplerSettings(top_k=20), 3, 0))


async def two_models(pilot: Pilot[None]) -> None:
    """The session's model and Kneser-Ney."""
    app: Any = pilot.app
    settings = SamplerSettings(top_k=20)
    screen = SideBySideScreen(player_of(app), app.runs_dir, "the wizard of the tower", settings, 3, 0)
    await _columns(pilot, screen)
    await until(pilot, lambda: not screen.poll())
    await ended(pilot, screen)


def sure(app: LotrApp) -> Player:
    """A model that is seldom in doubt, so that words of every shade are found."""
    model = make_decoder()
    weights = {name: 3 * value for name, value in model.weights.items()}
    return Player("sure", "1 layer of 12 · valid 74.9", Decoder(model.config, VOCABULARY, weights), run=app.runs_dir)


async def lens_of_text(pilot: Pilot[None]) -> None:
    """A text of three sentences, the cursor on a word of it."""
    app: Any = pilot.app
    await _open(pilot, LensScreen(sure(app), READ))
    await until(pilot, lambda: lens_at_rest(app))
    await pilot.press("shift+tab", "home", "n")
    await pilot.pause(0.1)


async def lens_sentences(pilot: Pilot[None]) -> None:
    """Its sentences, which on a narrow terminal take the place of the text."""
    await lens_of_text(pilot)
    await pilot.press("f3", "o")
    await pilot.pause(0.1)


async def memorised_text(pilot: Pilot[None]) -> None:
    """Three passages, the second of them chosen."""
    app: Any = pilot.app
    await _open(pilot, MemorisedScreen(player_of(app), SAID))
    await until(pilot, lambda: memorised_at_rest(app))
    await pilot.press("right")
    await pilot.pause()


def two_layers(app: LotrApp) -> Player:
    """A model with more units than there is room for."""
    return Player("two", "2 layers of 200 · valid 74.9 (Kneser-Ney 94.1)", make_lstm(200), run=app.runs_dir)


async def inside(pilot: Pilot[None]) -> None:
    """Gates of a word, a unit pinned."""
    app: Any = pilot.app
    await _open(pilot, InsideScreen(two_layers(app), READ))
    await until(pilot, lambda: bool(app.screen._layers) and inside_at_rest(app))
    await pilot.press("f3", "comma")
    await pilot.pause(0.1)


async def inside_found(pilot: Pilot[None]) -> None:
    """What drives that unit, which on a narrow terminal takes the place of the list of words."""
    app: Any = pilot.app
    await inside(pilot)
    await pilot.press("f4")
    await until(pilot, lambda: inside_at_rest(app))
    await pilot.press("f5", "f5")
    await pilot.pause(0.1)


async def sessions(pilot: Pilot[None]) -> None:
    """Three sessions, one damaged, one with markup in its prompt."""
    folder = sessions_folder()
    saved(folder, 1_600_000_000)
    writer = SessionWriter("a model of a very long name, longer than others", folder)
    writer.session = replace(writer.session, started=1_000_000_000)
    writer.keep(replace(REPLIES[0], prompt="an older [red]prompt[/]"))
    writer.close()
    os.utime(folder / f"{writer.session.name}.jsonl", (1_000_000_000,) * 2)
    (folder / "broken.jsonl").write_text("{}\n")
    os.utime(folder / "broken.jsonl", (1_300_000_000,) * 2)
    await _open(pilot, SessionsScreen())


async def help_keys(pilot: Pilot[None]) -> None:
    """All keys, over a screen that has few."""
    await sessions(pilot)
    await pilot.press("f1")
    await pilot.pause(0.3)


async def palette(pilot: Pilot[None]) -> None:
    """All actions, over a screen that has few."""
    await sessions(pilot)
    await pilot.press("ctrl+p")
    await pilot.pause(0.3)


# Questions


async def ask_name(pilot: Pilot[None]) -> None:
    """A branch is given a name."""
    await session(pilot)
    await _open(pilot, AskName("the pony"))


async def ask_path(pilot: Pilot[None]) -> None:
    """A file that is not there."""
    await lens_of_text(pilot)
    await _open(pilot, AskPath())
    pilot.app.screen.query_one(Input).value = "no/such.txt"
    await pilot.press("enter")
    await pilot.pause()


async def confirm(pilot: Pilot[None]) -> None:
    """A question over the dashboard."""
    await dashboard(pilot)
    await _open(pilot, Confirm("Stop the training and leave? The best model so far is kept."))


async def new_training(pilot: Pilot[None]) -> None:
    """A corpus that is not there."""
    await session(pilot)
    await _open(pilot, NewTraining("no/such.csv"))
    await pilot.press("enter")
    await pilot.pause()


def runs(app: LotrApp) -> None:
    """Two runs, the second with a name that is too long."""
    for number, name in enumerate(("first", "a-run-whose-name-is-longer-than-its-column-is")):
        assert app.runs_dir is not None
        run = write_run(app.runs_dir / name)
        (run / METRICS).write_text(json.dumps({"event": "evaluated", "epoch": 1, "valid_perplexity": 70.5}) + "\n")
        os.utime(run / "config.json", (1_600_000_000 - number,) * 2)


async def choose_column(pilot: Pilot[None]) -> None:
    """What can stand beside a model."""
    app: Any = pilot.app
    runs(app)
    await ladder(pilot)
    kept = [KeptEpoch(1, 140.25), KeptEpoch(2, 99.5), KeptEpoch(4, None)]
    await _open(pilot, ChooseColumn("runs/first", kept, app.runs_dir))
