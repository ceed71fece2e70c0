"""What can be asked of a training that goes on, from its own process or from another one."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from engine.errors import UnusableInput, nearest, printable

What = Literal["pause", "go_on", "checkpoint", "stop", "detach", "prompt", "lr"]
LOOK_SECONDS = 0.2
"""Between two looks for commands of other processes."""
LONGEST_PROMPT = 200


@dataclass(frozen=True)
class Command:
    """Something asked of a training. It is obeyed between two updates."""

    what: What
    """pause, go_on; checkpoint: save now; stop: save and end; detach: save and end here, to be gone on with by
    another process; prompt: another text to continue at evaluations; lr: another share of the scheduled rate."""
    value: str = ""
    """The prompt, or the share of the learning rate as a number above 0 and up to 1."""

    def __post_init__(self) -> None:
        """Refuse what no training could obey.

        Raises:
            UnusableInput: no such command, or a value that it cannot have.
        """
        if self.what not in get_args(What):
            raise UnusableInput(
                f"a training knows no command {str(self.what)!r}{nearest(str(self.what), get_args(What))}"
            )
        if not isinstance(self.value, str):
            raise UnusableInput(f"{self.what} takes a text, not {self.value!r}")
        if self.what not in ("prompt", "lr") and self.value:
            raise UnusableInput(f"{self.what} takes nothing, not {self.value!r}")
        if self.what == "prompt" and (self.value != printable(self.value) or not 0 < len(self.value) <= LONGEST_PROMPT):
            raise UnusableInput(f"a prompt to sample is one line of 1 to {LONGEST_PROMPT} characters")
        if self.what == "lr" and not 0 < self.share <= 1:
            raise UnusableInput(f"lr {self.value!r} is no share of the scheduled rate; give a number above 0, up to 1")

    @property
    def share(self) -> float:
        """The value as a number; NaN where it is none."""
        try:
            return float(self.value) if self.value == printable(self.value) else math.nan
        except ValueError:
            return math.nan


class Steering:
    """Commands that wait to be obeyed. Any thread may send them; the training takes them."""

    def __init__(self, others: Sequence[Callable[[], list[Command]]] = ()) -> None:
        """`others` are asked now and then for commands from elsewhere."""
        self._waiting: deque[Command] = deque()
        self._others = others
        self._looked = -math.inf
        self._sent = threading.Event()

    def send(self, command: Command) -> None:
        """Ask for something."""
        self._waiting.append(command)
        self._sent.set()

    def take(self) -> list[Command]:
        """What was asked since the last call, oldest first."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            for other in self._others:
                self._waiting.extend(other())
        self._sent.clear()
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def wait(self, seconds: float) -> None:
        """Sleep so long, or until something is sent."""
        self._sent.wait(seconds)
