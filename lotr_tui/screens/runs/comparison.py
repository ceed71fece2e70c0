"""Comparison of runs: their validation curves, the settings that differ, and the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll

from engine.runs.summary import RunState, RunSummary
from lotr_tui.background_task import run_in_thread
from lotr_tui.monitor.compared_run import ComparedRun, read_compared_run
from lotr_tui.monitor.run_comparison import compare_runs
from lotr_tui.monitor.run_list import ValidationCurve, read_validation_curve
from lotr_tui.screens.runs.difference_table import DifferenceTable
from lotr_tui.screens.runs.overlay_chart import BASELINE_MARK, OverlayChart


@dataclass(frozen=True)
class _RunContent:
    """Content of a run directory for a comparison, with the size and state of the run when it was read."""

    size_bytes: int
    state: RunState
    curve: ValidationCurve
    compared_run: ComparedRun


class ComparisonPane(Horizontal):
    """Chart with the validation curves, and a table of differences beside it."""

    DEFAULT_CSS = """
    ComparisonPane {
        height: 1fr;
        #curves { width: 1fr; }
        #differences { width: 1fr; display: none; padding: 0 1; scrollbar-size-vertical: 1; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._content_cache: dict[Path, _RunContent] = {}

    def compose(self) -> ComposeResult:
        """Create the chart and the table."""
        yield OverlayChart(id="curves")
        with VerticalScroll(id="differences", can_focus=False):
            yield DifferenceTable(id="settings")

    @work(exclusive=True)
    async def compare(self, marked_runs: Sequence[tuple[str, RunSummary]]) -> None:
        """Show the curves of runs and, for two or more, their differences to the first one.

        Each run comes with its mark, which is shown at its curve and in the heading of its column.
        """
        contents = [await self._read(run) for _, run in marked_runs]
        if not self._is_complete:
            return
        marks = [mark for mark, _ in marked_runs]
        self.query_one(OverlayChart).show([content.curve for content in contents], marks)
        table = self.query_one(DifferenceTable)
        if len(contents) >= 2:
            comparison = compare_runs([content.compared_run for content in contents])
            table.show(comparison, [f"{mark} {run.name}" for mark, run in marked_runs])
        elif marks == [BASELINE_MARK]:
            table.show_message("Select or mark another run to see its differences to the baseline.")
        else:
            table.show_message(
                "Mark two or more runs with space, or pin one as the baseline with b, to see differences."
            )

    def scroll_differences(self, pages: int) -> None:
        """Scroll the table by pages, down if `pages` is positive."""
        pane = self.query_one("#differences")
        pane.scroll_relative(y=pages * max(1, pane.size.height - 1), animate=False)

    @property
    def _is_complete(self) -> bool:
        """False while the screen is being closed, which removes the children first."""
        return bool(self.query("#curves") and self.query("#settings"))

    async def _read(self, run: RunSummary) -> _RunContent:
        content = self._content_cache.get(run.path)
        if content is None or (content.size_bytes, content.state) != (run.size_bytes, run.state):
            content = await run_in_thread(_read_content, run)
            self._content_cache[run.path] = content
        return content


def _read_content(run: RunSummary) -> _RunContent:
    return _RunContent(run.size_bytes, run.state, read_validation_curve(run), read_compared_run(run.path, run.name))
