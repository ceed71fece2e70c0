"""Simulated user of a session: keys, terminal sizes and ways to exit, with the real app in a pseudo-terminal."""

import os
import random
import signal
import time
from collections import Counter, deque
from contextlib import ExitStack
from pathlib import Path

from tests.support.terminal import SESSION_COMMAND, Terminal, TerminalError, strip_control_sequences

ESC, DOWN = b"\x1b", b"\x1b[B"
F4, F7, F8, F9, F10 = b"\x1bOS", b"\x1b[18~", b"\x1b[19~", b"\x1b[20~", b"\x1b[21~"
SIZES = [(200, 50), (80, 24), (60, 20), (20, 5), (120, 30), (1, 1), (160, 45)]
RESIZES_IN_A_ROW = 40
KEY_INTERVAL = 0.15
"""Seconds between keys. A key that follows an escape at once would be read as one escape sequence."""
ANSWER_INTERVAL = 0.5
"""Seconds between two answers to the question what becomes of a training."""
EXIT_STATUSES = {"ctrl+q": {0}, "SIGTERM": {143}, "SIGHUP": {0, 129}, "closed terminal": {0, 129}}
"""Exit statuses by exit method; without its terminal, a session with a training ends after it, with status 0."""
EXIT_METHODS = tuple(EXIT_STATUSES)
MAX_OUTPUT_BYTES = 400_000
"""Latest bytes of output that are kept, to search them for a traceback."""

KeySequence = list[bytes | float]
"""Keys to press, and seconds to wait between them."""


class SessionUser:
    """User who performs random actions in a session."""

    def __init__(self, name: str, home: Path, rng: random.Random, stack: ExitStack) -> None:
        """Start a session in `home`; `stack` ends it."""
        self.name = name
        self.exit_method = ""
        """One of `EXIT_METHODS`; empty until `exit`."""
        self.action_counts: Counter[str] = Counter()
        self._rng = rng
        self._terminal = stack.enter_context(Terminal(SESSION_COMMAND, 120, 30, home).spawn())
        self._pending: deque[bytes | float] = deque([3.0])
        self._next_key_time = 0.0
        self._output = b""

    def tick(self) -> None:
        """Read the output, and press the next key if it is due.

        Raises:
            AssertionError: If the session has ended, or shows a traceback.
        """
        self._read()
        assert not self._terminal.has_exited(), f"{self.name} ended: {self.describe()}"
        if time.monotonic() < self._next_key_time:
            return
        if not self._pending:
            self._pending.extend(self._choose_action())
        keys_or_delay = self._pending.popleft()
        if isinstance(keys_or_delay, bytes):
            self._terminal.write(keys_or_delay)
            delay = KEY_INTERVAL
        else:
            delay = keys_or_delay
        self._next_key_time = time.monotonic() + delay

    def exit(self, method: str) -> None:
        """Ask the session to end, in one of the `EXIT_METHODS`."""
        self.exit_method = method
        match method:
            case "ctrl+q":
                self._terminal.write(b"\x11")
                self._next_key_time = time.monotonic() + ANSWER_INTERVAL
            case "SIGTERM":
                os.kill(self._terminal.pid, signal.SIGTERM)
            case "SIGHUP":
                os.kill(self._terminal.pid, signal.SIGHUP)
            case _:
                self._terminal.hang_up()

    def has_exited(self) -> bool:
        """Return True if the session has ended.

        Raises:
            AssertionError: If the session failed, or shows a traceback.
        """
        if self.exit_method != "closed terminal":
            self._read()
        if not self._terminal.has_exited():
            if self.exit_method == "ctrl+q" and time.monotonic() >= self._next_key_time:
                self._terminal.write(b"s")  # the answer to the question about a training
                self._next_key_time = time.monotonic() + ANSWER_INTERVAL
            return False
        status = self._terminal.exit_status
        assert status in EXIT_STATUSES[self.exit_method], f"{self.name} ended with {status}: {self.describe()}"
        return True

    def describe(self) -> str:
        """Return the name, the exit method and the end of the output."""
        return f"{self.name} ({self.exit_method or 'active'}): {strip_control_sequences(self._output)[-3000:]!r}"

    def _read(self) -> None:
        try:
            while output := self._terminal.read(0):
                self._output = (self._output + output)[-MAX_OUTPUT_BYTES:]
        except TerminalError:
            return  # the session has ended
        finally:
            assert b"Traceback" not in self._output, f"{self.name}: {strip_control_sequences(self._output)}"

    def _choose_action(self) -> KeySequence:
        """Return the keys of a random action; most actions begin with a return to the prompt."""
        rng = self._rng
        actions = ["prompt"] * 4 + ["resize", "resize", "ladder", "lens", "inspect", "runs", "play", "rename", "delete"]
        action = rng.choice([*actions, "sessions", "resume", "train", "dashboard", "controls"])
        self.action_counts[action] += 1
        down: KeySequence = [DOWN] * rng.randrange(6)
        to_prompt: KeySequence = [ESC, ESC, ESC]
        match action:
            case "prompt":
                text = b" ".join(rng.choices([b"the", b"lamp", b"is", b"lit", b"north", b"bilbo"], k=5))
                return [*to_prompt, text, b"\r", rng.uniform(0, 2)]
            case "resize":
                for _ in range(RESIZES_IN_A_ROW):
                    self._terminal.resize(*rng.choice(SIZES))
                self._terminal.resize(120, 30)
                return [0.1]
            case "ladder":
                return [*to_prompt, b"the lamp is", b"\x0c", 1.0, b"\r", rng.uniform(0, 2)]
            case "lens":
                return [*to_prompt, b"\x05", 0.5, b"the lamp of the north ", 1.0]
            case "inspect":
                return [*to_prompt, b"the lamp", rng.choice([F9, F10, b"\x19"]), rng.uniform(0, 2)]
            case "runs":
                return [*to_prompt, b"\x0f", 0.5, *down, b" ", DOWN, b" ", b"d", b"s", 0.5]
            case "play":
                return [*to_prompt, b"\x0f", 0.5, *down, b"\r", 0.5]
            case "rename":
                new_name = b"called-%d" % rng.randrange(9)
                return [*to_prompt, b"\x0f", 0.5, *down, b"r", 0.3, b"\x15", new_name, b"\r", 0.3]
            case "delete":
                return [*to_prompt, b"\x0f", 0.5, *down, b"x", 0.3, b"y", 0.5]
            case "sessions":
                return [*to_prompt, b"\x13", 0.5, *down, 0.2]
            case "resume":
                return [*to_prompt, b"\x13", 0.5, *down, b"\r", 0.5]
            case "train":
                return [*to_prompt, b"\x14", 0.5, b"\r", 1.0]
            case "dashboard":
                return [*to_prompt, b"\x14", 0.5, rng.choice([b"c", b"l", b" ", b"s", b"m", b"+"]), 0.5]
            case _:
                return [*to_prompt, F4, F7, F8, F8, F4]
