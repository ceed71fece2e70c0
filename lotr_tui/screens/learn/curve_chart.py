"""Chart of a few perplexity curves, each named at its end, with the lines of other models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from textual.strip import Strip

from lotr_tui.formatting import format_perplexity
from lotr_tui.monitor.steps import log10_or_nan
from lotr_tui.widgets.charts import Y_LABEL_WIDTH, LogCurve, Plot
from lotr_tui.widgets.drawing import StripWidget

LABEL_WIDTH, MIN_PLOT_COLUMNS = 23, 16
VALID, TRAIN, OTHER_VALID, OTHER_TRAIN = "chart--valid", "chart--train", "chart--other-valid", "chart--other-train"
"""Styles of the curves: held-out and training text, of the live training and of another one."""


@dataclass(frozen=True)
class Curve:
    """Perplexities over the epochs; at least one."""

    name: str
    style: str
    epochs: Sequence[float]
    perplexities: Sequence[float]


@dataclass(frozen=True)
class ChartData:
    """Content of a `CurveChart`: curves, and names and perplexities of models that are horizontal lines.

    The logarithmic axis from `y_range[0]` to `y_range[1]` stays the same while a curve grows, so that nothing jumps. A
    curve outside runs along the bottom or the top.
    """

    curves: tuple[Curve, ...]
    baselines: tuple[tuple[str, float], ...]
    num_epochs: float
    y_range: tuple[float, float]


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

    _data: ChartData | None = None

    def show(self, data: ChartData) -> None:
        """Draw other curves."""
        self._data = data
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the rows with the curves, and the x axis."""
        data, columns = self._data, width - Y_LABEL_WIDTH
        if data is None or height < 3 or columns < MIN_PLOT_COLUMNS:
            return []
        margin = LABEL_WIDTH if columns - LABEL_WIDTH >= MIN_PLOT_COLUMNS else 0
        plot = Plot(width, height, (0.0, data.num_epochs), data.y_range, margin=margin)
        curves: dict[str, LogCurve] = {}
        for curve in data.curves:
            clipped = np.clip(np.array(curve.perplexities, float), *data.y_range)
            curves[curve.style] = np.array(curve.epochs, float), log10_or_nan(clipped)
        plot.draw(curves, [(f"{name} {format_perplexity(value)}", value) for name, value in data.baselines])
        if margin:
            self._draw_labels(plot, data, columns - margin + 1)
        return plot.lines(self.component_styles())

    def _draw_labels(self, plot: Plot, data: ChartData, column: int) -> None:
        ends = [(curve.perplexities[-1], curve) for curve in data.curves]
        ends = sorted((end for end in ends if not math.isnan(end[0])), key=lambda end: -end[0])
        free_row = 0
        for place, (perplexity, curve) in enumerate(ends):
            row = plot.row_at(min(max(perplexity, data.y_range[0]), data.y_range[1]))
            row = min(max(row, free_row), plot.rows - (len(ends) - place))
            if row >= free_row:
                text = f"{curve.name} {format_perplexity(perplexity)}"
                plot.draw_text(row, column, text.ljust(LABEL_WIDTH - 1), curve.style)
                free_row = row + 1
