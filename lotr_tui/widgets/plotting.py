"""Curves as braille dots, and round values for axes. Pure functions; the widgets that use them own the colours."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[np.uint8]
"""Braille patterns `[rows, columns]`: bits of the dots that are set, 0 for an empty cell."""

DOTTED = np.uint8(0x47)
"""Every other column of dots: a curve that is told from another one without colour."""

# The bit of each dot of a cell, `[4 rows, 2 columns]` (Unicode, Braille Patterns).
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)


def draw_curve(
    x: Floats, y: Floats, x_range: tuple[float, float], y_range: tuple[float, float], rows: int, columns: int
) -> Cells:
    """The curve through the points, joined by lines; what is not finite parts it, what is out of range is cut off."""
    dots = np.zeros((4 * rows, 2 * columns), dtype=bool)
    across = np.linspace(*x_range, 2 * columns)
    for points in _finite_stretches(x, y):
        # At every column of dots, and at every point, so that no peak falls between two columns.
        between = across[(across > x[points[0]]) & (across < x[points[-1]])]
        places = np.union1d(between, x[points])
        levels = np.interp(places, x[points], y[points])
        dot_columns = np.rint((places - x_range[0]) / (x_range[1] - x_range[0]) * (2 * columns - 1)).astype(int)
        dot_rows = [dot_row(level, y_range, rows) for level in levels]
        previous = dot_rows[0]
        for column, row in zip(dot_columns.tolist(), dot_rows, strict=True):
            if 0 <= column < 2 * columns:
                # Down or up from the dot before, which itself is drawn already.
                top, bottom = (previous + 1, row) if row > previous else (row, max(row, previous - 1))
                dots[max(0, top) : max(0, bottom + 1), column] = True
            previous = row
    blocks = dots.reshape(rows, 4, columns, 2).transpose(0, 2, 1, 3)
    cells: Cells = (blocks * _DOTS).sum(axis=(2, 3)).astype(np.uint8)
    return cells


def dot_row(level: float, y_range: tuple[float, float], rows: int) -> int:
    """The row of dots, four to a row of cells, where `level` is; the highest of the range is row 0."""
    return round((y_range[1] - level) / (y_range[1] - y_range[0]) * (4 * rows - 1))


def thin_out(x: Floats, y: Floats, most: int) -> tuple[Floats, Floats]:
    """At most about `most` points, keeping the lowest and highest of each stretch so that spikes stay."""
    if len(x) <= most:
        return x, y
    keep: set[int] = {0, len(x) - 1}
    for stretch in np.array_split(np.arange(len(x)), max(1, most // 2)):
        keep.add(int(stretch[np.argmin(y[stretch])]))
        keep.add(int(stretch[np.argmax(y[stretch])]))
    chosen = sorted(keep)
    return x[chosen], y[chosen]


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` evenly spaced round values from `low` to `high`."""
    if not high > low or most < 1:
        return []
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * multiple for multiple in (1, 2, 5, 10, 20) if (high - low) / (power * multiple) <= most - 0.5)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round values from `low` to `high`, for an axis of logarithms: 1, 2, 5 times powers of ten,
    the powers alone where there are many, evenly spaced values where there are few."""
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    usual = [power * step for power in powers for step in (1, 2, 5) if low <= power * step <= high]
    if len(usual) > most:
        return [power for power in powers if low <= power <= high][:most]
    return usual if len(usual) >= 4 or high / low > 10 else linear_ticks(low, high, most)


def _finite_stretches(x: Floats, y: Floats) -> list[npt.NDArray[np.intp]]:
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if len(finite) == 0:
        return []
    return np.split(finite, np.flatnonzero(np.diff(finite) > 1) + 1)
