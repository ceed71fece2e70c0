"""The dashboard of a run that another process trains, or that has ended."""

import sys
from pathlib import Path
from typing import Any

from textual.screen import Screen

from engine.control import Command
from lotr_tui.app import POLL_SECONDS, LotrApp
from lotr_tui.messages import TrainingChanged
from lotr_tui.monitor.followed_run import FollowedRun
from lotr_tui.monitor.training_view import TrainingView

TAKE_SECONDS = 0.05
"""Between two looks at what was read of the record; screens are told of it every `POLL_SECONDS`."""

SWITCH_SECONDS = 0.0005
"""After which the thread that reads the record makes way for the screen."""


class AttachApp(LotrApp):
    """The app as the dashboard of a run directory. Leaving it stops nothing."""

    def __init__(self, path: Path, *, theme: str | None = None) -> None:
        """Follow the run in `path`; other runs are those beside it.

        Raises:
            ConfigError: there is no such theme.
        """
        super().__init__(runs_dir=path.parent, theme=theme)
        self._followed = FollowedRun(path)
        self._told = self._told_soon = False

    @property
    def training(self) -> TrainingView:
        """What is known of the run."""
        return self._followed.view

    def steer(self, command: Command) -> None:
        """Ask something of whoever trains the run.

        Raises:
            RunError: nobody does, or it cannot be asked.
        """
        self._followed.steer(command)

    def get_default_screen(self) -> Screen[Any]:
        """The dashboard."""
        from lotr_tui.screens.dashboard.screen import TrainScreen

        return TrainScreen(self.training, self.steer, closes_app=True, follows=True)

    def on_mount(self) -> None:
        """Look for what was read from now on."""
        # The reader computes all the time; at Python's usual 5 ms each wait for it would be felt.
        sys.setswitchinterval(SWITCH_SECONDS)
        self.set_interval(TAKE_SECONDS, self._take)

    def on_unmount(self) -> None:
        """Follow no longer."""
        self._followed.stop()

    def _take(self) -> None:
        """Often, since the reader waits for it; screens are told less often."""
        if self._followed.poll() and not self._told_soon:
            self._told_soon = True
            # The first news at once: the less there is of the curve, the sooner it is drawn for the first time.
            self.set_timer(POLL_SECONDS if self._told else TAKE_SECONDS, self._tell)

    def _tell(self) -> None:
        self._told, self._told_soon = True, False
        for screen in self.screen_stack:
            screen.post_message(TrainingChanged(self.training, []))
