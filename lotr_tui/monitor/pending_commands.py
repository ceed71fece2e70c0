"""What was asked of a training and is not done yet."""

from collections.abc import Sequence

from engine.control import Command
from engine.events import Steered
from lotr_tui.monitor.training_view import TrainingView


class Asked:
    """Commands that wait, oldest first; what is asked next goes on from what they will have done."""

    def __init__(self) -> None:
        self._waiting: list[Command] = []
        self._seen = 0

    @property
    def waiting(self) -> Sequence[Command]:
        """Those that are not done yet."""
        return self._waiting

    def add(self, command: Command) -> None:
        """Something more was asked."""
        self._waiting.append(command)

    def take(self, steered: Sequence[Steered]) -> None:
        """All that was done so far; what a resume did again may have been taken away since the last call."""
        for event in steered[self._seen :]:
            done = ((event.what, event.value) == (command.what, command.value) for command in self._waiting)
            if (number := next((i for i, is_done in enumerate(done) if is_done), None)) is not None:
                del self._waiting[number]
        self._seen = len(steered)

    def paused(self, view: TrainingView) -> bool:
        """Whether it will be paused."""
        asked = [command.what for command in self._waiting if command.what in ("pause", "go_on")]
        return asked[-1] == "pause" if asked else view.paused

    def lr_share(self, view: TrainingView) -> float:
        """The share of the learning rate that it will have."""
        asked = [command.share for command in self._waiting if command.what == "lr"]
        return asked[-1] if asked else view.lr_share
