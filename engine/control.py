"""Control commands for a running training, from its own process or from another one."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from engine.errors import InvalidInputError, printable, suggest_nearest

CommandKind = Literal["pause", "resume", "checkpoint", "stop", "detach", "prune", "prompt", "lr"]
POLL_INTERVAL = 0.2
"""Seconds between two looks for commands from other processes."""
MAX_SAMPLE_PROMPT_LENGTH = 200


@dataclass(frozen=True)
class ControlCommand:
    """A command that a training applies between two optimizer steps."""

    kind: CommandKind
    """Action: "pause"; "resume"; "checkpoint" (save now); "stop" (save and end); "detach" (save and end here, to be
    resumed by another process); "prune" (end without a checkpoint); "prompt" (change the sample prompt); "lr" (scale
    the scheduled learning rate)."""
    value: str = ""
    """Argument: the new prompt, or the factor of the learning rate, above 0 and at most 1; otherwise empty."""

    def __post_init__(self) -> None:
        """Check the kind and the value; an invalid one raises an InvalidInputError."""
        if self.kind not in get_args(CommandKind):
            kind = str(self.kind)
            raise InvalidInputError(f"unknown command {kind!r}{suggest_nearest(kind, get_args(CommandKind))}")
        if not isinstance(self.value, str):
            raise InvalidInputError(f"the value of {self.kind} must be a text, not {self.value!r}")
        if self.kind not in ("prompt", "lr") and self.value:
            raise InvalidInputError(f"{self.kind} takes no value, not {self.value!r}")
        if self.kind == "prompt" and (
            self.value != printable(self.value) or not 0 < len(self.value) <= MAX_SAMPLE_PROMPT_LENGTH
        ):
            raise InvalidInputError(f"a sample prompt must be one line of 1 to {MAX_SAMPLE_PROMPT_LENGTH} characters")
        if self.kind == "lr" and not 0 < self.lr_scale <= 1:
            raise InvalidInputError(f"lr {self.value!r} is out of range; use a number above 0 and at most 1")

    @property
    def lr_scale(self) -> float:
        """The value as a number; NaN if it is not a number."""
        try:
            return float(self.value) if self.value == printable(self.value) else math.nan
        except ValueError:
            return math.nan


class CommandQueue:
    """Thread-safe queue of commands that a training has not applied yet."""

    def __init__(
        self,
        sources: Sequence[Callable[[], list[ControlCommand]]] = (),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Create an empty queue. Each of `sources` is polled for commands from other processes."""
        self.cancelled = cancelled
        """Function that is called between steps and returns True once the training should save and stop."""
        self._pending: deque[ControlCommand] = deque()
        self._sources = sources
        self._last_poll_time = -math.inf
        self._has_commands = threading.Event()

    def send(self, command: ControlCommand) -> None:
        """Add a command. Any thread may call this method."""
        self._pending.append(command)
        self._has_commands.set()

    def drain(self) -> list[ControlCommand]:
        """Remove and return all pending commands, oldest first, polling the sources every `POLL_INTERVAL`."""
        now = time.monotonic()
        if now - self._last_poll_time >= POLL_INTERVAL:
            self._last_poll_time = now
            for source in self._sources:
                self._pending.extend(source())
        self._has_commands.clear()
        return [self._pending.popleft() for _ in range(len(self._pending))]

    def wait(self, timeout: float) -> None:
        """Wait until a command is sent, at most `timeout` seconds."""
        self._has_commands.wait(timeout)
