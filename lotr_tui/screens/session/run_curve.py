"""The curve beside a conversation: of a training that goes on, or of the run whose model is played with."""

import time
from pathlib import Path

from textual.timer import Timer

from lotr_tui.monitor.followed_run import FollowedRun
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.charts.perplexity_chart import PerplexityChart

TAKE_SECONDS = 0.05
"""Between two looks at what was read of a record."""
SHOW_SECONDS = 0.5
"""Between two drawings of a curve that is being read."""


class RunCurve(PerplexityChart):
    """A curve that is shown, or read from the record of a run: a long one grows as it is read."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._followed: FollowedRun | None = None
        self._looks: Timer | None = None
        self._shown = 0.0

    def show(self, view: TrainingView) -> None:
        """Draw `view`; what was being read is not wanted any more."""
        self._end_reading()
        super().show(view)

    def read(self, path: Path) -> None:
        """Draw the curve of the run directory `path`, from its first piece to the end that its record has now.

        What was drawn before stays until then.
        """
        self._end_reading()
        self._followed = FollowedRun(path)
        self._looks = self.set_interval(TAKE_SECONDS, self._take)
        self._shown = 0.0

    def on_unmount(self) -> None:
        """Nobody looks any more."""
        self._end_reading()

    def _take(self) -> None:
        followed = self._followed
        if followed is None or not followed.poll():
            return
        if followed.at_end:
            self.show(followed.view)
        elif time.monotonic() - self._shown >= SHOW_SECONDS:
            self._shown = time.monotonic()
            super().show(followed.view)

    def _end_reading(self) -> None:
        if self._followed is not None:
            self._followed.stop()
        if self._looks is not None:
            self._looks.stop()
        self._followed = self._looks = None

    def _figures(self) -> list[tuple[str, str, str]]:
        """The latest figures; before them how much is read while it is not all."""
        if self._followed is None:
            return super()._figures()
        return [("chart--axis", "reading the record", f"{self._followed.share:.0%}"), *super()._figures()]
