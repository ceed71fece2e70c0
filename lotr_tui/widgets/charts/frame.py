"""Axes and legend around a chart of perplexities."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from engine.data.arrays import Float64Array
from lotr_tui.monitor.training_log import PERPLEXITY, LossUnit
from lotr_tui.widgets.charts.canvas import Canvas
from lotr_tui.widgets.charts.plotting import (
    MIN_TICKS,
    BrailleCells,
    braille_curve,
    column_at,
    dot_row,
    linear_ticks,
    log_ticks,
)

Y_LABEL_WIDTH = 6
"""Columns to the left of the canvas: labels of the y axis and its line."""
LogCurve = tuple[Float64Array, Float64Array]
"""Positions `[points]` and base-10 logarithms of perplexities `[points]`."""


@dataclass(frozen=True)
class YAxis:
    """Perplexity axis from `low` to `high` over a number of rows."""

    low: float
    high: float
    rows: int
    log_scale: bool = True
    unit: LossUnit = PERPLEXITY
    """Unit of the labels; bits per character are even on the logarithmic scale."""

    @property
    def _range(self) -> tuple[float, float]:
        return self._scale(self.low), self._scale(self.high)

    def _scale(self, perplexity: float) -> float:
        return math.log10(perplexity) if self.log_scale else perplexity

    def row_at(self, perplexity: float) -> int:
        """Return the row of a perplexity; outside the axis, a row that is not on the canvas."""
        return dot_row(self._scale(perplexity), self._range, self.rows) // 4

    def plot(self, curve: LogCurve, x_range: tuple[float, float], columns: int) -> BrailleCells:
        """Return the cells of a curve."""
        x, log_perplexities = curve
        y = log_perplexities if self.log_scale else 10.0**log_perplexities
        return braille_curve(x, y, x_range, self._range, self.rows, columns)

    def labels(self) -> dict[int, str]:
        """Return the tick labels by row."""
        choose_ticks = log_ticks if self.log_scale and self.unit.is_perplexity else linear_ticks
        low, high = self.unit.value(self.low), self.unit.value(self.high)
        ticks = choose_ticks(low, high, max(MIN_TICKS, self.rows // 3))
        return {self.row_at(self.unit.perplexity(tick)): _format_y_tick(tick) for tick in ticks}


def frame_lines(canvas: Canvas, y_axis: YAxis, x_axis: str, styles: dict[str, Style], axis_style: Style) -> list[Strip]:
    """Return the rows of the canvas with the y axis to the left and the x axis below."""
    labels = y_axis.labels()
    lines = []
    for row in range(canvas.rows):
        axis = f"{labels.get(row, ''):>{Y_LABEL_WIDTH - 2}} {'┤' if row in labels else '│'}"
        lines.append(Strip([Segment(axis, axis_style), *canvas.render_row(row, styles)]))
    return [*lines, Strip([Segment(x_axis, axis_style)])]


def format_x_axis(
    x_range: tuple[float, float],
    columns: int,
    name: str,
    *,
    format_tick: Callable[[float], str] | None = None,
    tick_width: int = 10,
) -> str:
    """Return the line below the canvas: tick labels centred under their positions, and the name of the axis.

    A tick takes at least `tick_width` columns, and `format_tick` returns its label (None: a number). The name is as far
    to the right as there is room; if there is none, every other tick is left out.
    """
    ticks = linear_ticks(*x_range, max(MIN_TICKS, columns // tick_width))
    line: list[str] = []
    for shown in (ticks, ticks[::2]):
        line = [" "] * (columns + 1)
        for tick in shown:
            label = (format_tick or _format_x_tick)(tick)
            start = column_at(tick, x_range, columns) + 1 - len(label) // 2
            start = min(max(0, start), len(line) - len(label))
            line[start : start + len(label)] = label
        if _insert_name(line, name):
            break
    return " " * (Y_LABEL_WIDTH - 1) + "".join(line)


def _insert_name(line: list[str], name: str) -> bool:
    """Write a name with a space on both sides into an empty part of a line; return False if there is none."""
    room = len(name) + 2
    for start in range(len(line) - room - 5, -1, -1):
        if not "".join(line[start : start + room]).strip():
            line[start + 1 : start + 1 + len(name)] = name
            return True
    return False


def perplexity_bounds(curve: LogCurve) -> list[float]:
    """Return the lowest and the highest perplexity of a curve, or an empty list if no value is finite."""
    finite = curve[1][np.isfinite(curve[1])]
    return [10.0 ** float(finite.min()), 10.0 ** float(finite.max())] if len(finite) else []


def _format_x_tick(value: float) -> str:
    """Return a tick label such as 5, 2.5, 12,000 or 3M."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value:,.0f}" if value >= 10_000 else f"{value:.6g}"


def _format_y_tick(value: float) -> str:
    """Return a tick label of at most four columns, if possible."""
    if value >= 10_000:
        return f"{value / 1000:.0f}k" if value < 1e6 else f"{value:.0e}".replace("e+0", "e")
    return f"{value:.0f}" if value == round(value) or value >= 100 else f"{value:.4g}"
