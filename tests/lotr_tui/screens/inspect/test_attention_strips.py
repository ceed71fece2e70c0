"""Strips of the attention screen; painted values are compared with the record of the model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.analysis.activations import attention_rollouts
from lotr_tui.formatting import format_percent
from lotr_tui.screens.inspect.attention import ROLLOUT, HeadId
from lotr_tui.screens.inspect.heat_strip import (
    MAX_NAME_WIDTH,
    SHADES,
    THRESHOLDS,
    HeatStrips,
    even_columns,
    named_columns,
    shade_levels,
)
from lotr_tui.screens.inspect.text_view import TextView
from tests.support.analysis import ACTIVATIONS_TEXT
from tests.support.app import VOCABULARY
from tests.support.attention import (
    NAMES,
    attention_session_model,
    attention_strips,
    expected_record,
    open_attention,
    strip_lines,
)


@pytest.fixture
def session_model():
    return attention_session_model(VOCABULARY)


async def test_strips_show_the_weights_of_each_head(make_host, session_model):
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        weights = expected_record(session_model).weights
        for layer in (2, 0, 1):  # the last layer first, and from there to the first
            query = screen.query_one(TextView).cursor
            assert query == 13
            lines = strip_lines(app)
            assert lines[0] == f'layer {layer + 1} of 3 · predicting "night" · word 14 of 14'
            assert lines[1].split() == NAMES[:-1]
            rows = {"all layers": attention_rollouts(weights)[query]}
            rows |= {"mean": weights[layer, :, query].mean(0)}
            rows |= {f"head {head + 1}": weights[layer, head, query] for head in range(4)}
            for line, (label, values) in zip(lines[2:], rows.items(), strict=False):
                assert line[1:12].strip() == label
                start = 12
                for name, level in zip(NAMES[: query + 1], shade_levels(values[: query + 1]), strict=True):
                    assert line[start : start + len(name)] == SHADES[level] * len(name), (label, name)
                    start += len(name) + 1
                assert line.endswith(f" {format_percent(float(values[attention_strips(app).item]))}")
            await pilot.press("right_square_bracket")
            await pilot.pause()
        await pilot.press("home", "down", "end", "0")
        await pilot.pause()
        row = weights[2, 0, 13, :14]
        assert "without the start" in strip_lines(app)[0]
        assert attention_strips(app).selected_value == pytest.approx(float(row[13] / row[1:].sum()), rel=1e-4)
        assert strip_lines(app)[4][12:17] == "     "


async def test_the_cursor_moves_over_heads_and_positions_and_follows_the_text(make_host, session_model):
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        strips = attention_strips(app)
        weights = expected_record(session_model).weights
        for keys, row, position, head_id in [
            (("home", "up"), 0, 0, ROLLOUT),
            (("down", "down", "down", "g"), 3, int(weights[2, 1, 13].argmax()), HeadId(2, 1)),
            (("down", "down", "down", "end"), 5, 13, HeadId(2, 3)),
        ]:
            await pilot.press(*keys)
            await pilot.pause()
            assert (strips.row, strips.item, screen.find_selected()) == (row, position, head_id), keys
        assert strips.selected_value == pytest.approx(float(weights[2, 3, 13, 13]), rel=1e-5)
        await pilot.click(HeatStrips, offset=(1 + 12 + 7, 2 + 2))  # below "Bilbo", first head
        await pilot.pause()
        assert (strips.row, strips.item) == (2, 1)


# Columns without an app

COLUMN_NAMES = st.lists(st.text("ab·日", min_size=1, max_size=20), min_size=1, max_size=40)


@given(COLUMN_NAMES, st.integers(1, 80), st.data())
def test_named_columns_fit_and_contain_the_cursor(names, num_cells, data):
    first, cursor = (data.draw(st.integers(0, len(names) - 1)) for _ in range(2))
    columns = named_columns(names, num_cells, first, cursor)
    assert columns.column_of(cursor) is not None
    assert len(columns.widths) == 1 or sum(columns.widths) + len(columns.widths) - 1 <= num_cells
    for name, width in zip(columns.names, columns.widths, strict=True):
        assert cell_len(name) == width <= MAX_NAME_WIDTH
    for index in range(len(columns.widths)):
        assert columns.column_at(columns.cell_of(index)) == index
    again = named_columns(names, num_cells, int(columns.first_positions[0]), cursor)
    assert again.first_positions.tolist() == columns.first_positions.tolist()


def test_shades_start_at_their_thresholds_and_positions_that_were_not_read_are_blank():
    assert shade_levels(np.array([0.0, 0.019, *THRESHOLDS, 1.0])).tolist() == [0, 0, 1, 2, 3, 4, 4]
    columns = even_columns(6, 3)
    assert columns.reduce(np.array([0.2, 0.8], np.float32)).tolist() == pytest.approx([0.8, 0, 0])
    assert columns.largest_position(2, np.array([0.2, 0.8], np.float32)) == 4
