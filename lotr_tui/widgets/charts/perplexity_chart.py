"""Chart of the training and validation perplexity with the baselines.

The chart draws itself, because a redraw then takes 3 ms; the available plotting widgets take 50 to 90 ms, which delays
keys during a training.
"""

import math
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from textual.strip import Strip

from lotr_tui.formatting import format_duration
from lotr_tui.monitor.steps import MAX_PERPLEXITY, SmoothedPerplexity, log10_or_nan
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.charts.axes import X_AXIS_FIELDS, ChartAxes
from lotr_tui.widgets.charts.canvas import Canvas
from lotr_tui.widgets.charts.frame import Y_LABEL_WIDTH, LogCurve, YAxis, format_x_axis, frame_lines, perplexity_bounds
from lotr_tui.widgets.charts.plotting import BrailleCells, column_at, column_means, decimate, nice_ceiling
from lotr_tui.widgets.drawing import StripWidget, fit_groups

DEFAULT_SMOOTHING = 0.85
"""Decay of the moving average over the training perplexity."""
MAX_PERPLEXITY_RATIO = 8.0
"""Ratio of the top of the y axis to the lowest perplexity; higher values, at the start of a training, are cut off."""


class PerplexityChart(StripWidget):
    """Legend with the latest figures, curves with the y axis, and the x axis."""

    DEFAULT_CSS = """
    PerplexityChart { height: 1fr; min-height: 5; padding: 0 1; }
    PerplexityChart > .chart--valid { color: $accent; }
    PerplexityChart > .chart--train { color: $foreground 70%; }
    PerplexityChart > .chart--baseline { color: $secondary; }
    PerplexityChart > .chart--axis { color: $muted; text-style: $muted-style; }
    PerplexityChart > .chart--cursor { color: $accent 60%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chart--valid",
        "chart--train",
        "chart--baseline",
        "chart--axis",
        "chart--cursor",
    }

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.axes = ChartAxes()
        self._view = TrainingView()
        self._smoothed_train = SmoothedPerplexity(DEFAULT_SMOOTHING)

    def update_smoothing(self, view: TrainingView) -> None:
        """Smooth the new steps without drawing; a long run has many of them."""
        self._smoothed_train.compute(view.steps)

    def show(self, view: TrainingView) -> None:
        """Draw the curves of `view`."""
        self._view = view
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the legend, the rows with the curves, and the x axis."""
        legend = [self._legend(width)]
        unit = self._view.unit
        if not unit.is_perplexity:  # the name of the unit has its own line, which leaves the figures their room
            legend.insert(0, Strip([Segment(unit.title, self.get_component_rich_style("chart--axis"))]))
        rows, columns = height - 1 - len(legend), width - Y_LABEL_WIDTH
        if rows < 2 or columns < 10 or not self._view.evaluations:
            return [*legend, *self._empty_lines()]
        x_range = self.x_range
        curves = self._smoothed_curves(x_range, columns)
        y_axis = YAxis(*self._y_range(curves), rows, self.axes.log_scale, unit)
        cells = {style: y_axis.plot(curve, x_range, columns) for style, curve in curves.items()}
        canvas = Canvas(rows, columns)
        self._draw_cursor(canvas, x_range)
        self._draw_baselines(canvas, y_axis, cells)
        canvas.draw_curves(cells)
        self._draw_best(canvas, y_axis, x_range)
        self._label_curves(canvas, cells)
        styles = self.component_styles()
        x_axis = self._x_axis(x_range, columns)
        return [*legend, *frame_lines(canvas, y_axis, x_axis, styles, styles["chart--axis"])]

    # Ranges and curves

    @property
    def x_end(self) -> float:
        """End of the complete x axis: the planned end, or the latest position rounded up so that it changes rarely."""
        if self.axes.x_axis == "epoch":
            return float(max(1, self._view.epochs if self._view.is_active else math.ceil(self._view.epoch)))
        return nice_ceiling(self.x_latest)

    @property
    def x_latest(self) -> float:
        """Position of the latest value."""
        view = self._view
        return {"epoch": view.epoch, "step": float(view.step), "time": view.seconds}[self.axes.x_axis]

    @property
    def x_range(self) -> tuple[float, float]:
        """Visible range of the x axis."""
        return self.axes.x_range(self.x_end, self.x_latest)

    def _smoothed_curves(self, x_range: tuple[float, float], columns: int) -> dict[str, LogCurve]:
        """Return the smoothed training perplexity, with one point per column, and the validation perplexity."""
        steps, field = self._view.steps, X_AXIS_FIELDS[self.axes.x_axis]
        evaluations = self._view.evaluations
        x = np.array([getattr(event, field) for event in evaluations], float)
        valid = log10_or_nan(np.array([event.valid_perplexity for event in evaluations], float))
        return {
            "chart--train": column_means(steps.column(field), self._smoothed_train.compute(steps), x_range, columns),
            "chart--valid": decimate(x, valid, x_range, 2 * columns),
        }

    def _y_range(self, curves: dict[str, LogCurve]) -> tuple[float, float]:
        """Return the bottom and the top of the y axis, with a margin around curves and baselines."""
        baselines = [perplexity for _, perplexity in self._baselines()]
        valid, train = perplexity_bounds(curves["chart--valid"]), perplexity_bounds(curves["chart--train"])
        lowest = min([*baselines, *valid, *train], default=1.0)
        highest = max([*baselines, min(max(valid, default=lowest), MAX_PERPLEXITY_RATIO * lowest)])
        return lowest * 0.94, highest * 1.06

    def _baselines(self) -> list[tuple[str, float]]:
        started = self._view.started
        if started is None:
            return []
        both = [("unigram", started.unigram_perplexity), ("Kneser-Ney", started.kneser_ney_perplexity)]
        return [(name, perplexity) for name, perplexity in both if 0 < perplexity < MAX_PERPLEXITY]

    # Drawing

    def _draw_baselines(self, canvas: Canvas, y_axis: YAxis, cells: dict[str, BrailleCells]) -> None:
        for name, perplexity in self._baselines():
            if y_axis.low <= perplexity <= y_axis.high:
                row = y_axis.row_at(perplexity)
                occupied = np.logical_or.reduce([curve[row] > 0 for curve in cells.values()])
                canvas.draw_horizontal_line(row, name, "chart--baseline", occupied)

    def _draw_best(self, canvas: Canvas, y_axis: YAxis, x_range: tuple[float, float]) -> None:
        best = self._view.best
        if best is None or not y_axis.low <= best.valid_perplexity <= y_axis.high:
            return
        x = getattr(best, X_AXIS_FIELDS[self.axes.x_axis])
        if x_range[0] <= x <= x_range[1]:
            row = y_axis.row_at(best.valid_perplexity)
            canvas.draw_text(row, column_at(x, x_range, canvas.columns), "●", "chart--valid")

    def _empty_lines(self) -> list[Strip]:
        """Return the lines below the legend while there is no curve."""
        return []

    def _draw_cursor(self, canvas: Canvas, x_range: tuple[float, float]) -> None:
        """Draw a cursor below the curves; this chart has none."""

    def _label_curves(self, canvas: Canvas, cells_by_style: dict[str, BrailleCells]) -> None:
        """Draw labels over the curves; this chart has none."""

    # Legend and x axis

    def _legend_entries(self) -> list[tuple[str, str, str]]:
        """Return style, name and value of the latest figures, the most important first."""
        view = self._view
        unit = view.unit
        entries = [("chart--axis", unit.name, "")] if unit.is_perplexity else []
        if view.evaluations and (best := view.best) is not None:
            entries.append(("chart--valid", "━ valid", unit.format(view.evaluations[-1].valid_perplexity)))
            entries.append(("chart--valid", "● best", unit.format(best.valid_perplexity)))
        if view.started:
            entries.append(("chart--baseline", "┄ Kneser-Ney", unit.format(view.started.kneser_ney_perplexity)))
        if (step := view.steps.last) is not None:
            entries.append(("chart--train", "━ train", unit.format(step.train_perplexity)))
        if view.started:
            entries.append(("chart--baseline", "┄ unigram", unit.format(view.started.unigram_perplexity)))
        return entries

    def _legend(self, width: int) -> Strip:
        groups = (
            [Segment(f"{name} ", self.get_component_rich_style(style)), Segment(value, self.rich_style)]
            for style, name, value in self._legend_entries()
        )
        return fit_groups(groups, width, self.rich_style)

    def _x_axis(self, x_range: tuple[float, float], columns: int) -> str:
        x_axis = self.axes.x_axis
        return format_x_axis(
            x_range,
            columns,
            {"epoch": "epochs", "step": "steps", "time": "time"}[x_axis],
            format_tick=format_duration if x_axis == "time" else None,
            tick_width=10 if x_axis == "epoch" else 16,
        )
