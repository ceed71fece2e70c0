"""Helpers for tests of the screens that analyse a text: lens, memorization and activations."""

from collections.abc import Callable
from typing import Any

import numpy as np
from textual.app import App
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Static

from engine.config import ModelConfig
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.screens.activations.gate_strips import GateStrips
from lotr_tui.screens.activations.screen import ActivationsScreen
from lotr_tui.screens.lens.screen import LensScreen
from lotr_tui.screens.lens.text_view import LensTextView
from lotr_tui.screens.memorization.screen import MemorizationScreen
from lotr_tui.screens.text.screen import TextAnalysisScreen
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.status_bar import StatusBar
from tests.support.app import VOCABULARY, Host
from tests.support.models import random_lstm
from tests.support.pilot import lines_of, text_of, until

MakeHost = Callable[..., Host]

LENS_TEXT = "Bilbo Baggins is a friend. The wizard was lit!\nWe walked all night with our pony.\n\nBread"
"""17 words on four lines, one of them unknown and one line empty."""


def is_idle(app: App[Any]) -> bool:
    """Return True if the screen has analysed its text."""
    assert isinstance(app.screen, TextAnalysisScreen)
    return app.screen.is_idle


def painted_lines(widget: Widget) -> list[str]:
    """Return the painted lines of a widget without trailing spaces."""
    return [line.rstrip() for line in lines_of(widget).split("\n")]


def painted(widget: Widget) -> str:
    """Return the painted lines of a widget without trailing spaces and lines."""
    return "\n".join(painted_lines(widget)).rstrip()


def status_text(app: App[Any], selector: str) -> str:
    """Return the text of a status bar."""
    return text_of(app.screen.query_one(selector, StatusBar)).strip()


def static_text(app: App[Any], selector: str) -> str:
    """Return the text of a static widget."""
    return str(app.screen.query_one(selector, Static).content)


async def _open(pilot: Pilot[None], screen: TextAnalysisScreen, seconds: float = 10) -> None:
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: screen.is_idle, seconds)
    await pilot.pause()


# Lens


def make_kneser_ney() -> KneserNey:
    """Return a trigram model of random text."""
    ids = np.random.default_rng(0).integers(0, len(VOCABULARY), 500).astype(np.int32)
    return KneserNey(ids, VOCABULARY, 3)


async def open_lens(pilot: Pilot[None], text: str = LENS_TEXT, session_model: SessionModel | None = None) -> LensScreen:
    """Open the lens with the model of the app, and wait for the scores."""
    app: Any = pilot.app
    screen = LensScreen(session_model or app.session_model, text)
    await _open(pilot, screen)
    return screen


def lens_text(app: App[Any]) -> str:
    """Return the painted text of the lens."""
    return painted(app.screen.query_one(LensTextView))


# Memorization


async def open_memorization(pilot: Pilot[None], session_model: SessionModel, text: str) -> MemorizationScreen:
    """Open the memorization screen, and wait for the result."""
    screen = MemorizationScreen(session_model, text)
    await _open(pilot, screen, seconds=30)
    return screen


# Activations

ACTIVATIONS_TEXT = "Bilbo Baggins is a friend, the wizard was lit\nwe walked all night"


def make_random_lstm(hidden_size: int = 70, num_layers: int = 2) -> NumpyLSTM:
    """Return an LSTM with random weights."""
    config = ModelConfig(embedding_size=12, hidden_size=hidden_size, num_layers=num_layers)
    return random_lstm(config, VOCABULARY, scale=0.4)


TWO_LAYER_LSTM = make_random_lstm()
ONE_LAYER_LSTM = make_random_lstm(hidden_size=12, num_layers=1)


async def open_activations(
    pilot: Pilot[None], session_model: SessionModel, text: str = ACTIVATIONS_TEXT
) -> ActivationsScreen:
    """Open the activations screen, and wait for the activations."""
    screen = ActivationsScreen(session_model, text)
    await _open(pilot, screen)
    return screen


def gate_strips(app: App[Any]) -> GateStrips:
    """Return the gate strips of the screen."""
    return app.screen.query_one(GateStrips)
