"""Helpers for tests of the screens that analyse a text: lens, memorization and activations."""

import numpy as np
from textual.widgets import Static

from engine.config import ModelConfig
from engine.models.ngram import KneserNey
from lotr_tui.screens.inspect.copied import CopiedScreen
from lotr_tui.screens.inspect.heat_strip import HeatStrips
from lotr_tui.screens.inspect.layers import ActivationsScreen
from lotr_tui.screens.inspect.lens import LensScreen
from lotr_tui.screens.inspect.text_screen import TextScreen
from lotr_tui.widgets.screen_lines import StatusBar
from tests.support.app import VOCABULARY
from tests.support.models import random_lstm
from tests.support.pilot import lines_of, text_of, until

LENS_TEXT = "Bilbo Baggins is a friend. The wizard was lit!\nWe walked all night with our pony.\n\nBread"
"""17 words on four lines, one of them unknown and one line empty."""


def is_idle(app):
    assert isinstance(app.screen, TextScreen)
    return app.screen.is_idle


def painted_lines(widget):
    """Return the painted lines of a widget without trailing spaces."""
    return [line.rstrip() for line in lines_of(widget).split("\n")]


def painted(widget):
    """Return the painted lines of a widget without trailing spaces and lines."""
    return "\n".join(painted_lines(widget)).rstrip()


def status_text(app, selector):
    return text_of(app.screen.query_one(selector, StatusBar)).strip()


def static_text(app, selector):
    return str(app.screen.query_one(selector, Static).content)


async def _open(pilot, screen, seconds=10):
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: screen.is_idle, seconds)
    await pilot.pause()


# Lens


def make_kneser_ney():
    ids = np.random.default_rng(0).integers(0, len(VOCABULARY), 500).astype(np.int32)
    return KneserNey(ids, VOCABULARY, 3)


async def open_lens(pilot, text=LENS_TEXT, session_model=None):
    """Open the lens with the model of the app, and wait for the scores."""
    app = pilot.app
    screen = LensScreen(session_model or app.session_model, text)
    await _open(pilot, screen)
    return screen


def lens_text(app):
    return painted(app.screen.query_one("#text"))


# Memorization


async def open_memorization(pilot, session_model, text):
    """Open the memorization screen, and wait for the result."""
    screen = CopiedScreen(session_model, text)
    await _open(pilot, screen, seconds=30)
    return screen


# Activations

ACTIVATIONS_TEXT = "Bilbo Baggins is a friend, the wizard was lit\nwe walked all night"


def make_random_lstm(hidden_size=70, num_layers=2):
    config = ModelConfig(embedding_size=12, hidden_size=hidden_size, num_layers=num_layers)
    return random_lstm(config, VOCABULARY, scale=0.4)


TWO_LAYER_LSTM = make_random_lstm()
ONE_LAYER_LSTM = make_random_lstm(hidden_size=12, num_layers=1)


async def open_activations(pilot, session_model, text=ACTIVATIONS_TEXT):
    """Open the activations screen, and wait for the activations."""
    screen = ActivationsScreen(session_model, text)
    await _open(pilot, screen)
    return screen


def selected_value(strips):
    return float(strips.rows[strips.row].values[strips.item])


def gate_strips(app):
    return app.screen.query_one(HeatStrips)
