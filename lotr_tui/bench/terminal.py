"""A program in a pseudo-terminal whose keys are pressed and whose output is timed and counted."""

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
from typing import Any

from engine.errors import LotrError

_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
TIMEOUT_SECONDS = 60.0
"""Maximum wait for any text, key or exit."""


class BenchError(LotrError):
    """Failure of a measured program to do what the measurement expects."""


class Terminal:
    """A program in a pseudo-terminal.

    All methods that read or press keys raise `BenchError` if the program ends, or does not respond in time.
    """

    def __init__(self, command: list[str], width: int, height: int, home: Path) -> None:
        """Prepare a terminal with `home` as `LOTR_TUI_HOME`; `spawn` starts the program."""
        self._command = command
        self._size = width, height
        self._home = home
        self._fd: int | None = None
        self.pid = 0
        """Process id of the program."""
        self._recent_output = b""  # the last bytes that were read
        self._unread = b""
        self.exit_status: int | None = None
        """Exit status of the program, or the negative number of the signal that ended it; None before `has_exited`."""

    @contextmanager
    def spawn(self) -> Iterator["Terminal"]:
        """Start the program, and kill it when the context exits."""
        self.exit_status, self._recent_output, self._unread = None, b"", b""
        program, command, environment = self._command[0], self._command, self._environment()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:  # only execve: other threads of the parent may have held locks at the fork
                os.execve(program, command, environment)
            finally:  # if execve fails, the copy of the parent must not continue
                os._exit(127)
        os.set_blocking(self._fd, False)
        self.resize(*self._size)
        attributes = termios.tcgetattr(self._fd)
        attributes[0] &= ~termios.IXON  # otherwise ctrl+s, pressed while no app reads it, would block the output
        termios.tcsetattr(self._fd, termios.TCSANOW, attributes)
        try:
            yield self
        finally:
            if not self.has_exited():
                os.kill(self.pid, SIGKILL)
                os.waitpid(self.pid, 0)
            self.hang_up()

    def has_exited(self) -> bool:
        """Return True if the program has ended, without waiting."""
        if self.exit_status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.exit_status = os.waitstatus_to_exitcode(status) if pid else None
        return self.exit_status is not None

    def resize(self, width: int, height: int) -> None:
        """Change the size of the terminal; the program is notified."""
        ioctl(self._open_fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def modes(self) -> list[Any]:
        """Return the modes of the terminal, as `termios.tcgetattr` does."""
        return termios.tcgetattr(self._open_fd)

    def set_modes(self, modes: list[Any]) -> None:
        """Change the modes of the terminal, as a shell does while the program is stopped."""
        termios.tcsetattr(self._open_fd, termios.TCSANOW, modes)

    def hang_up(self) -> None:
        """Close the terminal, as a lost connection does."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def _open_fd(self) -> int:
        assert self._fd is not None, "the terminal is closed"
        return self._fd

    def read(self, timeout: float = 0.05) -> bytes:
        """Return the available output; if there is none, wait up to `timeout` seconds for some."""
        if self._unread:
            output, self._unread = self._unread, b""
            return output
        ready, _, _ = select.select([self._open_fd], [], [], timeout)
        try:
            output = os.read(self._open_fd, 1 << 16) if ready else b""
        except OSError as error:
            last_output = " ".join(strip_control_sequences(self._recent_output).split())[-500:]
            raise BenchError(f"{self} ended during its measurement; its last output: {last_output!r}") from error
        self._recent_output = (self._recent_output + output)[-2000:]
        return output

    def write(self, keys: bytes) -> None:
        """Press keys. Output that arrives before the program has read them is kept for `read`."""
        unread, deadline = b"", time.perf_counter() + TIMEOUT_SECONDS
        while keys:
            with suppress(BlockingIOError):
                keys = keys[os.write(self._open_fd, keys) :]
                continue
            unread += self.read(0.01)  # a program that is blocked on its output reads no keys
            if time.perf_counter() > deadline:
                raise self._timeout_error("read the keys")
        self._unread += unread

    def read_until(self, text: str) -> int:
        """Read until `text` appears in the output, and return the number of bytes read."""
        return self._read_text(text)[0]

    def press(self, keys: bytes, expected: str = "") -> float:
        """Press keys, and return the seconds until `expected` appears in the output (by default, until any output)."""
        started = time.perf_counter()
        self.write(keys)
        return self._read_text(expected)[1] - started

    def _read_text(self, text: str) -> tuple[int, float]:
        """Read until `text` appears, and return the number of bytes read and the time of the last read."""
        recent, num_bytes, deadline = b"", 0, time.perf_counter() + TIMEOUT_SECONDS
        while True:
            output = self.read()
            read_at = time.perf_counter()
            num_bytes += len(output)
            recent = (recent + output)[-200_000:]
            if output and text in strip_control_sequences(recent):
                return num_bytes, read_at
            if read_at > deadline:
                raise self._timeout_error(f"show {text or 'anything'!r}")

    def read_until_exit(self) -> None:
        """Read until the program has ended."""
        deadline = time.perf_counter() + TIMEOUT_SECONDS
        with suppress(BenchError):
            while time.perf_counter() < deadline:
                self.read()
        if time.perf_counter() >= deadline:
            raise self._timeout_error("end")

    def read_until_quiet(self, quiet_seconds: float, timeout: float) -> None:
        """Read until there is no output for `quiet_seconds`, at most for `timeout` seconds."""
        end = time.perf_counter() + timeout
        while time.perf_counter() < end and self.read(quiet_seconds):
            pass

    def _environment(self) -> dict[str, str]:
        """Return the current environment without the variables that describe another terminal or a CI system."""
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "CI")}
        return inherited | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LOTR_TUI_HOME": str(self._home)}

    def __str__(self) -> str:
        """Return the first arguments of the command."""
        return " ".join(self._command[1:3])

    def _timeout_error(self, action: str) -> BenchError:
        return BenchError(f"{self} did not {action} within {TIMEOUT_SECONDS:.0f} s")


def strip_control_sequences(output: bytes) -> str:
    """Return the text of terminal output without colours and cursor movements."""
    return _CONTROL_SEQUENCE.sub("", output.decode("utf-8", "replace"))
