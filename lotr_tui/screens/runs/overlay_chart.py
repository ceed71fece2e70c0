"""Chart with the validation curves of several runs."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from textual.strip import Strip

from engine.errors import printable
from lotr_tui.formatting import format_perplexity
from lotr_tui.monitor.run_list import ValidationCurve
from lotr_tui.widgets.charts.canvas import Canvas
from lotr_tui.widgets.charts.frame import Y_LABEL_WIDTH, LogCurve, YAxis, format_x_axis, frame_lines, perplexity_bounds
from lotr_tui.widgets.charts.perplexity_chart import MAX_PERPLEXITY_RATIO
from lotr_tui.widgets.charts.plotting import column_at, decimate
from lotr_tui.widgets.drawing import StripWidget, fit_groups

CURVE_MARKS = "123456789"
"""Marks of the curves, which also distinguish them on terminals without colour."""
BASELINE_MARK = "b"
"""Mark of the baseline, which is also the key that pins it."""
NUM_CURVE_STYLES = 5


class OverlayChart(StripWidget):
    """Validation curves over the epochs on a logarithmic axis, with a mark at the end of each curve."""

    DEFAULT_CSS = """
    OverlayChart { height: 1fr; min-height: 4; padding: 0 1; }
    OverlayChart > .overlay-chart--0 { color: $accent; }
    OverlayChart > .overlay-chart--1 { color: $success; }
    OverlayChart > .overlay-chart--2 { color: $error; }
    OverlayChart > .overlay-chart--3 { color: $foreground; }
    OverlayChart > .overlay-chart--4 { color: $secondary; }
    OverlayChart > .overlay-chart--baseline { color: $muted; }
    OverlayChart > .overlay-chart--axis { color: $muted; text-style: $muted-style; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"overlay-chart--{number}" for number in range(NUM_CURVE_STYLES)),
        "overlay-chart--baseline",
        "overlay-chart--axis",
    }

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._curves: Sequence[ValidationCurve] = ()
        self._marks: Sequence[str] = ()

    def show(self, curves: Sequence[ValidationCurve], marks: Sequence[str]) -> None:
        """Draw curves with their marks, the first one on top, and the baseline below all others."""
        self._curves, self._marks = curves, marks
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the legend, the rows with the curves, and the epochs."""
        if not self._curves:
            return []
        axis_style = self.get_component_rich_style("overlay-chart--axis")
        rows, columns = height - 2, width - Y_LABEL_WIDTH
        log_curves = [_finite_log_curve(curve) for curve in self._curves]
        bounds = [bounds for curve in log_curves if (bounds := perplexity_bounds(curve))]
        if rows < 2 or columns < 10 or not bounds:
            return [self._legend(width), Strip([Segment("" if bounds else "no evaluation yet", axis_style)])]
        lowest = min(low for low, _ in bounds)
        highest = min(max(high for _, high in bounds), MAX_PERPLEXITY_RATIO * lowest)
        y_axis = YAxis(lowest * 0.97, highest * 1.03, rows)
        x_range = (0.0, max(1.0, *(float(epochs[-1]) for epochs, _ in log_curves if len(epochs))))
        styles = self.component_styles()
        canvas = Canvas(rows, columns)
        from_below = sorted(range(len(log_curves)), key=lambda index: (self._marks[index] != BASELINE_MARK, -index))
        for index in from_below:
            epochs, log_perplexities = log_curves[index]
            if not len(epochs):
                continue
            style = _style_name(self._marks[index])
            curve = decimate(epochs, log_perplexities, x_range, 2 * columns)
            canvas.draw_curves({style: y_axis.plot(curve, x_range, columns)})
            row = y_axis.row_at(10.0 ** float(log_perplexities[-1]))
            if 0 <= row < rows and epochs[-1] >= x_range[0]:  # damaged metrics have negative epochs
                canvas.draw_text(row, column_at(float(epochs[-1]), x_range, columns), self._marks[index], style)
        x_axis = format_x_axis(x_range, columns, "epochs")
        return [self._legend(width), *frame_lines(canvas, y_axis, x_axis, styles, axis_style)]

    def _legend(self, width: int) -> Strip:
        """Return mark, name and lowest perplexity of each curve."""
        groups = [[Segment("validation perplexity", self.get_component_rich_style("overlay-chart--axis"))]]
        for mark, curve in zip(self._marks, self._curves, strict=True):
            bounds = perplexity_bounds(_finite_log_curve(curve))
            best = f" {format_perplexity(bounds[0])}" if bounds else ""
            text = f"{mark} {printable(curve.run_name)}{best}"
            groups.append([Segment(text, self.get_component_rich_style(_style_name(mark)))])
        return fit_groups(groups, width, self.rich_style)


def _style_name(mark: str) -> str:
    if mark == BASELINE_MARK:
        return "overlay-chart--baseline"
    return f"overlay-chart--{CURVE_MARKS.index(mark) % NUM_CURVE_STYLES}"


def _finite_log_curve(curve: ValidationCurve) -> LogCurve:
    """Return the epochs and base-10 logarithms of the finite perplexities."""
    known = np.isfinite(curve.perplexities) & np.isfinite(curve.epochs)
    return curve.epochs[known], np.log10(curve.perplexities[known])
