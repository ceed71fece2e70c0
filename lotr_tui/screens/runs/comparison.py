"""Comparison of runs: their validation curves, and beside them the settings that differ and the results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.strip import Strip
from textual.widgets import Static

from engine.errors import printable
from engine.runs.directory import RunSummary
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import format_perplexity
from lotr_tui.monitor import run_list
from lotr_tui.widgets import charts
from lotr_tui.widgets.drawing import StripWidget, fit_groups

CURVE_MARKS = "123456789"  # which also distinguish the curves on terminals without colour
CURVE_STYLES = {mark: f"overlay-chart--{index % 5}" for index, mark in enumerate(CURVE_MARKS)}


class OverlayChart(StripWidget):
    """Validation curves over the epochs on a logarithmic axis, with a mark at the end of each curve."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*CURVE_STYLES.values(), "chart--axis"}
    runs: Sequence[tuple[str, run_list.ComparedRun]] = ()  # with their marks; the first ones are drawn on top

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self.runs:
            return []
        styles = self.component_styles()
        legend, bounds = [[Segment("validation perplexity", styles["chart--axis"])]], list[float]()
        curves = {mark: (run.curve[0], np.log10(run.curve[1])) for mark, run in self.runs}
        for mark, run in self.runs:
            bounds += (own := charts.perplexity_bounds(curves[mark]))
            best = f" {format_perplexity(own[0])}" if own else ""
            legend.append([Segment(f"{mark} {printable(run.name)}{best}", styles[CURVE_STYLES[mark]])])
        legend_line = fit_groups(legend, width, styles[""])
        if height < 4 or width < charts.Y_LABEL_WIDTH + 10 or not bounds:
            return [legend_line, Strip([Segment("" if bounds else "no evaluation yet", styles["chart--axis"])])]
        y_range = min(bounds) * 0.97, min(max(bounds), charts.MAX_PERPLEXITY_RATIO * min(bounds)) * 1.03
        last_epoch = max(1.0, *(float(epochs[-1]) for epochs, _ in curves.values() if len(epochs)))
        plot = charts.Plot(width, height - 1, (0.0, last_epoch), y_range)
        for mark in sorted(curves, reverse=True):
            epochs, log_perplexities = curves[mark]
            if len(epochs):
                plot.draw({CURVE_STYLES[mark]: curves[mark]}, ())
                row, column = plot.row_at(10.0 ** float(log_perplexities[-1])), plot.column_at(float(epochs[-1]))
                plot.draw_text(row, column, mark, CURVE_STYLES[mark])
        return [legend_line, *plot.lines(styles)]


@dataclass(frozen=True)
class DifferenceTables:
    """Tables of a comparison, laid out for the width of the widget that shows them."""

    compared: run_list.RunComparison
    names: Sequence[str]
    styles: Mapping[run_list.Role, Style]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from run_list.comparison_tables(self.compared, self.names, options.max_width, self.styles)


class ComparisonPane(Horizontal):
    """Chart with the validation curves, and a table of differences beside it, which tab focuses to scroll it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"differences--{role}" for role in get_args(run_list.Role)}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._cache: dict[Path, tuple[RunSummary, run_list.ComparedRun]] = {}  # with the summary at that time

    def compose(self) -> ComposeResult:
        yield OverlayChart(id="curves")
        with VerticalScroll(id="differences"):
            yield Static(id="settings", markup=False)

    @work(exclusive=True)
    async def compare(self, marked_runs: Sequence[tuple[str, RunSummary]]) -> None:
        """Show the curves of runs and, for two or more, their differences to the first one.

        Each run comes with its mark, which is shown at its curve and in the heading of its column.
        """
        for _, run in marked_runs:
            if run.path not in self._cache or self._cache[run.path][0] != run:
                self._cache[run.path] = run, await run_in_thread(run_list.read_compared_run, run.path, run.name)
        if is_closed(self):
            return
        chart, table = self.query_one(OverlayChart), self.query_one("#settings", Static)
        chart.runs = [(mark, self._cache[run.path][1]) for mark, run in marked_runs]
        chart.redraw()
        if len(marked_runs) > 1:
            roles: tuple[run_list.Role, ...] = get_args(run_list.Role)
            styles = {role: self.get_component_rich_style(f"differences--{role}", partial=True) for role in roles}
            names = [f"{mark} {run.name}" for mark, run in marked_runs]
            table.update(DifferenceTables(run_list.compare_runs([run for _, run in chart.runs]), names, styles))
        else:
            table.update("Mark a run with space: the selected run, or other marked ones, are compared with it.")
