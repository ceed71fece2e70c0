"""Control commands of a training, applied between two optimizer steps, and periodic checkpoints."""

import time
from collections.abc import Callable, Generator, Iterator

from engine.control import CommandKind, CommandQueue, ControlCommand
from engine.events import CommandApplied, StopReason, TrainingEvent
from engine.training.state import TrainerState

PAUSE_POLL_INTERVAL = 0.1
"""Seconds between two looks for commands while the training is paused."""


class CommandHandler:
    """Reader of the command queue that pauses, stops, saves and adjusts a training."""

    def __init__(
        self,
        state: TrainerState,
        command_queue: CommandQueue,
        cancelled: Callable[[], bool],
        save: Callable[[], Iterator[TrainingEvent]],
    ) -> None:
        """Prepare to apply the commands of `command_queue` to `state`.

        `cancelled` returns True once the training should stop. `save` saves a checkpoint, with the validation that is
        due, and yields the events of both.
        """
        self._state = state
        self._command_queue = command_queue
        self._cancelled = cancelled
        self._save = save
        self._last_save_time = time.perf_counter()

    def apply_pending(self) -> Generator[TrainingEvent, None, StopReason | None]:
        """Apply pending control commands. Return the stop reason, or None to continue.

        While the training is paused, this function waits for further commands.
        """
        state = self._state
        pause_time: float | None = None
        while True:
            commands, cancelled, save_due = state.distributed.broadcast_object(self._poll)
            for command in (ControlCommand(kind, value) for kind, value in commands):
                yield CommandApplied(state.progress.step, state.progress.epoch, command.kind, command.value)
                match command.kind:
                    case "stop":
                        return "stopped"
                    case "detach":
                        return "detached"
                    case "prune":
                        return "pruned"
                    case "pause" if pause_time is None:
                        pause_time = time.perf_counter()
                    case "resume" if pause_time is not None:
                        state.start_time += time.perf_counter() - pause_time
                        pause_time = None
                    case "prompt":
                        state.progress.sample_prompt = command.value
                    case "lr":
                        state.progress.lr_scale = command.lr_scale
                if command.kind != "resume":
                    yield from self._save_checkpoint()
            if cancelled:
                return "stopped"
            if pause_time is None:
                if save_due:
                    yield from self._save_checkpoint()
                return None
            self._command_queue.wait(PAUSE_POLL_INTERVAL)

    def _poll(self) -> tuple[list[tuple[CommandKind, str]], bool, bool]:
        """Return the pending commands, whether to stop, and whether a periodic checkpoint is due."""
        commands = [(command.kind, command.value) for command in self._command_queue.drain()]
        interval = self._state.config.training.checkpoint_seconds
        # Commands save a checkpoint themselves.
        save_due = interval > 0 and not commands and time.perf_counter() - self._last_save_time >= interval
        return commands, self._cancelled(), save_due

    def _save_checkpoint(self) -> Iterator[TrainingEvent]:
        yield from self._save()
        self._last_save_time = time.perf_counter()
