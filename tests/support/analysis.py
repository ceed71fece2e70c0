"""Helpers for tests of the screens that analyse a text: lens, memorization and activations."""

import numpy as np

from engine.config import ModelConfig
from engine.models.ngram import KneserNey
from lotr_tui.screens.inspect.copied import CopiedScreen
from lotr_tui.screens.inspect.layers import ActivationsScreen
from lotr_tui.screens.inspect.lens import LensScreen
from tests.support.app import VOCABULARY
from tests.support.models import random_lstm
from tests.support.pilot import lines_of, text_of, until

LENS_TEXT = "Bilbo Baggins is a friend. The wizard was lit!\nWe walked all night with our pony.\n\nBread"
"""17 words on four lines, one of them unknown and one line empty."""


def is_idle(app):
    return app.screen.is_idle


def painted_lines(widget):
    return [line.rstrip() for line in lines_of(widget).split("\n")]


def painted(widget):
    """Return the painted lines of a widget without trailing spaces and lines."""
    return "\n".join(painted_lines(widget)).rstrip()


def status_text(app, selector):
    return text_of(app.screen.query_one(selector)).strip()


def static_text(app, selector):
    return str(app.screen.query_one(selector).content)


async def open_inspector(pilot, screen, *keys):
    """Open a screen that analyses a text, wait for its results, press keys, wait again, and return the screen."""
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: screen.is_idle, 30)
    await pilot.press(*keys)
    await until(pilot, lambda: screen.is_idle)
    await pilot.pause(0.1 if keys else 0)
    return screen


def make_kneser_ney():
    ids = np.random.default_rng(0).integers(0, len(VOCABULARY), 500).astype(np.int32)
    return KneserNey(ids, VOCABULARY, 3)


async def open_lens(pilot, text=LENS_TEXT, session_model=None):
    return await open_inspector(pilot, LensScreen(session_model or pilot.app.session_model, text))


def lens_text(app):
    return painted(app.screen.query_one("#text"))


async def open_memorization(pilot, session_model, text):
    return await open_inspector(pilot, CopiedScreen(session_model, text))


# Activations

ACTIVATIONS_TEXT = "Bilbo Baggins is a friend, the wizard was lit\nwe walked all night"


def make_random_lstm(hidden_size=70, num_layers=2):
    config = ModelConfig(embedding_size=12, hidden_size=hidden_size, num_layers=num_layers)
    return random_lstm(config, VOCABULARY, scale=0.4)


TWO_LAYER_LSTM = make_random_lstm()
ONE_LAYER_LSTM = make_random_lstm(hidden_size=12, num_layers=1)


async def open_activations(pilot, session_model, text=ACTIVATIONS_TEXT):
    return await open_inspector(pilot, ActivationsScreen(session_model, text))


def selected_value(strips):
    return float(strips.rows[strips.row].values[strips.item])


def heat_strips(app):
    return app.screen.query_one("HeatStrips")
