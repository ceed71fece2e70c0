"""Chart of a few perplexity curves, each named at its end, with the lines of other models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from textual.strip import Strip

from lotr_tui.formatting import format_perplexity
from lotr_tui.monitor.steps import log10_or_nan
from lotr_tui.widgets.charts.canvas import Canvas
from lotr_tui.widgets.charts.frame import Y_LABEL_WIDTH, YAxis, format_x_axis, frame_lines
from lotr_tui.widgets.charts.plotting import BrailleCells
from lotr_tui.widgets.drawing import StripWidget

BoolArray = npt.NDArray[np.bool_]
MIN_PLOT_COLUMNS = 16
VALID, TRAIN, OTHER_VALID, OTHER_TRAIN = "chart--valid", "chart--train", "chart--other-valid", "chart--other-train"
"""Styles of the curves: held-out and training text, of the live training and of another one."""


@dataclass(frozen=True)
class Curve:
    """Perplexities over the epochs."""

    name: str
    style: str
    epochs: Sequence[float]
    perplexities: Sequence[float]
    """At least one."""


@dataclass(frozen=True)
class ChartData:
    """Content of a `CurveChart`."""

    curves: tuple[Curve, ...]
    baselines: tuple[tuple[str, float], ...]
    """Names and perplexities of models that are drawn as horizontal lines."""
    num_epochs: float
    y_range: tuple[float, float]
    """Bottom and top of the logarithmic axis; it stays the same while a curve grows, so that nothing jumps.

    A curve outside runs along the bottom or the top.
    """


class CurveChart(StripWidget):
    """Curves with a logarithmic y axis, and lines of other models; the names of the curves are at the right."""

    DEFAULT_CSS = """
    CurveChart { height: 1fr; min-height: 4; padding: 0 1; }
    CurveChart > .chart--valid { color: $accent; text-style: bold; }
    CurveChart > .chart--train { color: $accent 70%; }
    CurveChart > .chart--other-valid { color: $foreground 80%; text-style: bold; }
    CurveChart > .chart--other-train { color: $foreground 60%; }
    CurveChart > .chart--baseline { color: $secondary; }
    CurveChart > .chart--axis { color: $muted; text-style: $muted-style; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        VALID, TRAIN, OTHER_VALID, OTHER_TRAIN, "chart--baseline", "chart--axis",
    }  # fmt: skip

    def __init__(self, label_width: int, *, id: str | None = None) -> None:
        """Leave `label_width` columns for the names."""
        super().__init__(id=id)
        self._label_width = label_width
        self._data: ChartData | None = None

    def show(self, data: ChartData) -> None:
        """Draw other curves."""
        self._data = data
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the rows with the curves, and the x axis."""
        data, rows, columns = self._data, height - 1, width - Y_LABEL_WIDTH
        label_width = self._label_width if columns - self._label_width >= MIN_PLOT_COLUMNS else 0
        if data is None or rows < 2 or columns < MIN_PLOT_COLUMNS:
            return []
        plot_columns = columns - label_width
        x_range, y_axis = (0.0, data.num_epochs), YAxis(*data.y_range, rows)
        cells: dict[str, BrailleCells] = {}
        for curve in data.curves:
            clipped = np.clip(np.array(curve.perplexities, float), *data.y_range)
            points = (np.array(curve.epochs, float), log10_or_nan(clipped))
            plotted = y_axis.plot(points, x_range, plot_columns)
            cells[curve.style] = np.pad(plotted, ((0, 0), (0, label_width)))
        canvas = Canvas(rows, columns)
        occupied = np.zeros((rows, plot_columns), bool)
        for plotted in cells.values():
            occupied |= plotted[:, :plot_columns] > 0
        self._draw_baselines(canvas, y_axis, occupied)
        canvas.draw_curves(cells)
        if label_width:
            self._draw_labels(canvas, y_axis, plot_columns)
        styles = self.component_styles()
        axis = format_x_axis(x_range, plot_columns, "epochs")
        return frame_lines(canvas, y_axis, axis, styles, styles["chart--axis"])

    def _draw_baselines(self, canvas: Canvas, y_axis: YAxis, occupied: BoolArray) -> None:
        """Draw the lines of the other models; `occupied` `[rows, columns]` is True where a curve is."""
        assert self._data is not None
        for name, perplexity in self._data.baselines:
            if y_axis.low <= perplexity <= y_axis.high:
                row = y_axis.row_at(perplexity)
                line = _labelled_line(f" {name} {format_perplexity(perplexity)} ", occupied[row])
                canvas.draw_text(row, 0, line, "chart--baseline")

    def _draw_labels(self, canvas: Canvas, y_axis: YAxis, column: int) -> None:
        """Write name and value of each curve, the highest first, in the row of its end or in the next free one."""
        assert self._data is not None
        ends = [(curve.perplexities[-1], curve) for curve in self._data.curves]
        ends = sorted((end for end in ends if not math.isnan(end[0])), key=lambda end: -end[0])
        free_row, rows = 0, canvas.rows
        for place, (perplexity, curve) in enumerate(ends):
            row = y_axis.row_at(min(max(perplexity, y_axis.low), y_axis.high))
            row = min(max(row, free_row), rows - (len(ends) - place))
            if row >= free_row:
                canvas.draw_text(row, column + 1, f"{curve.name} {format_perplexity(perplexity)}", curve.style)
                free_row = row + 1


def _labelled_line(label: str, occupied: BoolArray) -> str:
    """Return a dotted line with a label where no curve crosses it: at the left, or else as far right as possible.

    `occupied` `[columns]` is True for each column of the row that a curve crosses.
    """
    columns = len(occupied)
    starts: list[int] = [2, *range(columns - len(label) - 2, -1, -1)]
    for start in starts:
        if not occupied[start : start + len(label)].any():
            return ("┄" * start + label).ljust(columns, "┄")[:columns]
    return "┄" * columns
