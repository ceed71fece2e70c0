"""Control commands for a running training, from its own process or from another one. Imports nothing heavy."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

from engine.errors import InvalidInputError, printable, suggest_nearest

CommandKind = Literal["pause", "resume", "checkpoint", "stop", "detach", "prune", "prompt", "lr"]
POLL_INTERVAL = 0.2  # seconds between two looks for commands from other processes
MAX_SAMPLE_PROMPT_LENGTH = 200


@dataclass(frozen=True)
class ControlCommand:
    """A command that a training applies between two optimizer steps.

    "checkpoint" saves now; "stop" saves and ends; "detach" saves and ends here, for another process to resume; "prune"
    ends without a checkpoint; "prompt" changes the sample prompt; "lr" scales the scheduled learning rate.
    """

    kind: CommandKind
    value: str = ""  # the new prompt, or the factor of the learning rate, above 0 and at most 1; otherwise empty

    def __post_init__(self) -> None:
        if self.kind not in get_args(CommandKind):
            kind = str(self.kind)
            raise InvalidInputError(f"unknown command {kind!r}{suggest_nearest(kind, get_args(CommandKind))}")
        if not isinstance(self.value, str) or (self.value and self.kind not in ("prompt", "lr")):
            raise InvalidInputError(f"{self.value!r} is no value of {self.kind}")
        is_line = self.value == printable(self.value) and 0 < len(self.value) <= MAX_SAMPLE_PROMPT_LENGTH
        if self.kind == "prompt" and not is_line:
            raise InvalidInputError(f"a sample prompt must be one line of 1 to {MAX_SAMPLE_PROMPT_LENGTH} characters")
        if self.kind == "lr" and not 0 < self.lr_scale <= 1:
            raise InvalidInputError(f"lr {self.value!r} is out of range; use a number above 0 and at most 1")

    @property
    def lr_scale(self) -> float:
        try:
            return float(self.value) if self.value == printable(self.value) else math.nan
        except ValueError:
            return math.nan


@dataclass(eq=False)
class CommandQueue:
    """Thread-safe queue of commands that a training has not applied yet."""

    poll: Callable[[], list[ControlCommand]] = list  # returns new commands of other processes
    cancelled: Callable[[], bool] = lambda: False  # is called between steps; True once to save and stop
    _pending: deque[ControlCommand] = field(default_factory=deque, init=False)
    _has_commands: threading.Event = field(default_factory=threading.Event, init=False)
    _last_poll_time: float = field(default=-math.inf, init=False)

    def send(self, command: ControlCommand) -> None:
        self._pending.append(command)
        self._has_commands.set()

    def drain(self) -> list[ControlCommand]:
        """Remove and return all pending commands, oldest first, polling at most every `POLL_INTERVAL`."""
        now = time.monotonic()
        if now - self._last_poll_time >= POLL_INTERVAL:
            self._last_poll_time = now
            self._pending.extend(self.poll())
        self._has_commands.clear()
        return [self._pending.popleft() for _ in range(len(self._pending))]

    def wait(self, timeout: float) -> None:
        self._has_commands.wait(timeout)
