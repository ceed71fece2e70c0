"""Pure functions for charts: braille curves, positions of values, decimation and round values for axes."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float64Array

BrailleCells = npt.NDArray[np.uint8]
"""Bits of the braille dots that are set, `[rows, columns]`; 0 is an empty cell."""

MIN_TICKS = 3
"""Number of ticks that an axis needs to show its scale."""
MAX_DOT_DISTANCE = 1e6
"""Largest distance from the picture in rows of dots; larger distances are clipped, which draws the same lines."""
# Bit of each dot in a cell, `[4 rows, 2 columns]` (Unicode block "Braille Patterns").
_DOT_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)


def braille_curve(
    x: Float64Array,
    y: Float64Array,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    rows: int,
    columns: int,
) -> BrailleCells:
    """Return the cells `[rows, columns]` of a curve with straight lines between its points.

    The positions `x` `[points]` are in ascending order; equal positions make a vertical line. Values `y` `[points]`
    that are not finite interrupt the curve. Parts outside the ranges are not drawn.
    """
    # Each dot column of the curve is a vertical run; +1 at its top and -1 below its bottom, summed over the rows.
    ends = np.zeros((4 * rows + 1, 2 * columns))
    left, right = x_range
    with np.errstate(over="ignore"):  # an overflow is far outside the picture
        dot_x = (x - left) / (right - left) * (2 * columns - 1)
    dot_y = np.clip((y_range[1] - y) / (y_range[1] - y_range[0]) * (4 * rows - 1), -MAX_DOT_DISTANCE, MAX_DOT_DISTANCE)
    for points in _finite_runs(dot_x, dot_y):
        line_x, line_y = insert_column_crossings(dot_x[points], dot_y[points], 2 * columns)
        dot_columns = np.rint(np.clip(line_x, -1, 2 * columns)).astype(int)
        dot_rows = np.rint(line_y).astype(int)
        previous = np.concatenate([dot_rows[:1], dot_rows[:-1]])
        # Each run starts next to the previous dot, which is part of the previous run.
        top = np.maximum(np.where(dot_rows > previous, previous + 1, dot_rows), 0)
        bottom = np.where(dot_rows > previous, dot_rows, np.maximum(dot_rows, previous - 1))
        bottom = np.minimum(bottom, 4 * rows - 1)
        visible = (dot_columns >= 0) & (dot_columns < 2 * columns) & (top <= bottom)
        np.add.at(ends, (top[visible], dot_columns[visible]), 1)
        np.add.at(ends, (bottom[visible] + 1, dot_columns[visible]), -1)
    dots = np.cumsum(ends, axis=0)[:-1] > 0
    blocks = dots.reshape(rows, 4, columns, 2).transpose(0, 2, 1, 3)
    cells: BrailleCells = (blocks * _DOT_BITS).sum(axis=(2, 3)).astype(np.uint8)
    return cells


def dot_row(y: float, y_range: tuple[float, float], rows: int) -> int:
    """Return the row of dots of value `y`, four per row of cells; row 0 is the top of the range."""
    return round((y_range[1] - y) / (y_range[1] - y_range[0]) * (4 * rows - 1))


def column_at(x: float, x_range: tuple[float, float], columns: int) -> int:
    """Return the column of cells of position `x`."""
    return round((x - x_range[0]) / (x_range[1] - x_range[0]) * (columns - 1))


def decimate(
    x: Float64Array, y: Float64Array, x_range: tuple[float, float], max_buckets: int
) -> tuple[Float64Array, Float64Array]:
    """Return the points in `x_range` and one beyond each end, reduced if there are more than 4 * `max_buckets`.

    The range is divided into buckets of equal width, and each bucket keeps its first, lowest, highest and last value.
    With buckets no wider than a dot the drawing is the same, and spikes stay visible. Values that are not finite are
    kept only as the first or last value of a bucket, where they interrupt the curve.
    """
    first, last = np.searchsorted(x, x_range[0]) - 1, np.searchsorted(x, x_range[1], "right") + 1
    x, y = x[max(0, first) : last], y[max(0, first) : last]
    if len(x) <= 4 * max_buckets:
        return x, y
    edges = np.searchsorted(x, np.linspace(*x_range, max_buckets + 1)[1:-1])
    edges = np.maximum.accumulate(np.concatenate([[0], edges, [len(x)]]))  # damaged metrics may be out of order
    starts, stops = edges[:-1], edges[1:]
    starts, stops = starts[starts < stops], stops[starts < stops]
    finite = np.isfinite(y)
    known = y if finite.all() else np.where(finite, y, np.nan)
    bucket_y = [y[starts], np.fmin.reduceat(known, starts), np.fmax.reduceat(known, starts), y[stops - 1]]
    bucket_x = [x[starts], x[starts], x[stops - 1], x[stops - 1]]
    return np.stack(bucket_x, axis=1).ravel(), np.stack(bucket_y, axis=1).ravel()


def column_means(
    x: Float64Array, y: Float64Array, x_range: tuple[float, float], columns: int
) -> tuple[Float64Array, Float64Array]:
    """Return the mean of the finite points in each column, and one point beyond each end: a line instead of a band."""
    first, last = np.searchsorted(x, x_range[0]) - 1, np.searchsorted(x, x_range[1], "right") + 1
    x, y = x[max(0, first) : last], y[max(0, first) : last]
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) <= columns:
        return x, y
    cells = np.floor((x - x_range[0]) / (x_range[1] - x_range[0]) * columns).astype(int)
    starts = np.flatnonzero(np.diff(cells, prepend=cells[0] - 1))
    counts = np.diff(starts, append=len(x))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def linear_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """Return evenly spaced round values from `low` to `high`.

    There are at most `max_ticks` values, but three to seven where fewer would be left.
    """
    if not high > low or max_ticks < 1:
        return []
    power = 10.0 ** math.floor(math.log10(high - low))
    steps = [power * multiple for multiple in (10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)]
    return _choose_ticks([_multiples(step, low, high) for step in steps], max_ticks)


def log_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """Return round values from `low` to `high` for a logarithmic axis, as many as `linear_ticks` does.

    The values are 1, 2 and 5 times powers of ten; fewer multiples over a wide range; and evenly spaced values over a
    narrow range.
    """
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [
        [
            10.0**exponent * multiple
            for exponent in exponents
            for multiple in multiples
            if exponent % every == 0 and low <= 10.0**exponent * multiple <= high
        ]
        for every, multiples in ((4, (1,)), (2, (1,)), (1, (1,)), (1, (1, 3)), (1, (1, 2, 5)))
    ]
    if len(choices[-1]) < 4 and high / low <= 10:
        return linear_ticks(low, high, max_ticks)
    return _choose_ticks(choices, max_ticks)


def _choose_ticks(choices: Sequence[list[float]], max_ticks: int) -> list[float]:
    """Return the longest of the choices, sorted from few to many ticks, that has at most `max_ticks` ticks.

    If it has fewer than three ticks, return the first choice with three.
    """
    fitting = [ticks for ticks in choices if len(ticks) <= max_ticks]
    if fitting and len(fitting[-1]) >= MIN_TICKS:
        return fitting[-1]
    return next((ticks for ticks in choices if len(ticks) >= MIN_TICKS), choices[-1])


def _multiples(step: float, low: float, high: float) -> list[float]:
    """Return the multiples of `step` from `low` to `high`."""
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def nice_ceiling(value: float) -> float:
    """Return the next round number, at most a quarter above `value` and at least 1."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.2, 1.5, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 10) if value <= power * step)


def insert_column_crossings(x: Float64Array, y: Float64Array, columns: int) -> tuple[Float64Array, Float64Array]:
    """Return the points, with the points added where the line crosses one of `columns` columns of dots.

    The positions `x` `[points]` are in columns of dots, in ascending order.
    """
    # numpy's set functions would import numpy.ma, which takes 50 ms.
    has_point = np.zeros(columns, bool)
    exact = x[(x >= 0) & (x < columns) & (x == np.floor(x))]
    has_point[exact.astype(int)] = True
    first, last = max(0, math.ceil(x[0])), min(columns - 1, math.floor(x[-1]))
    crossings = first + np.flatnonzero(~has_point[first : max(first, last + 1)]).astype(float)
    if not len(crossings):
        return x, y
    all_x = np.concatenate([x, crossings])
    order = np.argsort(all_x, kind="stable")
    return all_x[order], np.concatenate([y, np.interp(crossings, x, y)])[order]


def _finite_runs(x: Float64Array, y: Float64Array) -> list[npt.NDArray[np.intp]]:
    """Return the indices of each run of points that are finite."""
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if len(finite) == 0:
        return []
    return np.split(finite, np.flatnonzero(np.diff(finite) > 1) + 1)
