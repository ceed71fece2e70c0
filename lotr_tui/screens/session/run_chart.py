"""Perplexity chart at the side of a conversation."""

import time
from pathlib import Path

from textual.timer import Timer

from lotr_tui.monitor.run_follower import RunFollower
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.charts.perplexity_chart import PerplexityChart

POLL_INTERVAL = 0.05
"""Seconds between two polls of a run that is being read."""
REDRAW_INTERVAL = 0.5
"""Minimum seconds between two drawings of a run that is being read."""


class RunPerplexityChart(PerplexityChart):
    """Perplexity chart of a training, or of a run directory that is read in a thread while the chart grows."""

    HELP_LINE = "Lower is better. Kneser-Ney: a model that counts words"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._follower: RunFollower | None = None
        self._poll_timer: Timer | None = None
        self._last_drawn_at = 0.0

    def show(self, view: TrainingView) -> None:
        """Draw the state of a training, and stop reading a run."""
        self._stop_loading()
        super().show(view)

    def load_run(self, path: Path) -> None:
        """Read the metrics of a run directory and draw them; the previous chart stays until the first rows are read."""
        self._stop_loading()
        self._follower = RunFollower(path)
        self._poll_timer = self.set_interval(POLL_INTERVAL, self._poll)
        self._last_drawn_at = 0.0

    @property
    def view(self) -> TrainingView:
        """The training or run that is drawn."""
        return self._view

    @property
    def is_loading(self) -> bool:
        """True while a run is being read."""
        return self._follower is not None

    def on_unmount(self) -> None:
        """Stop reading."""
        self._stop_loading()

    def _poll(self) -> None:
        follower = self._follower
        if follower is None or not follower.poll():
            return
        if follower.at_end:
            self.show(follower.view)
        elif time.monotonic() - self._last_drawn_at >= REDRAW_INTERVAL:
            self._last_drawn_at = time.monotonic()
            super().show(follower.view)

    def _stop_loading(self) -> None:
        if self._follower is not None:
            self._follower.stop()
        if self._poll_timer is not None:
            self._poll_timer.stop()
        self._follower = self._poll_timer = None

    def _legend_entries(self) -> list[tuple[str, str, str]]:
        """Return the latest figures, after the progress of reading."""
        entries = super()._legend_entries()
        if self._follower is None:
            return entries
        return [("chart--axis", "reading the run", f"{self._follower.fraction_read:.0%}"), *entries]
