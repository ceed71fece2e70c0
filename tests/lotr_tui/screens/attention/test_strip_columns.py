"""Tests of the columns of heat strips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lotr_tui.screens.attention.strip_columns import (
    MAX_NAME_WIDTH,
    SHADES,
    THRESHOLDS,
    even_columns,
    named_columns,
    shade_levels,
)

NAMES = st.lists(st.text("ab·日", min_size=1, max_size=20), min_size=1, max_size=40)


@given(st.integers(1, 300), st.integers(1, 200))
def test_even_columns_cover_each_position_once(num_positions: int, num_cells: int) -> None:
    columns = even_columns(num_positions, num_cells)
    assert sum(columns.widths) <= num_cells
    weights = np.random.default_rng(num_positions).random(num_positions, np.float32)
    largest = columns.reduce(weights)
    for column in range(len(columns.widths)):
        position = columns.largest_position(column, weights)
        assert columns.column_of(position) == column
        assert weights[position] == largest[column]
    assert largest.max() == weights.max()
    sizes = np.diff(columns.first_positions, append=num_positions)
    assert sizes.max() - sizes.min() <= 1


@given(NAMES, st.integers(1, 80), st.data())
def test_named_columns_fit_and_contain_the_cursor(names: list[str], num_cells: int, data: st.DataObject) -> None:
    first, cursor = (data.draw(st.integers(0, len(names) - 1)) for _ in range(2))
    columns = named_columns(names, num_cells, first, cursor)
    column = columns.column_of(cursor)
    assert column is not None
    assert len(columns.widths) == 1 or sum(columns.widths) + len(columns.widths) - 1 <= num_cells
    for name, width in zip(columns.names, columns.widths, strict=True):
        assert cell_len(name) == width <= MAX_NAME_WIDTH
    for index in range(len(columns.widths)):
        assert columns.column_at(columns.cell_of(index)) == index
    again = named_columns(names, num_cells, int(columns.first_positions[0]), cursor)
    assert again.first_positions.tolist() == columns.first_positions.tolist()


def test_positions_that_were_not_read_are_blank() -> None:
    columns = even_columns(6, 3)
    assert columns.reduce(np.array([0.2, 0.8], np.float32)).tolist() == pytest.approx([0.8, 0, 0])
    assert columns.largest_position(2, np.array([0.2, 0.8], np.float32)) == 4


def test_shades_start_at_their_thresholds() -> None:
    assert shade_levels(np.array([0.0, 0.019, *THRESHOLDS, 1.0])).tolist() == [0, 0, 1, 2, 3, 4, 4]
    assert len(SHADES) == len(THRESHOLDS) + 1
