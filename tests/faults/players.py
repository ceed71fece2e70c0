"""People at sessions: the real app in a pseudo-terminal, keys typed, terminals resized, and ways to leave."""

import os
import random
import signal
import time
from collections import Counter, deque
from contextlib import ExitStack
from pathlib import Path

from lotr_tui.bench.subjects import SESSION_COMMAND
from lotr_tui.bench.terminal import BenchError, Terminal, shown

ESC, DOWN = b"\x1b", b"\x1b[B"
F4, F7, F8, F9, F10 = b"\x1bOS", b"\x1b[18~", b"\x1b[19~", b"\x1b[20~", b"\x1b[21~"
SIZES = [(200, 50), (80, 24), (60, 20), (20, 5), (120, 30), (1, 1), (160, 45)]
STORM = 40
"""Sizes that a terminal has one after the other, as fast as they can be told."""
PAUSE = 0.15
"""Between keys: an escape that others follow at once would be the beginning of theirs."""
LEAVING = ("ctrl+q", "SIGTERM", "SIGHUP", "a closed terminal")
KEPT = 400_000
"""Bytes of what was written that are kept, to be looked through for a traceback."""

Keys = list[bytes | float]
"""What is typed, and seconds to wait."""


class Session:
    """One that does at random what there is to do."""

    def __init__(self, name: str, home: Path, chance: random.Random, stack: ExitStack) -> None:
        self.name = name
        self.way = ""
        self.did: Counter[str] = Counter()
        self._chance = chance
        self._terminal = stack.enter_context(Terminal(SESSION_COMMAND, 120, 30, home).opened())
        self._waiting: deque[bytes | float] = deque([3.0])
        self._due = 0.0
        self._output = b""

    def tick(self) -> None:
        """Read what it writes, and type what is due.

        Raises:
            AssertionError: it ended, or told of an exception.
        """
        self._read()
        assert not self._terminal.ended(), f"{self.name} ended: {self.said()}"
        if time.monotonic() < self._due:
            return
        if not self._waiting:
            self._waiting.extend(self._choose())
        part = self._waiting.popleft()
        if isinstance(part, bytes):
            self._terminal.write(part)
        self._due = time.monotonic() + (PAUSE if isinstance(part, bytes) else part)

    def leave(self, way: str) -> None:
        """Ask it to end."""
        self.way = way
        match way:
            case "ctrl+q":
                self._terminal.write(b"\x11")
            case "SIGTERM":
                os.kill(self._terminal.pid, signal.SIGTERM)
            case "SIGHUP":
                os.kill(self._terminal.pid, signal.SIGHUP)
            case _:
                self._terminal.hang_up()

    def has_left(self) -> bool:
        """Whether it has ended.

        Raises:
            AssertionError: other than as asked, or it told of an exception.
        """
        if self.way != LEAVING[-1]:
            self._read()
        ended = self._terminal.ended()
        assert self._terminal.status in (None, 0), f"{self.name} ended with {self._terminal.status}: {self.said()}"
        return ended

    def said(self) -> str:
        """The end of what it wrote."""
        return f"{self.name} ({self.way or 'at work'}): {shown(self._output)[-3000:]!r}"

    def _read(self) -> None:
        try:
            while output := self._terminal.read(0):
                self._output = (self._output + output)[-KEPT:]
        except BenchError:
            return  # it has ended
        finally:
            assert b"Traceback" not in self._output, f"{self.name}: {shown(self._output)}"

    def _choose(self) -> Keys:
        """Back to the prompt, then something."""
        chance = self._chance
        kinds = ["prompt"] * 4 + ["storm", "storm", "ladder", "lens", "others", "runs", "play", "rename", "delete"]
        kind = chance.choice([*kinds, "sessions", "resume", "train", "dashboard", "controls"])
        self.did[kind] += 1
        down: Keys = [DOWN] * chance.randrange(6)
        start: Keys = [ESC, ESC, ESC]
        match kind:
            case "prompt":
                text = b" ".join(chance.choices([b"the", b"lamp", b"is", b"lit", b"north", b"bilbo"], k=5))
                return [*start, text, b"\r", chance.uniform(0, 2)]
            case "storm":
                for _ in range(STORM):
                    self._terminal.resize(*chance.choice(SIZES))
                self._terminal.resize(120, 30)
                return [0.1]
            case "ladder":
                return [*start, b"the lamp is", b"\x0c", 1.0, b"\r", chance.uniform(0, 2)]
            case "lens":
                return [*start, b"\x05", 0.5, b"the lamp of the north ", 1.0]
            case "others":
                return [*start, b"the lamp", chance.choice([F9, F10, b"\x19"]), chance.uniform(0, 2)]
            case "runs":
                return [*start, b"\x0f", 0.5, *down, b" ", DOWN, b" ", b"d", b"s", 0.5]
            case "play":
                return [*start, b"\x0f", 0.5, *down, b"\r", 0.5]
            case "rename":
                return [*start, b"\x0f", 0.5, *down, b"r", 0.3, b"\x15", b"called-%d" % chance.randrange(9), b"\r", 0.3]
            case "delete":
                return [*start, b"\x0f", 0.5, *down, b"x", 0.3, b"y", 0.5]
            case "sessions":
                return [*start, b"\x13", 0.5, *down, 0.2]
            case "resume":
                return [*start, b"\x13", 0.5, *down, b"\r", 0.5]
            case "train":
                return [*start, b"\x14", 0.5, b"\r", 1.0]
            case "dashboard":
                return [*start, b"\x14", 0.5, chance.choice([b"c", b"l", b" ", b"s", b"m", b"+"]), 0.5]
            case _:
                return [*start, F4, F7, F8, F8, F4]
