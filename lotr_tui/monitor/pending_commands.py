"""Commands that were sent to a training and have not been applied yet."""

from collections.abc import Sequence

from engine.control import ControlCommand
from engine.events import CommandApplied
from lotr_tui.monitor.training_view import TrainingView


class PendingCommands:
    """Queue of sent commands, and the state of the training once all of them are applied."""

    def __init__(self) -> None:
        self._commands: list[ControlCommand] = []
        self._num_seen = 0

    @property
    def commands(self) -> Sequence[ControlCommand]:
        """Pending commands, oldest first."""
        return self._commands

    def add(self, command: ControlCommand) -> None:
        """Add a command that was sent."""
        self._commands.append(command)

    def discard_applied(self, applied: Sequence[CommandApplied]) -> None:
        """Remove the commands that were applied since the last call; `applied` are all commands applied so far."""
        for event in applied[self._num_seen :]:
            for index, command in enumerate(self._commands):
                if (command.kind, command.value) == (event.kind, event.value):
                    del self._commands[index]
                    break
        self._num_seen = len(applied)

    def will_be_paused(self, view: TrainingView) -> bool:
        """Return True if the training is paused once all commands are applied."""
        kinds = [command.kind for command in self._commands if command.kind in ("pause", "resume")]
        return kinds[-1] == "pause" if kinds else view.paused

    def lr_scale(self, view: TrainingView) -> float:
        """Return the factor of the scheduled learning rate once all commands are applied."""
        scales = [command.lr_scale for command in self._commands if command.kind == "lr"]
        return scales[-1] if scales else view.lr_scale
