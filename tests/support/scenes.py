"""Scenes for snapshots and key tests: every screen in a state that is the same in each run."""

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input, OptionList

from engine.analysis.memorization import TrainingIndex
from engine.data.lines import Line
from engine.events import Checkpointed, Evaluated
from engine.generation.settings import SamplerSettings
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.directory import MODEL_FILE
from engine.runs.loading import EpochCheckpoint
from lotr_tui.app import LotrApp
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.activations.screen import ActivationsScreen
from lotr_tui.screens.comparison import side_by_side
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.comparison.model_dialog import ModelChoiceDialog
from lotr_tui.screens.comparison.screen import GenerationColumnsScreen
from lotr_tui.screens.comparison.side_by_side import SideBySideScreen
from lotr_tui.screens.dashboard.screen import DashboardScreen
from lotr_tui.screens.dialogs import sessions as sessions_dialog
from lotr_tui.screens.dialogs.confirm import ConfirmDialog
from lotr_tui.screens.dialogs.line_dialog import NameDialog
from lotr_tui.screens.dialogs.new_training import NewTrainingDialog
from lotr_tui.screens.dialogs.path_dialog import OpenTextDialog
from lotr_tui.screens.dialogs.quit import QuitDialog
from lotr_tui.screens.dialogs.sessions import SessionsScreen
from lotr_tui.screens.lens import scoring
from lotr_tui.screens.lens.screen import LensScreen
from lotr_tui.screens.memorization.screen import MemorizationScreen
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.screens.session.run_chart import RunPerplexityChart
from lotr_tui.session import training_text
from lotr_tui.session.saved_session import SavedToken
from lotr_tui.session.session_file import SessionWriter, sessions_folder
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support.analysis import is_idle, make_kneser_ney, make_random_lstm
from tests.support.app import VOCABULARY, finished, make_decoder, training_events
from tests.support.columns import until_columns_ended
from tests.support.files import write_run
from tests.support.metrics import append_events
from tests.support.pilot import text_of, until
from tests.support.sessions import saved_reply

Scene = Callable[[Pilot[None]], Awaitable[None]]

