"""Comparison of runs: their validation curves and the settings that differ."""

from collections.abc import Sequence
from pathlib import Path

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.errors import printable
from engine.runs.summary import RunSummary
from lotr_tui.background_task import run_in_thread
from lotr_tui.monitor.run_list import ValidationCurve, config_differences, read_validation_curve
from lotr_tui.screens.runs.overlay_chart import CURVE_MARKS, OverlayChart

MAX_VALUE_WIDTH = 20
"""Maximum width of the value of a setting."""


class RunComparison(Horizontal):
    """Chart with the validation curves, and a table of different settings beside it."""

    DEFAULT_CSS = """
    RunComparison {
        height: 1fr;
        #curves { width: 1fr; }
        #differences { width: 1fr; display: none; padding: 0 1; scrollbar-size-vertical: 1; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._curve_cache: dict[Path, tuple[int, ValidationCurve]] = {}
        """Curve of each run directory, with the size of the directory when the curve was read."""

    def compose(self) -> ComposeResult:
        """Create the chart and the table."""
        yield OverlayChart(id="curves")
        with VerticalScroll(id="differences", can_focus=False):
            yield Static(id="settings", markup=False)

    @work(exclusive=True)
    async def compare(self, runs: Sequence[RunSummary]) -> None:
        """Show the curves of runs and, for two or more, the settings that differ."""
        curves = [await self._load_curve(run) for run in runs]
        if not self._is_complete:
            return
        self.query_one(OverlayChart).show(curves)
        if len(runs) < 2:
            text = "Mark two or more runs with space to see the settings that differ."
        else:
            rows = await run_in_thread(config_differences, runs)
            text = _format_differences(rows) if rows else "The settings are the same."
            if not self._is_complete:
                return
        self.query_one("#settings", Static).update(Content(text))

    @property
    def _is_complete(self) -> bool:
        """False while the screen is being closed, which removes the children first."""
        return bool(self.query("#curves") and self.query("#settings"))

    async def _load_curve(self, run: RunSummary) -> ValidationCurve:
        size, curve = self._curve_cache.get(run.path, (-1, None))
        if curve is None or size != run.size_bytes:
            curve = await run_in_thread(read_validation_curve, run)
            self._curve_cache[run.path] = (run.size_bytes, curve)
        return curve


def _format_differences(rows: Sequence[tuple[str, list[str]]]) -> str:
    """Return a table with one line per setting and one column per run, below the marks of the runs."""
    num_runs = len(rows[0][1])
    table = [
        ("", list(CURVE_MARKS[:num_runs])),
        *((name, [_truncate_start(printable(value)) for value in values]) for name, values in rows),
    ]
    widths = [max(len(values[index]) for _, values in table) for index in range(num_runs)]
    name_width = max(len(name) for name, _ in table)
    return "\n".join(
        "  ".join([name.ljust(name_width), *(value.rjust(width) for value, width in zip(values, widths, strict=True))])
        for name, values in table
    )


def _truncate_start(value: str) -> str:
    """Return the end of a long value: the end of a path is its most specific part."""
    return value if len(value) <= MAX_VALUE_WIDTH else f"…{value[1 - MAX_VALUE_WIDTH :]}"
