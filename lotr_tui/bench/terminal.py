"""A program in a pseudo-terminal: its keys are pressed, and what it writes is timed and counted."""

import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from signal import SIGKILL

from engine.errors import LotrError

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
LIMIT_SECONDS = 60.0
"""Nothing that is waited for takes longer."""


class BenchError(LotrError):
    """A program that is measured does not do what it should."""


class Terminal:
    """A command in a pseudo-terminal, with a home of its own."""

    def __init__(self, command: list[str], width: int, height: int, home: Path) -> None:
        self._command = command
        self._size = width, height
        self._home = home
        self._file: int | None = None
        self.pid = 0
        self._last = b""  # of what was read
        self._unread = b""
        self.status: int | None = None
        """The exit status, or minus the signal, of a program that was seen to have `ended`."""

    @contextmanager
    def opened(self) -> Iterator["Terminal"]:
        """Started, and killed at the end."""
        self.status, self._last, self._unread = None, b"", b""
        program, command, environment = self._command[0], self._command, self._environment()
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            try:  # nothing but this, for a copy of whoever measures may be in the midst of anything
                os.execve(program, command, environment)
            finally:  # whatever hinders it, there must not be two of whoever measures
                os._exit(127)
        os.set_blocking(self._file, False)
        self.resize(*self._size)
        attributes = termios.tcgetattr(self._file)
        attributes[0] &= ~termios.IXON  # ctrl+s, pressed when the program has left its screen, would hold it for ever
        termios.tcsetattr(self._file, termios.TCSANOW, attributes)
        try:
            yield self
        finally:
            if not self.ended():
                os.kill(self.pid, SIGKILL)
                os.waitpid(self.pid, 0)
            self.hang_up()

    def ended(self) -> bool:
        """Whether the program has ended; never waits."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def resize(self, width: int, height: int) -> None:
        """Give the terminal another size, and tell the program."""
        ioctl(self._open, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def hang_up(self) -> None:
        """Close the terminal, as a connection that is lost does."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def _open(self) -> int:
        assert self._file is not None, "the terminal is closed"
        return self._file

    def read(self, seconds: float = 0.05) -> bytes:
        """What was written since; if it is nothing, what comes first within so long.

        Raises:
            BenchError: the program has ended.
        """
        if self._unread:
            output, self._unread = self._unread, b""
            return output
        ready, _, _ = select.select([self._open], [], [], seconds)
        try:
            output = os.read(self._open, 1 << 16) if ready else b""
        except OSError as error:
            said = " ".join(shown(self._last).split())[-500:]
            raise BenchError(f"{self._name} ended before it was measured; the last it wrote: {said!r}") from error
        self._last = (self._last + output)[-2000:]
        return output

    def write(self, keys: bytes) -> None:
        """Press keys. What the program writes before it has taken them is kept for `read`.

        Raises:
            BenchError: it has ended, or takes none for a minute.
        """
        unread, deadline = b"", time.perf_counter() + LIMIT_SECONDS
        while keys:
            with suppress(BlockingIOError):
                keys = keys[os.write(self._open, keys) :]
                continue
            unread += self.read(0.01)  # a program that waits for us to read takes no keys
            if time.perf_counter() > deadline:
                raise BenchError(f"{self._name} took no keys within {LIMIT_SECONDS:.0f} s")
        self._unread += unread

    def until(self, text: str) -> int:
        """Read until `text` is written; how many bytes were.

        Raises:
            BenchError: it is not, within a minute.
        """
        seen, count, deadline = b"", 0, time.perf_counter() + LIMIT_SECONDS
        while True:
            if output := self.read():
                count += len(output)
                seen = (seen + output)[-200_000:]
                if text in shown(seen):
                    return count
            if time.perf_counter() > deadline:
                raise BenchError(f"{self._name} did not show {text!r} within {LIMIT_SECONDS:.0f} s")

    def until_end(self) -> None:
        """Read until the program has ended.

        Raises:
            BenchError: it has not, within a minute.
        """
        deadline = time.perf_counter() + LIMIT_SECONDS
        while time.perf_counter() < deadline:
            try:
                self.read()
            except BenchError:
                return
        raise BenchError(f"{self._name} did not end within {LIMIT_SECONDS:.0f} s")

    def press(self, keys: bytes, shows: str = "") -> float:
        """Press keys: seconds to the bytes that show the text `shows`, or to the first ones.

        Raises:
            BenchError: there are none within a minute.
        """
        seen = b""
        started = time.perf_counter()
        self.write(keys)
        while True:
            output = self.read(0.5)
            now = time.perf_counter()
            seen += output
            if output and shows in shown(seen):
                return now - started
            if now - started > LIMIT_SECONDS:
                raise BenchError(f"{self._name} did not show {shows or 'anything'!r} within {LIMIT_SECONDS:.0f} s")

    def settle(self, quiet: float, most: float) -> None:
        """Read until nothing has come for `quiet` seconds, or for `most` seconds in all."""
        end = time.perf_counter() + most
        while time.perf_counter() < end and self.read(quiet):
            pass

    def _environment(self) -> dict[str, str]:
        """Ours, without what is said there of another terminal: its size, and that nobody looks at it."""
        ours = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "CI")}
        return ours | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LOTR_TUI_HOME": str(self._home)}

    @property
    def _name(self) -> str:
        return " ".join(self._command[1:3])


def shown(output: bytes) -> str:
    """The text in what was written, without colours and moves of the cursor."""
    return _CONTROL.sub("", output.decode("utf-8", "replace"))