NUCLEUS = SamplerSettings(top_p=0.9)
REPLIES = (
    saved_reply(0, prompt="Bilbo Baggins is", settings=NUCLEUS, reason="eos", tokens_per_second=14_200.0),
    saved_reply(
        1, 0, 4, prompt=None, seed=8, settings=NUCLEUS, reason="length", tokens_per_second=13_800.0, name="the pony"
    ),
    saved_reply(
        2,
        prompt="Where is the wizard",
        settings=NUCLEUS,
        reason="eos",
        tokens_per_second=14_100.0,
        unknown_tokens=("wizard",),
    ),
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
REPLY_TEXT = (
    "Bilbo Baggins is a very old friend and i think he knows it we walked all night with our wizard the lamp was lit"
)
LENS_TEXT = "Bilbo Baggins is a friend. The wizard was lit!\nWe walked all night with our pony.\n\nBread"


def make_deterministic(monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """Replace the data that screens read from runs, with each training line `times` times, and set the time zone."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    lines = [Line(text, speaker) for speaker, text in TRAINING_TEXT * times]
    train = tuple(VOCABULARY.encode(line.text) for line in lines)
    index = TrainingIndex(train, lines)
    data = SimpleNamespace(tokenizer=VOCABULARY, train_lines=train, train_source_lines=lines)
    counts = make_kneser_ney()
    monkeypatch.setattr(sessions_dialog, "format_age", lambda seconds: "3 h")
    monkeypatch.setattr(training_text, "load_training_data", lambda run: data)
    monkeypatch.setattr(training_text, "load_training_index", lambda run: index)
    monkeypatch.setattr(scoring, "load_kneser_ney", lambda run: counts)
    monkeypatch.setattr(
        side_by_side,
        "load_model_choice",
        lambda choice, runs_dir: SessionModel(choice.name, "3-gram counts · valid 94.1", counts),
    )


def finished_view() -> TrainingView:
    """Return the view of a finished training."""
    view = TrainingView()
    for event in [*training_events(), finished(make_decoder())]:
        view.apply(event)
    return view


def save_session(folder: Path | None = None, when: float = 1_600_000_000) -> Path:
    """Write a session of two exchanges, the first with a named branch at its fifth token, and return its file."""
    folder = folder or sessions_folder()
    writer = SessionWriter("bundled", folder)
    writer.session = replace(writer.session, started=when)
    for reply, text in zip(REPLIES, TEXTS, strict=True):
        tokens = tuple(SavedToken(VOCABULARY.token_to_id[word], word, -2.0, 0.14, 3, 5.2) for word in text.split())
        writer.save(replace(reply, tokens=tokens))
    writer.close()
    path: Path = folder / f"{writer.session.name}.jsonl"
    os.utime(path, (when, when))
    return path


def session_model_of(app: LotrApp) -> SessionModel:
    """Return the model that the app was started with."""
    assert app.session_model is not None
    return app.session_model


# The session


async def session(pilot: Pilot[None]) -> None:
    """Two exchanges, the chart of a training, and an incomplete prompt."""
    app = pilot.app
    await until(pilot, lambda: app.screen.query("#training"))
    await pilot.pause(0.1)
    view = app.screen.query_one(ConversationView)
    assert isinstance(app, LotrApp)
    assert view.open_session(save_session(), session_model_of(app))
    app.screen.query_one("#prompt", PromptInput).value = "the lamp"
    app.screen.query_one(RunPerplexityChart).show(finished_view())
    await pilot.pause()


async def _session_after(pilot: Pilot[None], *keys: str) -> None:
    await session(pilot)
    await pilot.press(*keys)
    await pilot.pause()


async def next_word_pane(pilot: Pilot[None]) -> None:
    """The second pane of a narrow session."""
    await _session_after(pilot, "f2")


async def training_pane(pilot: Pilot[None]) -> None:
    """The third pane of a narrow session."""
    await _session_after(pilot, "f2", "f2")


async def cursor_mode(pilot: Pilot[None]) -> None:
    """The cursor on a word, with another alternative highlighted."""
    await _session_after(pilot, "ctrl+g", "left", "left", "j")


async def branches(pilot: Pilot[None]) -> None:
    """The comparison of two branches."""
    await _session_after(pilot, "ctrl+g", "up", "right", "right", "c")


async def search(pilot: Pilot[None]) -> None:
    """A search with several matches."""
    await _session_after(pilot, "ctrl+f", *"the")


async def controls(pilot: Pilot[None]) -> None:
    """All sampling controls, one of them out of range."""
    await _session_after(pilot, "f4", *"40", "tab", *"1.5")


async def reply_mode(pilot: Pilot[None]) -> None:
    """An edit of an earlier prompt in reply mode."""
    await _session_after(pilot, "f6", "ctrl+x")


# Other screens


async def _open(pilot: Pilot[None], screen: Screen[Any]) -> None:
    await pilot.app.push_screen(screen)
    await pilot.pause()


async def dashboard(pilot: Pilot[None]) -> None:
    """The dashboard of a finished training."""
    await _open(pilot, DashboardScreen(finished_view(), lambda command: None, attached=True))


async def _open_columns(pilot: Pilot[None], screen: GenerationColumnsScreen) -> None:
    await _open(pilot, screen)
    await until_columns_ended(pilot, screen)


async def ladder(pilot: Pilot[None]) -> None:
    """The same prompt at five temperatures."""
    app: Any = pilot.app
    await _open_columns(pilot, LadderScreen(session_model_of(app), "the tower", SamplerSettings(top_k=20), 3, 0))


async def side_by_side_models(pilot: Pilot[None]) -> None:
    """The model of the session beside Kneser-Ney."""
    app: Any = pilot.app
    settings = SamplerSettings(top_k=20)
    screen = SideBySideScreen(session_model_of(app), app.runs_dir, "the wizard of the tower", settings, 3, 0)
    await _open_columns(pilot, screen)
    await until(pilot, lambda: not screen.is_loading)
    await until_columns_ended(pilot, screen)


def confident_model(app: LotrApp) -> SessionModel:
    """Return a model with low entropy, so that the lens shows words of every shade."""
    model = make_decoder()
    weights = {name: 3 * value for name, value in model.weights.items()}
    return SessionModel(
        "sure", "1 layer of 12 · valid 74.9", NumpyLSTM(model.config, VOCABULARY, weights), run=app.runs_dir
    )


async def lens_text(pilot: Pilot[None]) -> None:
    """The lens with a text of three sentences, and the cursor on a word."""
    app: Any = pilot.app
    await _open(pilot, LensScreen(confident_model(app), LENS_TEXT))
    await until(pilot, lambda: is_idle(app))
    await pilot.press("shift+tab", "home", "n")
    await pilot.pause(0.1)


async def lens_sentences(pilot: Pilot[None]) -> None:
    """The sentences of the lens, which replace the text on a narrow terminal."""
    await lens_text(pilot)
    await pilot.press("f3", "o")
    await pilot.pause(0.1)


async def memorization(pilot: Pilot[None]) -> None:
    """Three copied passages, the second one selected."""
    app: Any = pilot.app
    await _open(pilot, MemorizationScreen(session_model_of(app), REPLY_TEXT))
    await until(pilot, lambda: is_idle(app))
    await pilot.press("right")
    await pilot.pause()


def large_model(app: LotrApp) -> SessionModel:
    """Return a model with more units than fit on the screen."""
    return SessionModel(
        "two", "2 layers of 200 · valid 74.9 (Kneser-Ney 94.1)", make_random_lstm(200), run=app.runs_dir
    )


async def activations(pilot: Pilot[None]) -> None:
    """The gates of a word, with a pinned unit."""
    app: Any = pilot.app
    await _open(pilot, ActivationsScreen(large_model(app), LENS_TEXT))
    await until(pilot, lambda: is_idle(app))
    await pilot.press("f3", "comma")
    await pilot.pause(0.1)


async def top_activations(pilot: Pilot[None]) -> None:
    """The top activations of the unit, which replace the list of words on a narrow terminal."""
    app: Any = pilot.app
    await activations(pilot)
    await pilot.press("f4")
    await until(pilot, lambda: is_idle(app))
    await pilot.press("f5", "f5")
    await pilot.pause(0.1)


async def sessions(pilot: Pilot[None]) -> None:
    """Three saved sessions, one damaged and one with markup in its prompt."""
    folder = sessions_folder()
    save_session(folder, 1_600_000_000)
    writer = SessionWriter("a model of a very long name, longer than others", folder)
    writer.session = replace(writer.session, started=1_000_000_000)
    writer.save(replace(REPLIES[0], prompt="an older [red]prompt[/]"))
    writer.close()
    os.utime(folder / f"{writer.session.name}.jsonl", (1_000_000_000,) * 2)
    (folder / "broken.jsonl").write_text("{}\n")
    os.utime(folder / "broken.jsonl", (1_300_000_000,) * 2)
    await _open(pilot, SessionsScreen())
    await until(pilot, lambda: pilot.app.screen.query_one(OptionList).option_count == 3)


async def help_screen(pilot: Pilot[None]) -> None:
    """The help above a screen with few keys."""
    await sessions(pilot)
    await pilot.press("f1")
    await pilot.pause(0.3)


async def palette(pilot: Pilot[None]) -> None:
    """The palette above a screen with few actions."""
    await sessions(pilot)
    await pilot.press("ctrl+p")
    await pilot.pause(0.3)


# Dialogs


async def name_dialog(pilot: Pilot[None]) -> None:
    """The dialog for the name of a branch."""
    await session(pilot)
    await _open(pilot, NameDialog("the pony"))


async def path_dialog(pilot: Pilot[None]) -> None:
    """The dialog for a path, with a file that does not exist."""
    await lens_text(pilot)
    await _open(pilot, OpenTextDialog())
    pilot.app.screen.query_one(Input).value = "no/such.txt"
    await pilot.press("enter")
    await until(pilot, lambda: text_of(pilot.app.screen.query_one("#problem")))


async def export_dialog(pilot: Pilot[None]) -> None:
    """The dialog for the path of an export, with a path that cannot be written."""
    await sessions(pilot)
    await pilot.press("m")
    await until(pilot, lambda: pilot.app.screen.query("ExportDialog Input"))
    pilot.app.screen.query_one(Input).value = "/dev/full"
    await pilot.press("enter")
    await until(pilot, lambda: text_of(pilot.app.screen.query_one("#problem")))


async def confirm_dialog(pilot: Pilot[None]) -> None:
    """A confirmation above the dashboard."""
    await dashboard(pilot)
    await _open(pilot, ConfirmDialog("Stop the training? The best model so far is kept."))


async def quit_dialog(pilot: Pilot[None]) -> None:
    """The question what becomes of the training, above the dashboard."""
    await dashboard(pilot)
    await _open(pilot, QuitDialog())


async def new_training_dialog(pilot: Pilot[None]) -> None:
    """The dialog for a new training, with a corpus that does not exist."""
    await session(pilot)
    await _open(pilot, NewTrainingDialog("no/such.csv"))
    await pilot.press("enter")
    await until(pilot, lambda: text_of(pilot.app.screen.query_one("#corpus-problem")))
    await pilot.pause()
    # Whether the problem appears before or after the field is scrolled into view decides about a row.
    pilot.app.screen.query_one(".dialog").scroll_home(animate=False, immediate=True)
    await pilot.pause()


def write_runs(app: LotrApp) -> None:
    """Write two runs, the second with a name that is too long for its column."""
    for number, name in enumerate(("first", "a-run-whose-name-is-longer-than-its-column-is")):
        assert app.runs_dir is not None
        run = write_run(app.runs_dir / name)
        append_events(run, [Evaluated(1, 1.0, 70.5, True, 1.0), Checkpointed(1, MODEL_FILE)])
        os.utime(run / "config.json", (1_600_000_000 - number,) * 2)


async def model_dialog(pilot: Pilot[None]) -> None:
    """The dialog for the model of a column."""
    app: Any = pilot.app
    write_runs(app)
    await ladder(pilot)
    kept = [EpochCheckpoint(1, 140.25), EpochCheckpoint(2, 99.5), EpochCheckpoint(4, None)]
    await _open(pilot, ModelChoiceDialog("runs/first", kept, app.runs_dir))
