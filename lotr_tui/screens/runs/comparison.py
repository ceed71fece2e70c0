"""Comparison of runs: their validation curves, and beside them the settings that differ and the results."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
from rich.console import Group
from rich.segment import Segment
from textual import events, work
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.strip import Strip
from textual.widgets import Static

from engine.errors import printable
from engine.runs.directory import RunSummary
from lotr_tui.background_task import run_in_thread
from lotr_tui.formatting import format_perplexity
from lotr_tui.monitor import run_list
from lotr_tui.widgets.charts import MAX_PERPLEXITY_RATIO, Y_LABEL_WIDTH, LogCurve, Plot, perplexity_bounds
from lotr_tui.widgets.drawing import StripWidget, fit_groups

CURVE_MARKS = "123456789"  # which also distinguish the curves on terminals without colour
BASELINE_MARK = "b"  # also the key that pins the baseline
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
    OverlayChart > .chart--axis { color: $muted; text-style: $muted-style; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"overlay-chart--{number}" for number in range(NUM_CURVE_STYLES)),
        "overlay-chart--baseline",
        "chart--axis",
    }

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._curves: Sequence[tuple[str, str, LogCurve]] = ()  # mark, name, and points

    def show(self, runs: Sequence[run_list.ComparedRun], marks: Sequence[str]) -> None:
        """Draw the curves of runs with their marks, the first one on top, and the baseline below all others."""
        self._curves = [
            (mark, run.name, (run.curve[0], np.log10(run.curve[1]))) for mark, run in zip(marks, runs, strict=True)
        ]
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self._curves:
            return []
        styles = self.component_styles()
        legend, all_bounds = [[Segment("validation perplexity", styles["chart--axis"])]], []
        for mark, name, curve in self._curves:
            bounds = perplexity_bounds(curve)
            all_bounds += [bounds] if bounds else []
            best = f" {format_perplexity(bounds[0])}" if bounds else ""
            legend.append([Segment(f"{mark} {printable(name)}{best}", styles[_style_name(mark)])])
        legend_line = fit_groups(legend, width, styles[""])
        if height < 4 or width < Y_LABEL_WIDTH + 10 or not all_bounds:
            return [legend_line, Strip([Segment("" if all_bounds else "no evaluation yet", styles["chart--axis"])])]
        lowest = min(low for low, _ in all_bounds)
        highest = min(max(high for _, high in all_bounds), MAX_PERPLEXITY_RATIO * lowest)
        last_epoch = max(1.0, *(float(epochs[-1]) for _, _, (epochs, _) in self._curves if len(epochs)))
        plot = Plot(width, height - 1, (0.0, last_epoch), (lowest * 0.97, highest * 1.03))
        from_below = sorted(self._curves, key=lambda curve: curve[0], reverse=True)  # "b" comes after the digits
        for mark, _, (epochs, log_perplexities) in from_below:
            if len(epochs):
                plot.draw({_style_name(mark): (epochs, log_perplexities)}, ())
                row, column = plot.row_at(10.0 ** float(log_perplexities[-1])), plot.column_at(float(epochs[-1]))
                plot.draw_text(row, column, mark, _style_name(mark))
        return [legend_line, *plot.lines(styles)]


def _style_name(mark: str) -> str:
    number = "baseline" if mark == BASELINE_MARK else CURVE_MARKS.index(mark) % NUM_CURVE_STYLES
    return f"overlay-chart--{number}"


class DifferenceTable(Static):
    """Comparison of runs with a baseline, laid out for the width of the widget; a text while there is none."""

    DEFAULT_CSS = """
    DifferenceTable { height: auto; }
    DifferenceTable > .differences--heading { text-style: bold; }
    DifferenceTable > .differences--best { color: $success; text-style: bold; }
    DifferenceTable > .differences--better { color: $success; }
    DifferenceTable > .differences--worse { color: $error; }
    DifferenceTable > .differences--muted { color: $muted; text-style: $muted-style; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"differences--{role}" for role in get_args(run_list.Role)}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._comparison: tuple[run_list.RunComparison, list[str]] | None = None

    def show(self, comparison: run_list.RunComparison | None, names: list[str], message: str) -> None:
        """Show a comparison, with `names` as the headings of its runs, or else a message."""
        self._comparison = None if comparison is None else (comparison, names)
        self.update(message)
        self._lay_out()

    def on_resize(self, event: events.Resize) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        if self._comparison is not None and self.size.width:
            roles: tuple[run_list.Role, ...] = get_args(run_list.Role)
            styles = {role: self.get_component_rich_style(f"differences--{role}", partial=True) for role in roles}
            self.update(Group(*run_list.comparison_tables(*self._comparison, self.size.width, styles)))


class ComparisonPane(Horizontal):
    """Chart with the validation curves, and a table of differences beside it, which tab focuses to scroll it."""

    DEFAULT_CSS = """
    ComparisonPane {
        height: 1fr;
        #curves { width: 1fr; }
        #differences { width: 1fr; display: none; padding: 0 1; scrollbar-size-vertical: 1; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._cache: dict[Path, tuple[RunSummary, run_list.ComparedRun]] = {}  # with the summary when a run was read

    def compose(self) -> ComposeResult:
        yield OverlayChart(id="curves")
        with VerticalScroll(id="differences"):
            yield DifferenceTable(id="settings")

    @work(exclusive=True)
    async def compare(self, marked_runs: Sequence[tuple[str, RunSummary]]) -> None:
        """Show the curves of runs and, for two or more, their differences to the first one.

        Each run comes with its mark, which is shown at its curve and in the heading of its column.
        """
        for _, run in marked_runs:
            if run.path not in self._cache or self._cache[run.path][0] != run:
                self._cache[run.path] = run, await run_in_thread(run_list.read_compared_run, run.path, run.name)
        if not (self.query("#curves") and self.query("#settings")):  # the screen is being closed
            return
        compared, marks = [self._cache[run.path][1] for _, run in marked_runs], [mark for mark, _ in marked_runs]
        self.query_one(OverlayChart).show(compared, marks)
        message = "Mark two or more runs with space, or pin one as the baseline with b."
        if marks == [BASELINE_MARK]:
            message = "Select or mark another run to see its differences to the baseline."
        comparison = run_list.compare_runs(compared) if len(compared) >= 2 else None
        self.query_one(DifferenceTable).show(comparison, [f"{mark} {run.name}" for mark, run in marked_runs], message)
