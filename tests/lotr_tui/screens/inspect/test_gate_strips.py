"""Gate strips; painted values are compared with `engine.analysis.activations`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.activations import ACTIVATION_NAMES, record_activations
from engine.analysis.tokenized_text import tokenize_with_offsets
from lotr_tui.screens.inspect.activations import LABEL_WIDTH, SIGMOID_GATES
from lotr_tui.screens.inspect.heat_strip import (
    NEGATIVE_CHARS,
    POSITIVE_CHARS,
    VALUE_WIDTH,
    ZERO_CHAR,
    HeatStrips,
    even_columns,
    value_char,
)
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.bars import BLOCK_HEIGHTS
from tests.support.analysis import ACTIVATIONS_TEXT, TWO_LAYER_LSTM, gate_strips, open_activations, painted_lines
from tests.support.app import VOCABULARY


@pytest.fixture
def session_model(tmp_path):
    return SessionModel("two", "2 layers", TWO_LAYER_LSTM, run=tmp_path)


@pytest.fixture(scope="module")
def layers():
    ids = tokenize_with_offsets(ACTIVATIONS_TEXT, VOCABULARY, eos_per_line=True).ids
    return record_activations(TWO_LAYER_LSTM, ids)


def kind_of(gate):
    return "gate" if gate in SIGMOID_GATES else "signed"


def value_range(char, gate, scale):
    if gate in SIGMOID_GATES:
        return BLOCK_HEIGHTS.index(char) / 8, (BLOCK_HEIGHTS.index(char) + 1) / 8
    if char == ZERO_CHAR:
        return -scale / 8, scale / 8
    level, sign = (POSITIVE_CHARS.index(char), 1) if char in POSITIVE_CHARS else (NEGATIVE_CHARS.index(char), -1)
    low, high = (level + 0.5) / 4 * scale, (level + 1.5) / 4 * scale
    return (low, high) if sign > 0 else (-high, -low)


@given(st.floats(-2, 2), st.sampled_from(ACTIVATION_NAMES), st.floats(0.1, 2))
def test_a_character_stands_for_a_range_around_its_value(value, gate, scale):
    value = abs(value) / 2 if gate in SIGMOID_GATES else max(-scale, min(value, scale))
    low, high = value_range(value_char(value, kind_of(gate), scale), gate, scale)
    assert low - 1e-9 <= value <= high + 1e-9


async def test_painted_strips_fill_the_width_with_the_activations(make_host, session_model, layers):
    app = make_host(session_model=session_model)
    async with app.run_test(size=(60, 20)) as pilot:
        await open_activations(pilot, session_model)
        strips = gate_strips(app)

        def check(layer, first=0):
            for gate, row in zip(ACTIVATION_NAMES, painted_lines(strips)[1:7], strict=True):
                values = layer.get(gate)[-1]
                scale = 1.0 if gate in SIGMOID_GATES else float(np.abs(layer.get(gate)).max())
                assert row[1:].startswith(gate)
                assert float(row.split()[-1]) == pytest.approx(values[strips.item], abs=6e-4)
                cells = row[LABEL_WIDTH:-VALUE_WIDTH]
                assert len(cells) == strips.size.width - LABEL_WIDTH - VALUE_WIDTH
                columns = even_columns(len(values) - first, strips.num_cells, first)
                expected = np.repeat(columns.reduce(values, kind_of(gate)), columns.widths)
                for char, value in zip(cells, expected, strict=True):
                    low, high = value_range(char, gate, scale)
                    assert low - 1e-5 <= value <= high + 1e-5

        check(layers[0])
        assert int(strips.columns().sizes.max()) == 3
        await pilot.press("z", "end")  # the last page of the zoomed strips
        await pilot.pause()
        check(layers[0], len(layers[0].cell[0]) - strips.num_cells)
        await pilot.press("right_square_bracket", "z")
        await pilot.resize_terminal(200, 50)
        await pilot.pause()
        check(layers[1])


async def test_keys_and_clicks_move_the_cursor_over_units_and_gates(make_host, session_model, layers):
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_activations(pilot, session_model)
        strips, layer = gate_strips(app), layers[0]
        assert (strips.item, screen.gate) == (int(np.abs(layer.cell[-1]).argmax()), "cell")
        for key, unit, gate in [
            ("end", 69, "cell"),
            ("down", 69, "hidden"),
            ("g", int(np.abs(layer.hidden[-1]).argmax()), "hidden"),
        ]:
            await pilot.press(key)
            assert (strips.item, screen.gate) == (unit, gate), key
            assert strips.selected_value == pytest.approx(float(layer.get(gate)[-1, unit]))
        for row, gate in enumerate(ACTIVATION_NAMES, 1):
            expected = strips.columns().largest_position(5, layer.get(gate)[-1])
            await pilot.click(HeatStrips, offset=(1 + LABEL_WIDTH + 5, row))
            assert (strips.item, screen.gate) == (expected, gate)
