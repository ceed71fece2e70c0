"""Comparison of runs: their validation curves, and beside them the settings that differ and the results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

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
from lotr_tui.monitor.comparison import ComparedRun, RunComparison, compare_runs, read_compared_run
from lotr_tui.monitor.comparison_table import comparison_tables
from lotr_tui.monitor.run_list import ValidationCurve, read_validation_curve
from lotr_tui.widgets.charts import MAX_PERPLEXITY_RATIO, Y_LABEL_WIDTH, LogCurve, Plot, perplexity_bounds
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

    def show(self, curves: Sequence[ValidationCurve], marks: Sequence[str]) -> None:
        """Draw curves with their marks, the first one on top, and the baseline below all others."""
        shown = []
        for mark, curve in zip(marks, curves, strict=True):
            known = np.isfinite(curve.perplexities) & np.isfinite(curve.epochs)
            shown.append((mark, curve.run_name, (curve.epochs[known], np.log10(curve.perplexities[known]))))
        self._curves = shown
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self._curves:
            return []
        styles = self.component_styles()
        axis_style = styles["chart--axis"]
        legend = [[Segment("validation perplexity", axis_style)]]
        all_bounds = []
        for mark, name, curve in self._curves:
            bounds = perplexity_bounds(curve)
            all_bounds += [bounds] if bounds else []
            best = f" {format_perplexity(bounds[0])}" if bounds else ""
            legend.append([Segment(f"{mark} {printable(name)}{best}", styles[_style_name(mark)])])
        legend_line = fit_groups(legend, width, self.rich_style)
        if height < 4 or width < Y_LABEL_WIDTH + 10 or not all_bounds:
            return [legend_line, Strip([Segment("" if all_bounds else "no evaluation yet", axis_style)])]
        lowest = min(low for low, _ in all_bounds)
        highest = min(max(high for _, high in all_bounds), MAX_PERPLEXITY_RATIO * lowest)
        last_epoch = max(1.0, *(float(epochs[-1]) for _, _, (epochs, _) in self._curves if len(epochs)))
        plot = Plot(width, height - 1, (0.0, last_epoch), (lowest * 0.97, highest * 1.03))
        from_below = sorted(self._curves, key=lambda curve: curve[0], reverse=True)  # "b" comes after the digits
        for mark, _, curve in from_below:
            epochs, log_perplexities = curve
            if len(epochs):
                plot.draw({_style_name(mark): curve}, ())
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
    ROLES: ClassVar[tuple[Any, ...]] = ("heading", "best", "better", "worse", "muted")
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"differences--{role}" for role in ROLES}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._comparison: tuple[RunComparison, list[str]] | None = None

    def show(self, comparison: RunComparison, names: list[str]) -> None:
        """Show a comparison; `names` are the headings of its runs."""
        self._comparison = comparison, names
        self._lay_out()

    def show_message(self, message: str) -> None:
        """Show a text instead of a table."""
        self._comparison = None
        self.update(message)

    def on_resize(self, event: events.Resize) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        if self._comparison is not None and self.size.width:
            styles = {role: self.get_component_rich_style(f"differences--{role}", partial=True) for role in self.ROLES}
            self.update(Group(*comparison_tables(*self._comparison, self.size.width, styles)))


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
        # Content of a run, with the size and the state of the run when it was read.
        self._cache: dict[Path, tuple[tuple[int, str], ValidationCurve, ComparedRun]] = {}

    def compose(self) -> ComposeResult:
        yield OverlayChart(id="curves")
        with VerticalScroll(id="differences"):
            yield DifferenceTable(id="settings")

    @work(exclusive=True)
    async def compare(self, marked_runs: Sequence[tuple[str, RunSummary]]) -> None:
        """Show the curves of runs and, for two or more, their differences to the first one.

        Each run comes with its mark, which is shown at its curve and in the heading of its column.
        """
        curves, compared = [], []
        for _, run in marked_runs:
            status = (run.size_bytes, run.state)
            if run.path not in self._cache or self._cache[run.path][0] != status:
                curve = await run_in_thread(read_validation_curve, run)
                self._cache[run.path] = status, curve, await run_in_thread(read_compared_run, run.path, run.name)
            curves.append(self._cache[run.path][1])
            compared.append(self._cache[run.path][2])
        if not (self.query("#curves") and self.query("#settings")):  # the screen is being closed
            return
        marks = [mark for mark, _ in marked_runs]
        self.query_one(OverlayChart).show(curves, marks)
        table = self.query_one(DifferenceTable)
        if len(compared) >= 2:
            table.show(compare_runs(compared), [f"{mark} {run.name}" for mark, run in marked_runs])
        elif marks == [BASELINE_MARK]:
            table.show_message("Select or mark another run to see its differences to the baseline.")
        else:
            table.show_message("Mark two or more runs with space, or pin one as the baseline with b.")
