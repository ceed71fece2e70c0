"""Perplexity against epochs on a log axis, with the lines to beat.

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

from lotr_tui.training_view import TrainingView
from lotr_tui.widgets.drawing import Drawing
from lotr_tui.widgets.plotting import DOTTED, Cells, Floats, dot_row, draw_curve, linear_ticks, log_ticks, thin_out

MOST_POINTS = 800
SMOOTHING = 0.85
"""Of the train curve: the share of the old mean in each new one."""
LABEL_WIDTH = 6
"""Columns of the values of the axis."""


class PerplexityChart(Drawing):
    """A legend with the latest figures, the curves, and the epochs under them."""

    DEFAULT_CSS = """
    PerplexityChart { height: 1fr; min-height: 5; padding: 0 1; }
    PerplexityChart > .chart--valid { color: $accent; }
    PerplexityChart > .chart--train { color: $foreground 70%; }
    PerplexityChart > .chart--level { color: $secondary; }
    PerplexityChart > .chart--axis { color: $foreground 60%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"chart--valid", "chart--train", "chart--level", "chart--axis"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view = TrainingView()

    def show(self, view: TrainingView) -> None:
        """Draw `view`."""
        self._view = view
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        """The legend, the curves with their axis, and the epochs."""
        view, rows, columns = self._view, height - 2, width - LABEL_WIDTH
        legend = Strip(self._legend(width))
        if rows < 2 or columns < 10 or not view.evaluations:
            return [legend]
        right = float(max(1, view.epochs if view.active else math.ceil(view.epoch)))
        valid, train = _valid_curve(view), _train_curve(view)
        low, high = self._range(valid[1], train[1])
        x_range, y_range = (0.0, right), (math.log10(low), math.log10(high))
        cells = {
            "chart--train": draw_curve(*train, x_range, y_range, rows, columns) & DOTTED,
            "chart--valid": draw_curve(*valid, x_range, y_range, rows, columns),
        }
        canvas = [[(" ", "")] * columns for _ in range(rows)]

        def row_of(perplexity: float) -> int:
            return dot_row(math.log10(perplexity), y_range, rows) // 4

        for name, perplexity in self._levels():
            if low <= perplexity <= high:
                row = row_of(perplexity)
                taken = np.logical_or.reduce([pattern[row] > 0 for pattern in cells.values()])
                canvas[row] = _level_line(name, taken)
        _paint(canvas, cells)
        best = view.best
        if best is not None and low <= best.valid_perplexity <= high:
            canvas[row_of(best.valid_perplexity)][round(best.epoch / right * (columns - 1))] = ("●", "chart--valid")
        labels = {row_of(tick): f"{tick:,.0f}" for tick in log_ticks(low, high, max(2, rows // 3))}
        styles = {name: self.get_component_rich_style(name) for name in self.COMPONENT_CLASSES} | {"": self.rich_style}
        lines = [
            Strip(
                [
                    Segment(f"{labels.get(row, ''):>{LABEL_WIDTH - 2}} ", styles["chart--axis"]),
                    Segment("┤" if row in labels else "│", styles["chart--axis"]),
                    *_runs(canvas[row], styles),
                ]
            )
            for row in range(rows)
        ]
        axis = Segment(" " * (LABEL_WIDTH - 1) + _epoch_axis(right, columns), styles["chart--axis"])
        return [legend, *lines, Strip([axis])]

    def _range(self, valid: Floats, train: Floats) -> tuple[float, float]:
        """From under the lowest to above the highest of all that is to be seen; a wild start is cut off."""
        levels = [perplexity for _, perplexity in self._levels()]
        perplexities = 10.0 ** np.concatenate([valid, train])
        lowest = min([*levels, float(np.nanmin(perplexities))])
        highest = max([*levels, min(float(np.nanmax(10.0**valid)), 8 * lowest)])
        return lowest * 0.94, highest * 1.06

    def _levels(self) -> list[tuple[str, float]]:
        started = self._view.started
        if started is None:
            return []
        both = [("unigram", started.unigram_perplexity), ("Kneser-Ney", started.kneser_ney_perplexity)]
        return [(name, perplexity) for name, perplexity in both if math.isfinite(perplexity) and perplexity > 0]

    def _legend(self, width: int) -> list[Segment]:
        """As many of the latest figures as fit, the most telling first."""
        view = self._view
        parts: list[tuple[str, str, float]] = []
        if view.evaluations and (best := view.best) is not None:
            parts.append(("chart--valid", "━ valid", view.evaluations[-1].valid_perplexity))
            parts.append(("chart--valid", "● best", best.valid_perplexity))
        if view.started:
            parts.append(("chart--level", "┄ Kneser-Ney", view.started.kneser_ney_perplexity))
        if (step := view.steps.last) is not None:
            parts.append(("chart--train", "┅ train", step.train_perplexity))
        if view.started:
            parts.append(("chart--level", "┄ unigram", view.started.unigram_perplexity))
        segments: list[Segment] = []
        used = 0
        for style, name, perplexity in parts:
            text, value = f"{name} ", f"{perplexity:.1f}   "
            if used + len(text) + len(value) - 3 > width:
                break
            used += len(text) + len(value)
            segments += [Segment(text, self.get_component_rich_style(style)), Segment(value, self.rich_style)]
        return segments


def _level_line(name: str, taken: npt.NDArray[np.bool_]) -> list[tuple[str, str]]:
    """A dotted line with its name where no curve runs through it; without, where one does everywhere."""
    label, columns = f" {name} ", len(taken)
    line = "┄" * columns
    for place in (columns - len(label) - 2, 2, columns // 2):
        if place >= 0 and not taken[place : place + len(label)].any():
            line = ("┄" * place + label).ljust(columns, "┄")
            break
    return [(character, "chart--level") for character in line[:columns]]


def _paint(canvas: list[list[tuple[str, str]]], cells: dict[str, Cells]) -> None:
    """Put the curves on the canvas, the last one on top; where two share a cell, their dots do too."""
    together = np.zeros_like(next(iter(cells.values())))
    for style, pattern in cells.items():
        together |= pattern
        for row, column in zip(*np.nonzero(pattern), strict=True):
            canvas[row][column] = (chr(0x2800 + int(together[row, column])), style)


def _runs(cells: list[tuple[str, str]], styles: dict[str, Style]) -> list[Segment]:
    """Neighbours of one style as one segment."""
    segments: list[Segment] = []
    text, current = "", ""
    for character, style in cells:
        if style != current and text:
            segments.append(Segment(text, styles[current]))
            text = ""
        current = style
        text += character
    return [*segments, Segment(text, styles[current])]


def _epoch_axis(right: float, columns: int) -> str:
    """The epochs, each number centred under its place."""
    line = [" "] * (columns + 1)
    for tick in linear_ticks(0, right, max(2, columns // 10)):
        text = f"{tick:g}"
        place = round(tick / right * (columns - 1)) + 1 - len(text) // 2
        place = min(max(0, place), len(line) - len(text))
        line[place : place + len(text)] = text
    name = " epochs"
    if not "".join(line[-len(name) - 7 : -5]).strip():
        line[-len(name) - 6 : -6] = name
    return "".join(line)


def _train_curve(view: TrainingView) -> tuple[Floats, Floats]:
    """The train perplexity as base-10 logarithms, smoothed, thinned out."""
    levels, mean = [], math.nan
    for perplexity in view.steps.column("train_perplexity").tolist():
        level = math.log10(perplexity) if perplexity > 0 else math.nan
        mean = level if math.isnan(mean) else SMOOTHING * mean + (1 - SMOOTHING) * level
        levels.append(mean)
    return thin_out(view.steps.column("epoch"), np.array(levels), MOST_POINTS)


def _valid_curve(view: TrainingView) -> tuple[Floats, Floats]:
    epochs = np.array([event.epoch for event in view.evaluations])
    return epochs, np.log10([event.valid_perplexity for event in view.evaluations])
