"""Perplexity as a training goes on, with the lines to beat.

Our own drawing: a redraw costs some 3 ms, where the plotting widgets at hand take 50 to 90, which while a
training goes on is felt in every key.
"""

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from lotr_tui.formatting import duration, perplexity
from lotr_tui.monitor.smoothing import WILD, Smoothed, log10
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.charts.axes import FIELDS, ChartAxes
from lotr_tui.widgets.charts.canvas import Canvas
from lotr_tui.widgets.charts.plotting import Floats, decimate, dot_row, draw_curve, linear_ticks, log_ticks, round_up
from lotr_tui.widgets.drawing import Drawing

SMOOTHING = 0.85
"""Of the train curve: the share of the old mean in each new one."""
LABEL_WIDTH = 6
"""Columns of the values of the axis."""
Curve = tuple[Floats, Floats]
"""Places, and base-10 logarithms of perplexities."""


class PerplexityChart(Drawing):
    """A legend with the latest figures, the curves, and the epochs under them."""

    DEFAULT_CSS = """
    PerplexityChart { height: 1fr; min-height: 5; padding: 0 1; }
    PerplexityChart > .chart--valid { color: $accent; }
    PerplexityChart > .chart--train { color: $foreground 70%; }
    PerplexityChart > .chart--raw { color: $foreground 50%; text-style: dim; }
    PerplexityChart > .chart--level { color: $secondary; }
    PerplexityChart > .chart--axis { color: $foreground 60%; }
    PerplexityChart > .chart--cursor { color: $accent 60%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chart--valid",
        "chart--train",
        "chart--raw",
        "chart--level",
        "chart--axis",
        "chart--cursor",
    }

    name_within: ClassVar[int] = 6
    """Columns from the right in which there must be room for the name of the x axis, or it has none."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.axes = ChartAxes()
        self._view = TrainingView()
        self._smoothed = Smoothed(SMOOTHING)

    def keep_up(self, view: TrainingView) -> None:
        """Take in the reports that are new, though nothing is drawn yet: of a long run they are many."""
        self._smoothed.of(view.steps)

    def show(self, view: TrainingView) -> None:
        """Draw `view`."""
        self._view = view
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        """The legend, the curves with their axis, and what runs along."""
        view, rows, columns = self._view, height - 2, width - LABEL_WIDTH
        legend = Strip(self._legend(width))
        if rows < 2 or columns < 10 or not view.evaluations:
            return [legend, *self._nothing_yet()]
        x_range = self.part
        curves = {"chart--raw": self._raw_curve(x_range, columns)} | self._means(x_range, columns)
        low, high = self._range(curves)
        y_range = (self._level(low), self._level(high))
        patterns = {
            style: draw_curve(x, y if self.axes.logarithmic else 10.0**y, x_range, y_range, rows, columns)
            for style, (x, y) in curves.items()
        }
        canvas = Canvas(rows, columns)
        self._mark_place(canvas, x_range)

        def row_of(level: float) -> int:
            return dot_row(self._level(level), y_range, rows) // 4

        for name, level in self._levels():
            if low <= level <= high:
                row = row_of(level)
                taken = np.logical_or.reduce([pattern[row] > 0 for pattern in patterns.values()])
                canvas.level(row, name, "chart--level", taken)
        canvas.curves({"chart--raw": patterns.pop("chart--raw")})
        canvas.curves(patterns)
        best = view.best
        if best is not None and low <= best.valid_perplexity <= high:
            place = getattr(best, FIELDS[self.axes.along])
            if x_range[0] <= place <= x_range[1]:
                canvas.put(row_of(best.valid_perplexity), column_of(place, x_range, columns), "●", "chart--valid")
        self._name_curves(canvas, patterns)
        ticks = (log_ticks if self.axes.logarithmic else linear_ticks)(low, high, max(2, rows // 3))
        labels = {row_of(tick): _tick(tick) for tick in ticks}
        styles = self._styles()
        lines = [
            Strip(
                [
                    Segment(f"{labels.get(row, ''):>{LABEL_WIDTH - 2}} ", styles["chart--axis"]),
                    Segment("┤" if row in labels else "│", styles["chart--axis"]),
                    *canvas.row(row, styles),
                ]
            )
            for row in range(rows)
        ]
        axis = Segment(" " * (LABEL_WIDTH - 1) + self._axis(x_range, columns), styles["chart--axis"])
        return [legend, *lines, Strip([axis])]

    # What is seen

    @property
    def whole(self) -> float:
        """Where all of the curve ends: at the planned end, or rounded up so that it seldom changes."""
        if self.axes.along == "epoch":
            return float(max(1, self._view.epochs if self._view.active else math.ceil(self._view.epoch)))
        return round_up(self.latest)

    @property
    def latest(self) -> float:
        """How far the curve goes."""
        view = self._view
        return {"epoch": view.epoch, "update": float(view.step), "time": view.seconds}[self.axes.along]

    @property
    def part(self) -> tuple[float, float]:
        """The part that is seen."""
        return self.axes.part(self.whole, self.latest)

    def _level(self, level: float) -> float:
        return math.log10(level) if self.axes.logarithmic else level

    def _raw_curve(self, x_range: tuple[float, float], columns: int) -> Curve:
        """The train perplexity as it is; here it is not shown."""
        return np.empty(0), np.empty(0)

    def _means(self, x_range: tuple[float, float], columns: int) -> dict[str, Curve]:
        """The train perplexity, smoothed, and that of validation."""
        steps, field = self._view.steps, FIELDS[self.axes.along]
        evaluations = self._view.evaluations
        places = np.array([getattr(event, field) for event in evaluations], float)
        valid = log10(np.array([event.valid_perplexity for event in evaluations], float))
        return {
            "chart--train": decimate(steps.column(field), self._smoothed.of(steps), x_range, 2 * columns),
            "chart--valid": decimate(places, valid, x_range, 2 * columns),
        }

    def _range(self, curves: dict[str, Curve]) -> tuple[float, float]:
        """From under the lowest to above the highest of all that is to be seen; a wild start is cut off."""
        levels = [level for _, level in self._levels()]
        valid, train = known(curves["chart--valid"]), known(curves["chart--train"])
        both = [*levels, *valid, *train]
        lowest = min(both, default=1.0)
        highest = max([*levels, min(max(valid, default=lowest), 8 * lowest)])
        return lowest * 0.94, highest * 1.06

    def _levels(self) -> list[tuple[str, float]]:
        started = self._view.started
        if started is None:
            return []
        both = [("unigram", started.unigram_perplexity), ("Kneser-Ney", started.kneser_ney_perplexity)]
        return [(name, level) for name, level in both if 0 < level < WILD]

    # What the dashboard adds

    def _nothing_yet(self) -> list[Strip]:
        """What stands here before there is a curve."""
        return []

    def _mark_place(self, canvas: Canvas, x_range: tuple[float, float]) -> None:
        """Under everything."""

    def _name_curves(self, canvas: Canvas, patterns: dict[str, npt.NDArray[np.uint8]]) -> None:
        """On top of them."""

    # Words and numbers

    def _styles(self) -> dict[str, Style]:
        return {name: self.get_component_rich_style(name) for name in self.COMPONENT_CLASSES} | {"": self.rich_style}

    def _figures(self) -> list[tuple[str, str, str]]:
        """Style, name and value of the latest figures, the most telling first."""
        view = self._view
        figures: list[tuple[str, str, str]] = []
        if view.evaluations and (best := view.best) is not None:
            figures.append(("chart--valid", "━ valid", perplexity(view.evaluations[-1].valid_perplexity)))
            figures.append(("chart--valid", "● best", perplexity(best.valid_perplexity)))
        if view.started:
            figures.append(("chart--level", "┄ Kneser-Ney", perplexity(view.started.kneser_ney_perplexity)))
        if (step := view.steps.last) is not None:
            figures.append(("chart--train", "━ train", perplexity(step.train_perplexity)))
        if view.started:
            figures.append(("chart--level", "┄ unigram", perplexity(view.started.unigram_perplexity)))
        return figures

    def _legend(self, width: int) -> list[Segment]:
        """As many of the figures as fit."""
        segments: list[Segment] = []
        used = 0
        for style, name, value in self._figures():
            text, number = f"{name} ", f"{value}   "
            if used + len(text) + len(number) - 3 > width:
                break
            used += len(text) + len(number)
            segments += [Segment(text, self.get_component_rich_style(style)), Segment(number, self.rich_style)]
        return segments

    def _axis(self, x_range: tuple[float, float], columns: int) -> str:
        """What runs along, each number centred under its place."""
        line = [" "] * (columns + 1)
        along = self.axes.along
        for tick in linear_ticks(*x_range, max(2, columns // (10 if along == "epoch" else 16))):
            text = duration(tick) if along == "time" else _number(tick)
            place = column_of(tick, x_range, columns) + 1 - len(text) // 2
            place = min(max(0, place), len(line) - len(text))
            line[place : place + len(text)] = text
        name = {"epoch": "epochs", "update": "updates", "time": "time"}[along]
        room = len(name) + 2
        for start in range(len(line) - room - 5, len(line) - room - self.name_within, -1):  # apart from the numbers
            if not "".join(line[max(0, start - 1) : start + room]).strip():
                line[start + 1 : start + 1 + len(name)] = name
                break
        return "".join(line)


def column_of(place: float, x_range: tuple[float, float], columns: int) -> int:
    """Where among the columns of the picture a place is."""
    return round((place - x_range[0]) / (x_range[1] - x_range[0]) * (columns - 1))


def known(curve: Curve) -> list[float]:
    """The curve's lowest and highest perplexity, if there are any."""
    levels = curve[1][np.isfinite(curve[1])]
    return [10.0 ** float(levels.min()), 10.0 ** float(levels.max())] if len(levels) else []


def _number(value: float) -> str:
    """A tick of the x axis: 5, 2.5, 12,000, 3M."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value:,.0f}" if value >= 10_000 else f"{value:.6g}"


def _tick(level: float) -> str:
    """A tick of the y axis, in four columns."""
    if level >= 10_000:
        return f"{level / 1000:.0f}k" if level < 1e6 else f"{level:.0e}".replace("e+0", "e")
    return f"{level:,.0f}" if level == round(level) or level >= 100 else f"{level:.4g}"
