"""Validation curves of several runs over each other, on a log axis."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from textual.strip import Strip

from engine.errors import printable
from lotr_tui.monitor.run_list import Curve
from lotr_tui.widgets.charts.plotting import decimate, draw_curve, linear_ticks, log_ticks
from lotr_tui.widgets.drawing import Drawing

MARKS = "123456789"
"""Of the curves, so that they are told apart without colour."""
STYLES = 5
LABEL_WIDTH = 7
HIGHEST = 8.0
"""So many times the lowest value: what is higher, as a wild start, is cut off."""


class OverlayChart(Drawing):
    """The curves, each with its mark at its end, and the epochs under them."""

    DEFAULT_CSS = """
    OverlayChart { height: 1fr; min-height: 4; padding: 0 1; }
    OverlayChart > .overlay--0 { color: $accent; }
    OverlayChart > .overlay--1 { color: $success; }
    OverlayChart > .overlay--2 { color: $error; }
    OverlayChart > .overlay--3 { color: $foreground; }
    OverlayChart > .overlay--4 { color: $secondary; }
    OverlayChart > .overlay--axis { color: $foreground 60%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {*(f"overlay--{number}" for number in range(STYLES)), "overlay--axis"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._curves: Sequence[Curve] = ()

    def show(self, curves: Sequence[Curve]) -> None:
        """Draw these, the first one on top."""
        self._curves = curves[: len(MARKS)]
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        """A legend, the curves with their axis, the epochs."""
        axis = self.get_component_rich_style("overlay--axis")
        rows, columns = height - 2, width - LABEL_WIDTH
        if not self._curves:
            return []
        legend = Strip(self._legend(width))
        seen = [curve for curve in self._curves if np.isfinite(curve.perplexities).any()]
        if rows < 2 or columns < 10 or not seen:
            return [legend, Strip([Segment("no evaluation yet" if not seen else "", axis)])]
        low = min(float(np.nanmin(curve.perplexities)) for curve in seen)
        high = min(max(float(np.nanmax(curve.perplexities)) for curve in seen), HIGHEST * low)
        low, high = low * 0.97, high * 1.03
        right = max(1.0, *(float(np.nanmax(curve.epochs)) for curve in seen))
        cells: list[list[tuple[str, str]]] = [[(" ", "axis")] * columns for _ in range(rows)]
        for number in reversed(range(len(self._curves))):
            self._paint(cells, number, right, (float(np.log10(low)), float(np.log10(high))))
        labels = {
            round((np.log10(high) - np.log10(tick)) / (np.log10(high) - np.log10(low)) * (rows - 1)): f"{tick:,.0f}"
            for tick in log_ticks(low, high, max(2, rows // 3))
        }
        styles = {
            name.removeprefix("overlay--"): self.get_component_rich_style(name) for name in self.COMPONENT_CLASSES
        }
        lines = []
        for row in range(rows):
            label = Segment(f"{labels.get(row, ''):>{LABEL_WIDTH - 2}} {'┤' if row in labels else '│'}", axis)
            lines.append(Strip([label, *(Segment(text, styles[style]) for text, style in cells[row])]).simplify())
        return [legend, *lines, Strip([Segment(" " * LABEL_WIDTH + _epochs(right, columns), axis)])]

    def _paint(
        self, cells: list[list[tuple[str, str]]], number: int, right: float, y_range: tuple[float, float]
    ) -> None:
        curve, style = self._curves[number], str(number % STYLES)
        rows, columns = len(cells), len(cells[0])
        known = np.isfinite(curve.perplexities) & np.isfinite(curve.epochs)
        x, y = decimate(curve.epochs[known], np.log10(curve.perplexities[known]), (0.0, right), 2 * columns)
        if not len(x):
            return
        pattern = draw_curve(x, y, (0.0, right), y_range, rows, columns)
        for row, column in zip(*np.nonzero(pattern), strict=True):
            cells[row][column] = (chr(0x2800 + int(pattern[row, column])), style)
        row = round((y_range[1] - float(y[-1])) / (y_range[1] - y_range[0]) * (rows - 1))
        column = round(float(x[-1]) / right * (columns - 1))
        if 0 <= row < rows and 0 <= column < columns:
            cells[row][column] = (MARKS[number], style)

    def _legend(self, width: int) -> list[Segment]:
        segments: list[Segment] = []
        used = 0
        for number, curve in enumerate(self._curves):
            finite = curve.perplexities[np.isfinite(curve.perplexities)]
            text = f"{MARKS[number]} {printable(curve.name)}" + (f" {finite.min():.1f}" if len(finite) else "") + "   "
            if used + len(text) - 3 > width:
                break
            used += len(text)
            segments.append(Segment(text, self.get_component_rich_style(f"overlay--{number % STYLES}")))
        return segments


def _epochs(right: float, columns: int) -> str:
    line = [" "] * columns
    for tick in linear_ticks(0, right, max(2, columns // 10)):
        text = f"{tick:g}"
        place = min(round(tick / right * (columns - 1)), columns - len(text))
        line[place : place + len(text)] = text
    name = " epochs "
    if columns > 20 and not "".join(line[-len(name) - 4 : -4]).strip():
        line[-len(name) - 4 : -4] = name
    return "".join(line)
