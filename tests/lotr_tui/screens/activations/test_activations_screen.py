"""Tests of the activations screen; painted values are compared with `engine.analysis.activations`."""

from typing import Any

import numpy as np
import pytest
from textual.app import App
from textual.widgets import Input

from engine.analysis.activations import ACTIVATION_NAMES, LayerActivations, find_lstm, record_activations
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers.base import EOS_ID, UNK_ID
from engine.models.base import LanguageModel
from engine.models.cache import CacheSettings, NeuralCache
from engine.models.dynamic_evaluation import DynamicEvaluation
from lotr_tui.screens.activations.gate_strips import GateStrips
from lotr_tui.screens.activations.screen import MAX_TOKENS, ActivationsScreen
from lotr_tui.screens.activations.top_activations import UnitTopActivations
from lotr_tui.screens.activations.unit_activations import UnitActivations
from lotr_tui.screens.text.view import TokenTextView
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.line_input import LineInput
from tests.support.analysis import (
    ACTIVATIONS_TEXT,
    ONE_LAYER_LSTM,
    TWO_LAYER_LSTM,
    MakeHost,
    gate_strips,
    is_idle,
    make_kneser_ney,
    open_activations,
    painted_lines,
    status_text,
)
from tests.support.app import VOCABULARY
from tests.support.models import random_ids
from tests.support.pilot import notices, until

TOKENS = ["Bilbo", "Baggins", "is", "a", "friend", "the", "‹wizard›", "was", "lit", "¶", "we", "walked", "all", "night"]
"""Tokens of `ACTIVATIONS_TEXT` as they are shown."""
ACTIVATIONS_LINE = ACTIVATIONS_TEXT.replace("\n", " ¶ ")
"""`ACTIVATIONS_TEXT` as the input shows it."""


def expected_activations(text: str = ACTIVATIONS_TEXT) -> tuple[LayerActivations, ...]:
    return record_activations(TWO_LAYER_LSTM, tokenize_with_offsets(text, VOCABULARY, eos_per_line=True).ids)


def strip_heading(app: App[Any]) -> str:
    return painted_lines(app.screen.query_one(GateStrips))[0]


def unit_heading(app: App[Any]) -> str:
    return status_text(app, "#unit-activations-heading")


def unit_lines(app: App[Any]) -> list[str]:
    return painted_lines(app.screen.query_one(UnitActivations))


# Tokens


