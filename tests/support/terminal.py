"""A program in a pseudo-terminal whose keys are pressed and whose output is read, timed and counted."""

import os
import pty
import re
import select
import struct
import sys
import tempfile
import termios
import time
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from signal import SIGKILL

SESSION_COMMAND = [sys.executable, "-m", "lotr_tui"]
INPUT_READY_TEXT = "Type here"
"""Text on the screen as soon as the session accepts keys: the placeholder of the prompt, in the first paint."""
MODEL_READY_TEXT = "Say hello"
"""Text on the screen as soon as the model is loaded: the beginning of the welcome text."""
TIMEOUT_SECONDS = 60.0
"""Maximum wait for any text, key or exit."""
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class TerminalError(Exception):
    """The program ended, or did not do in time what was expected."""


class Terminal:
    """A program in a pseudo-terminal.

    Methods that read or press keys raise `TerminalError` if the program ends or does not respond in time.
    """

    def __init__(self, command, width, height, home):
        """Prepare a terminal with `home` as `LOTR_TUI_HOME`; `spawn` starts the program."""
        self._command = [str(argument) for argument in command]
        self.size = width, height
        self._home = home
        self._fd = None
        self.pid = 0
        self._recent_output = self._unread = b""
        self.exit_status = None
        """Exit status, or the negative number of the signal that ended the program; None before `has_exited`."""

    @contextmanager
    def spawn(self):
        """Start the program, and kill it when the context exits."""
        self.exit_status, self._recent_output, self._unread = None, b"", b""
        program, command = self._command[0], self._command
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "CI")}
        terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LOTR_TUI_HOME": str(self._home)}
        environment = inherited | terminal
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:  # only execve: other threads of the parent may have held locks at the fork
                os.execve(program, command, environment)
            finally:  # if execve fails, the copy of the parent must not continue
                os._exit(127)
        os.set_blocking(self._fd, False)
        self.resize(*self.size)
        modes = self.modes()
        modes[0] &= ~termios.IXON  # otherwise ctrl+s, pressed while no app reads it, would block the output
        self.set_modes(modes)
        try:
            yield self
        finally:
            if not self.has_exited():
                os.kill(self.pid, SIGKILL)
                os.waitpid(self.pid, 0)
            self.hang_up()

    def has_exited(self):
        """Return True if the program has ended, without waiting."""
        if self.exit_status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.exit_status = os.waitstatus_to_exitcode(status) if pid else None
        return self.exit_status is not None

    def resize(self, width, height):
        ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def modes(self):
        return termios.tcgetattr(self._fd)

    def set_modes(self, modes):
        """Change the modes of the terminal, as a shell does while the program is stopped."""
        termios.tcsetattr(self._fd, termios.TCSANOW, modes)

    def hang_up(self):
        """Close the terminal, as a lost connection does."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def read(self, timeout=0.05):
        """Return the available output; if there is none, wait up to `timeout` seconds for some."""
        if self._unread:
            output, self._unread = self._unread, b""
            return output
        ready, _, _ = select.select([self._fd], [], [], timeout)
        try:
            output = os.read(self._fd, 1 << 16) if ready else b""
        except OSError as error:
            last_output = " ".join(strip_control_sequences(self._recent_output).split())[-500:]
            raise TerminalError(f"{self} has ended; its last output: {last_output!r}") from error
        self._recent_output = (self._recent_output + output)[-2000:]
        return output

    def write(self, keys):
        """Press keys. Output that arrives before the program has read them is kept for `read`."""
        unread, deadline = b"", time.perf_counter() + TIMEOUT_SECONDS
        while keys:
            with suppress(BlockingIOError):
                keys = keys[os.write(self._fd, keys) :]
                continue
            unread += self.read(0.01)  # a program that is blocked on its output reads no keys
            self._check_time(deadline, "read the keys")
        self._unread += unread

    def read_until(self, text):
        """Read until `text` appears in the output, and return the time at which it was read."""
        recent, deadline = b"", time.perf_counter() + TIMEOUT_SECONDS
        while True:
            output = self.read()
            read_at = time.perf_counter()
            recent = (recent + output)[-200_000:]
            if output and text in strip_control_sequences(recent):
                return read_at
            self._check_time(deadline, f"show {text or 'anything'!r}")

    def press(self, keys, expected=""):
        """Press keys, and return the seconds until `expected` appears in the output (by default, until any output)."""
        started = time.perf_counter()
        self.write(keys)
        return self.read_until(expected) - started

    def read_until_exit(self):
        deadline = time.perf_counter() + TIMEOUT_SECONDS
        with suppress(TerminalError):
            while time.perf_counter() < deadline:
                self.read()
        self._check_time(deadline, "end")

    def read_until_quiet(self, quiet_seconds, timeout):
        """Read until there is no output for `quiet_seconds`, at most for `timeout` seconds."""
        end = time.perf_counter() + timeout
        while time.perf_counter() < end and self.read(quiet_seconds):
            pass

    def __str__(self):
        return " ".join(self._command[1:3])

    def _check_time(self, deadline, action):
        if time.perf_counter() >= deadline:
            raise TerminalError(f"{self} did not {action} within {TIMEOUT_SECONDS:.0f} s")


@contextmanager
def run_in_terminal(command, width=80, height=24, ready_text=MODEL_READY_TEXT, home=None):
    """Run a program in a terminal, and enter the context once `ready_text` is shown and the output is quiet.

    `LOTR_TUI_HOME` is `home`, or an empty temporary folder.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        Terminal(command, width, height, home or Path(folder)).spawn() as terminal,
    ):
        terminal.read_until(ready_text)
        terminal.read_until_quiet(0.5, 3)
        yield terminal


def epoch_marker(epochs):
    """Return the text after the current epoch on the dashboard of a running training."""
    return f"/{epochs} ·"


def strip_control_sequences(output):
    """Return the text of terminal output without colours and cursor movements."""
    return _CONTROL_SEQUENCE.sub("", output.decode("utf-8", "replace"))
