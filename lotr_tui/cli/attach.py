"""`lotr-tui attach`: the dashboard of a run that another process trains, or that has finished."""

from pathlib import Path
from typing import Any

from textual.screen import Screen

from engine.control import ControlCommand
from lotr_tui.app import POLL_INTERVAL, LotrApp
from lotr_tui.messages import TrainingChanged
from lotr_tui.monitor.run_follower import RunFollower
from lotr_tui.monitor.training_view import TrainingView

DRAIN_INTERVAL = 0.05
"""Seconds between two reads of the follower; screens are notified every `POLL_INTERVAL`."""


class AttachApp(LotrApp):
    """The app as the dashboard of a run directory. Closing it does not stop the training."""

    def __init__(self, path: Path, *, theme: str | None = None) -> None:
        """Follow the run in `path`; other runs are those in the same directory.

        Raises:
            ConfigError: If `theme` does not exist.
        """
        super().__init__(runs_dir=path.parent, theme=theme)
        self._run_follower = RunFollower(path)
        self._has_notified = self._notify_scheduled = False

    @property
    def training_view(self) -> TrainingView:
        """State of the run, as read so far."""
        return self._run_follower.view

    def send_command(self, command: ControlCommand) -> None:
        """Send a control command to the process that trains the run.

        Raises:
            RunError: If no process trains the run, or its directory cannot be written.
        """
        self._run_follower.send_command(command)

    def get_default_screen(self) -> Screen[Any]:
        """Return the dashboard."""
        from lotr_tui.screens.dashboard.screen import DashboardScreen

        return DashboardScreen(self.training_view, self.send_command, exit_on_close=True, attached=True)

    def on_mount(self) -> None:
        """Start to read the follower."""
        self.set_interval(DRAIN_INTERVAL, self._poll_follower)

    def on_unmount(self) -> None:
        """Stop the follower."""
        self._run_follower.stop()

    def _poll_follower(self) -> None:
        """Read the follower often, since it waits for that, but notify the screens less often."""
        if self._run_follower.poll() and not self._notify_scheduled:
            self._notify_scheduled = True
            # The first notification comes at once: a short curve is drawn sooner.
            self.set_timer(POLL_INTERVAL if self._has_notified else DRAIN_INTERVAL, self._notify_screens)

    def _notify_screens(self) -> None:
        self._has_notified, self._notify_scheduled = True, False
        for screen in self.screen_stack:
            screen.post_message(TrainingChanged(self.training_view, []))
