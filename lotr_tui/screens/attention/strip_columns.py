"""Columns of a heat strip: which positions of a text each of them stands for, and how wide it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len, set_cell_size

from engine.data.arrays import Float32Array, Int64Array
from lotr_tui.formatting import truncate

MAX_NAME_WIDTH = 12
"""Maximum width in cells of the name of a position."""
THRESHOLDS = (0.02, 0.1, 0.25, 0.5)
"""Weights from which a cell has the next darker shade."""
SHADES = " ░▒▓█"
"""Characters for weights below and from each of `THRESHOLDS`."""


def shade_levels(weights: Float32Array) -> npt.NDArray[np.intp]:
    """Return the index in `SHADES` of each weight, in an array of the same shape."""
    return np.digitize(weights, THRESHOLDS)


@dataclass(frozen=True)
class StripColumns:
    """Columns from left to right. Without names, several positions may share a column."""

    first_positions: Int64Array
    """First position of each column: `[columns]`."""
    end_position: int
    """Position after the last column."""
    widths: tuple[int, ...]
    """Width of each column in cells: `[columns]`."""
    names: tuple[str, ...] = ()
    """Name of each column, which stands for one position then; empty if names do not fit."""

    @property
    def gap(self) -> int:
        """Number of blank cells after each column."""
        return 1 if self.names else 0

    @property
    def positions_per_column(self) -> int:
        """Largest number of positions of a column."""
        return int(np.diff(self.first_positions, append=self.end_position).max(initial=1))

    def column_of(self, position: int) -> int | None:
        """Return the column of a position, or None if no column stands for it."""
        if not self.first_positions[0] <= position < self.end_position:
            return None
        return int(np.searchsorted(self.first_positions, position, side="right")) - 1

    def cell_of(self, column: int) -> int:
        """Return the number of cells before a column."""
        return sum(self.widths[:column]) + self.gap * column

    def column_at(self, cell: int) -> int | None:
        """Return the column that covers a cell or the gap after it, or None if there is none."""
        ends = np.cumsum(np.array(self.widths) + self.gap)
        column = int(np.searchsorted(ends, cell, side="right"))
        return column if cell >= 0 and column < len(self.widths) else None

    def reduce(self, weights: Float32Array) -> Float32Array:
        """Return the largest weight of each column `[columns]`, given the weights from position 0 on `[positions]`.

        Positions without a weight count as 0.
        """
        padded = np.zeros(max(len(weights), self.end_position), np.float32)
        padded[: len(weights)] = weights
        largest: Float32Array = np.maximum.reduceat(padded[: self.end_position], self.first_positions)
        return largest

    def largest_position(self, column: int, weights: Float32Array) -> int:
        """Return the position of a column with the largest weight, given the weights from position 0 on."""
        first = int(self.first_positions[column])
        is_last = column + 1 == len(self.first_positions)
        end = self.end_position if is_last else int(self.first_positions[column + 1])
        values = weights[first:end]
        return first + (int(values.argmax()) if len(values) else 0)


def even_columns(num_positions: int, num_cells: int) -> StripColumns:
    """Distribute all positions evenly: several positions per column of one cell, or wider columns of one position."""
    num_columns = min(num_positions, max(1, num_cells))
    first_positions = np.arange(num_columns) * num_positions // num_columns
    return StripColumns(first_positions, num_positions, (max(1, num_cells // num_positions),) * num_columns)


def named_columns(names: Sequence[str], num_cells: int, first: int, cursor: int) -> StripColumns:
    """Return as many columns with names as fit: those from position `first` on if `cursor` is among them.

    Otherwise the columns are scrolled the shortest distance that brings `cursor` into view.
    """
    widths = [min(MAX_NAME_WIDTH, max(1, cell_len(name))) for name in names]
    first = min(first, cursor)
    while first < cursor and sum(widths[first : cursor + 1]) + cursor - first > num_cells:
        first += 1
    end, used = first, -1
    while end < len(names) and (end == first or used + 1 + widths[end] <= num_cells):
        used += 1 + widths[end]
        end += 1
    # Fill the space that a shorter row leaves at the end.
    while end == len(names) and first > 0 and used + 1 + widths[first - 1] <= num_cells:
        first -= 1
        used += 1 + widths[first]
    shown = tuple(set_cell_size(truncate(names[i], widths[i]), widths[i]) for i in range(first, end))
    return StripColumns(np.arange(first, end), end, tuple(widths[first:end]), shown)