async def test_the_strips_follow_the_token_cursor(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_activations(pilot, session_model)
        text, strips = app.screen.query_one(TokenTextView), gate_strips(app)
        layer = expected_activations()[0]

        def is_on(position: int) -> bool:
            value = layer.get(strips.gate)[position, strips.unit]
            return (
                text.cursor == position
                and f'on reading "{TOKENS[position]}" · word {position + 1} of {len(TOKENS)}' in strip_heading(app)
                and strips.selected_value == pytest.approx(float(value))
                and any(line.startswith(f"▸{TOKENS[position]}") for line in unit_lines(app))
            )

        assert is_on(13)
        await pilot.press("comma")
        assert is_on(12)
        await pilot.press("full_stop")
        assert is_on(13)
        text.focus()
        for key, position in [
            ("home", 0),
            ("right", 1),
            ("left", 0),
            ("down", 10),
            ("up", 0),
            ("end", 13),
            ("pageup", 3),
            ("pagedown", 13),
        ]:
            await pilot.press(key)
            await pilot.pause()
            if key == "pageup":
                assert text.line_of(text.cursor) == 0
                position = text.cursor
            assert is_on(position), key
        app.screen.query_one(UnitActivations).focus()
        for key, position in [("up", 12), ("home", 0), ("down", 1), ("right", 2), ("left", 1), ("end", 13)]:
            await pilot.press(key)
            await pilot.pause()
            assert is_on(position), key
        await pilot.press("pageup", "pagedown")
        await pilot.pause()
        assert is_on(13)
        await pilot.click(TokenTextView, offset=(8, 0))
        await pilot.pause()
        assert is_on(1)
        await pilot.click(UnitActivations, offset=(4, 0))
        await pilot.pause()
        assert text.cursor <= 1


async def test_tab_reaches_every_part(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await open_activations(pilot, session_model)
        focused = []
        for _ in range(5):
            await pilot.press("tab")
            assert app.focused is not None
            focused.append(type(app.focused))
        assert set(focused) == {TokenTextView, GateStrips, UnitActivations, UnitTopActivations, LineInput}


async def test_the_text_can_be_edited(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_activations(pilot, session_model)
        strips, field = gate_strips(app), app.screen.query_one(Input)
        await pilot.press("f6")
        assert field.has_focus
        assert field.value == ACTIVATIONS_LINE
        field.value = "the lamp"
        await pilot.press("enter")
        await until(pilot, lambda: is_idle(app) and '"lamp" · word 2 of 2' in strip_heading(app))
        assert strips.has_focus
        expected = expected_activations("the lamp")[0].cell[-1, strips.unit]
        assert strips.selected_value == pytest.approx(float(expected))
        await pilot.press("f6", "f6")
        assert strips.has_focus
        await pilot.press("escape")
        assert not isinstance(app.screen, ActivationsScreen)


# One unit


@pytest.mark.parametrize("size", [(60, 20), (200, 50)])
async def test_a_pinned_unit_stays_shown_along_the_text(
    make_host: MakeHost, session_model: SessionModel, size: tuple[int, int]
) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=size) as pilot:
        await open_activations(pilot, session_model)
        await pilot.press("home", "right", "right", "f3")
        assert unit_heading(app) == "layer 1 unit 2 cell along the text · pinned"
        await pilot.press("f2", "right", "up", "up")  # to another unit
        assert unit_heading(app) == "layer 1 unit 2 cell along the text · pinned"
        values = expected_activations()[0].cell[:, 2]
        lines = {}
        for position, token in enumerate(TOKENS):
            app.screen.query_one(TokenTextView).move_cursor(position)
            await pilot.pause()
            line = next(line for line in unit_lines(app) if line.startswith("▸"))
            shown_token, number = line[1:].split()[:2]
            assert shown_token == token
            assert float(number) == pytest.approx(values[position], abs=6e-4)
            lines[position] = line
        longest = int(np.abs(values).argmax())
        assert (lines[longest].count("█") > 3) == (values[longest] > 0)
        assert (lines[longest].count("▒") > 3) == (values[longest] < 0)
        await pilot.press("f3")
        assert unit_heading(app).startswith("layer 2 unit 3 output along the text")
        assert "pinned" not in unit_heading(app)


async def test_a_gate_along_the_text_is_shown_without_sign(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await open_activations(pilot, session_model)
        await pilot.press("up", "up", "home")
        rows = unit_lines(app)[: len(TOKENS)]
        values = expected_activations()[0].output[:, 0]
        assert [float(row[1:].split()[1]) for row in rows] == pytest.approx(values.tolist(), abs=6e-4)
        assert not any("│" in row or "+" in row for row in rows)


async def test_f5_switches_between_the_lists(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_activations(pilot, session_model)
        results, unit_list = app.screen.query_one(UnitTopActivations), app.screen.query_one(UnitActivations)
        assert not results.region
        await pilot.press("f5")
        await pilot.pause()
        assert results.has_focus
        assert not unit_list.region
        await pilot.press("f5")
        await pilot.pause()
        assert unit_list.has_focus
        await pilot.resize_terminal(200, 50)
        for widget in (results, unit_list):
            await pilot.press("f5")
            await pilot.pause()
            assert widget.has_focus
            assert widget.region


# Special models and texts


async def test_a_model_or_text_without_activations_is_reported(
    make_host: MakeHost, session_model: SessionModel
) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        cases: list[tuple[LanguageModel, str, str]] = [
            (make_kneser_ney(), ACTIVATIONS_TEXT, "no LSTM in this model"),
            (TWO_LAYER_LSTM, "", "the text has no words"),
            (TWO_LAYER_LSTM, "?! \x1b[ …", "the text has no words"),
        ]
        for model, text, message in cases:
            await open_activations(pilot, SessionModel("x", "", model), text)
            assert message in strip_heading(app)
            await pilot.press("right", "down", "m", "z", "end", "pageup", "comma", "f2", "f3", "f4", "f5", "f5", "f6")
            await pilot.press("escape")
            assert not isinstance(app.screen, ActivationsScreen)


async def test_unknown_words_are_read_as_unk(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_activations(pilot, session_model, "zyzzyva zyzzyva")
        assert "‹zyzzyva›" in strip_heading(app)
        expected = record_activations(TWO_LAYER_LSTM, [UNK_ID, UNK_ID])[0].cell[1, gate_strips(app).unit]
        assert gate_strips(app).selected_value == pytest.approx(float(expected))


async def test_a_cached_model_shows_its_lstm_as_trained(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await open_activations(pilot, session_model)
        assert "as trained" not in status_text(app, "#status")
        await pilot.press("escape")
        await open_activations(pilot, SessionModel("cached", "", NeuralCache(TWO_LAYER_LSTM, CacheSettings())))
        assert "inside the LSTM as trained" in status_text(app, "#status")
        expected = expected_activations()[0].cell[-1, gate_strips(app).unit]
        assert gate_strips(app).selected_value == pytest.approx(float(expected))


async def test_a_model_with_one_layer_has_no_layer_key(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_activations(pilot, SessionModel("one", "", ONE_LAYER_LSTM))
        await pilot.press("f2")
        assert "layer 1 of 1" in strip_heading(app)
        assert app.screen.check_action("next_layer", ()) is False
        assert unit_heading(app).startswith("unit ")


async def test_a_long_text_is_cut(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        text = "the lamp " * (MAX_TOKENS // 2 + 7)
        screen = await open_activations(pilot, SessionModel("one", "", ONE_LAYER_LSTM), text)
        assert f"word {MAX_TOKENS:,} of {MAX_TOKENS:,}" in strip_heading(app)
        assert len(screen.layer_activations[0].cell) == MAX_TOKENS
        assert "1,000 words" in notices(app)


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark", "ansi-light"])
async def test_the_cursor_is_visible_in_every_theme(
    make_host: MakeHost, session_model: SessionModel, theme: str
) -> None:
    app = make_host(session_model=session_model, theme=theme)
    async with app.run_test(size=(20, 5)) as pilot:
        await open_activations(pilot, session_model)
        await pilot.press("right", "down", "z", "m", "comma", "f3", "f5", "f5", "f6", "f6")
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        row = gate_strips(app).render_line(1 + ACTIVATION_NAMES.index(gate_strips(app).gate))
        assert any(segment.style and segment.style.reverse for segment in row)


def test_every_binding_has_an_id_and_a_tooltip() -> None:
    for owner in (ActivationsScreen, TokenTextView, GateStrips, UnitActivations, UnitTopActivations):
        for binding in owner.BINDINGS:
            assert not isinstance(binding, tuple)
            assert binding.id
            assert binding.tooltip


def test_line_ends_are_read_as_eos() -> None:
    assert tokenize_with_offsets(ACTIVATIONS_TEXT, VOCABULARY, eos_per_line=True).ids[9] == EOS_ID


def test_the_lstm_of_dynamic_evaluation_is_its_base_model() -> None:
    assert find_lstm(DynamicEvaluation(ONE_LAYER_LSTM, random_ids(100, len(VOCABULARY)))) is ONE_LAYER_LSTM
