"""Curves as braille dots, and round values for axes. Pure functions; the widgets that use them own the colours."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[np.uint8]
"""Braille patterns `[rows, columns]`: bits of the dots that are set, 0 for an empty cell."""

FAR = 1e6
"""Rows of dots outside the picture beyond which it makes no difference how far."""
# The bit of each dot of a cell, `[4 rows, 2 columns]` (Unicode, Braille Patterns).
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)


def draw_curve(
    x: Floats, y: Floats, x_range: tuple[float, float], y_range: tuple[float, float], rows: int, columns: int
) -> Cells:
    """The curve through the points, joined by lines; what is not finite parts it, what is out of range is cut off.

    Args:
        x: places, none smaller than the one before it. Points of one place make an upright line.
        y: levels.
        x_range: left and right end of the picture.
        y_range: its bottom and top.
        rows: of cells.
        columns: of cells.
    """
    ends = np.zeros((4 * rows + 1, 2 * columns))
    left, right = x_range
    with np.errstate(over="ignore"):  # what overflows is as far out of the picture as can be
        places = (x - left) / (right - left) * (2 * columns - 1)
    levels = np.clip((y_range[1] - y) / (y_range[1] - y_range[0]) * (4 * rows - 1), -FAR, FAR)
    for points in _finite_stretches(places, levels):
        between = _with_columns_between(places[points], levels[points], 2 * columns)
        across = np.rint(np.clip(between[0], -1, 2 * columns)).astype(int)
        down = np.rint(between[1]).astype(int)
        before = np.concatenate([down[:1], down[:-1]])
        # Down or up from the dot before, which itself is drawn already.
        top = np.maximum(np.where(down > before, before + 1, down), 0)
        bottom = np.minimum(np.where(down > before, down, np.maximum(down, before - 1)), 4 * rows - 1)
        seen = (across >= 0) & (across < 2 * columns) & (top <= bottom)
        np.add.at(ends, (top[seen], across[seen]), 1)
        np.add.at(ends, (bottom[seen] + 1, across[seen]), -1)
    dots = np.cumsum(ends, axis=0)[:-1] > 0
    blocks = dots.reshape(rows, 4, columns, 2).transpose(0, 2, 1, 3)
    cells: Cells = (blocks * _DOTS).sum(axis=(2, 3)).astype(np.uint8)
    return cells


def dot_row(level: float, y_range: tuple[float, float], rows: int) -> int:
    """The row of dots, four to a row of cells, where `level` is; the highest of the range is row 0."""
    return round((y_range[1] - level) / (y_range[1] - y_range[0]) * (4 * rows - 1))


def decimate(x: Floats, y: Floats, x_range: tuple[float, float], most: int) -> tuple[Floats, Floats]:
    """The points from `x_range` and one beyond each end; if there are many, four for each of `most` equal parts.

    These four, the first, the lowest, the highest and the last, draw what all would, where a part is no wider than a
    dot: spikes stay. What is not finite is passed over but at the ends of a part, where it parts the curve.
    """
    first, last = np.searchsorted(x, x_range[0]) - 1, np.searchsorted(x, x_range[1], "right") + 1
    x, y = x[max(0, first) : last], y[max(0, first) : last]
    if len(x) <= 4 * most:
        return x, y
    edges = np.searchsorted(x, np.linspace(*x_range, most + 1)[1:-1])
    edges = np.maximum.accumulate(np.concatenate([[0], edges, [len(x)]]))  # a damaged record may not be in order
    starts, stops = edges[:-1], edges[1:]
    starts, stops = starts[starts < stops], stops[starts < stops]
    finite = np.isfinite(y)
    known = y if finite.all() else np.where(finite, y, np.nan)
    corners = [y[starts], np.fmin.reduceat(known, starts), np.fmax.reduceat(known, starts), y[stops - 1]]
    places = [x[starts], x[starts], x[stops - 1], x[stops - 1]]
    return np.stack(places, axis=1).ravel(), np.stack(corners, axis=1).ravel()


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


def round_up(value: float) -> float:
    """The next round number, at most a quarter above; at least 1."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.2, 1.5, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 10) if value <= power * step)


def _with_columns_between(across: Floats, down: Floats, columns: int) -> tuple[Floats, Floats]:
    """The points and where their line crosses the columns of dots between them, so that no peak falls between two."""
    # By hand: numpy's own functions of sets bring in numpy.ma, which takes 50 ms.
    taken = np.zeros(columns, bool)
    exact = across[(across >= 0) & (across < columns) & (across == np.floor(across))]
    taken[exact.astype(int)] = True
    first, last = max(0, math.ceil(across[0])), min(columns - 1, math.floor(across[-1]))
    whole = first + np.flatnonzero(~taken[first : max(first, last + 1)]).astype(float)
    if not len(whole):
        return across, down
    both = np.concatenate([across, whole])
    order = np.argsort(both, kind="stable")
    return both[order], np.concatenate([down, np.interp(whole, across, down)])[order]


def _finite_stretches(x: Floats, y: Floats) -> list[npt.NDArray[np.intp]]:
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if len(finite) == 0:
        return []
    return np.split(finite, np.flatnonzero(np.diff(finite) > 1) + 1)
