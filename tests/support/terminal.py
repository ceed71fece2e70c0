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
from signal import SIG_DFL, SIGHUP, SIGINT, SIGKILL, SIGQUIT, signal

from engine.models.pretrained.names import SMOLLM2, base_folder
from lotr_tui.session.settings import SettingsStore

SESSION_COMMAND = [sys.executable, "-m", "lotr_tui"]
INPUT_READY_TEXT = "Type here"
"""Text on the screen as soon as the session accepts keys: the placeholder of the prompt, in the first paint."""
MODEL_READY_TEXT = "Say hello"  # text on the screen as soon as the model is loaded: the beginning of the welcome text
TIMEOUT_SECONDS = 60.0  # maximum wait for any text, key or exit
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def answer_first_question(home):
    """Write settings of a user who has chosen the small LSTM, so that a session asks nothing and fetches nothing."""
    store = SettingsStore(Path(home) / "settings.json")
    store.change(first_model="lstm")
    store.save()


def link_fetched_models(home):
    Path(home, "models").symlink_to(base_folder(SMOLLM2).parent)


class TerminalError(Exception):
    """The program ended, or did not do in time what was expected."""


class Terminal:
    """A program in a pseudo-terminal.

    Methods that read or press keys raise `TerminalError` if the program ends or does not respond in time.
    """

    def __init__(self, command, width, height, home):
        """Prepare a terminal with `home` as `LOTR_TUI_HOME`; `spawn` starts the program."""
        self._command, self._home = [str(argument) for argument in command], home
        self.size = width, height
        self.pid, self._fd, self._recent_output, self._unread = 0, None, b"", b""
        self.exit_status = None
        """Exit status, or the negative number of the signal that ended the program; None before `has_exited`."""

    @contextmanager
    def spawn(self):
        """Start the program, and kill it when the context exits."""
        if self._command[0] == sys.executable:
            answer_first_question(self._home)
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "CI")}
        terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LOTR_TUI_HOME": str(self._home)}
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:  # nothing that takes a lock: other threads of the parent may have held it at the fork
                for number in (SIGHUP, SIGINT, SIGQUIT):  # ignored in what `nohup` or a shell's `&` started
                    signal(number, SIG_DFL)
                os.execve(self._command[0], self._command, inherited | terminal)
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
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def read(self, timeout=0.05):
        """Return the available output; if there is none, wait up to `timeout` seconds for some."""
        if self._unread:
            output, self._unread = self._unread, b""
            return output
        if self._fd is None:
            raise TerminalError("the terminal is closed")
        ready, _, _ = select.select([self._fd], [], [], timeout)
        try:
            output = os.read(self._fd, 1 << 16) if ready else b""
        except OSError as error:
            raise self._error("has ended") from error
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
            if time.perf_counter() >= deadline:
                raise self._error("did not read the keys in time")
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
            if read_at >= deadline:
                raise self._error(f"did not show {text or 'anything'!r} in time")

    def press(self, keys, expected=""):
        """Press keys, and return the seconds until `expected` appears in the output (by default, until any output)."""
        started = time.perf_counter()
        self.write(keys)
        return self.read_until(expected) - started

    def output_until(self, condition, timeout=TIMEOUT_SECONDS):
        """Return the output until `condition` holds of it. The program may end, or the terminal be closed, before."""
        output, deadline = b"", time.perf_counter() + timeout
        while not condition(output):
            if time.perf_counter() >= deadline:
                raise self._error(f"did not do what was expected within {timeout:.0f} s")
            try:
                output += self.read(0.02)
            except TerminalError:
                time.sleep(0.01)
        return output

    def read_until_exit(self, timeout=TIMEOUT_SECONDS):
        """Wait until the program has ended, and return its output until then."""
        output = self.output_until(lambda _: self.has_exited(), timeout)
        with suppress(TerminalError):
            while rest := self.read(0.02):
                output += rest
        return output

    def read_until_quiet(self, quiet_seconds, timeout):
        end = time.perf_counter() + timeout
        while time.perf_counter() < end and self.read(quiet_seconds):
            pass

    def _error(self, problem):
        last_output = " ".join(strip_control_sequences(self._recent_output).split())[-500:]
        return TerminalError(f"{' '.join(self._command[1:3])} {problem}; its last output: {last_output!r}")


@contextmanager
def run_in_terminal(command, width=80, height=24, ready_text=MODEL_READY_TEXT):
    """Run a program in a terminal, and enter the context once `ready_text` is shown and the output is quiet."""
    with tempfile.TemporaryDirectory() as home, Terminal(command, width, height, home).spawn() as terminal:
        terminal.read_until(ready_text)
        terminal.read_until_quiet(0.5, 3)
        yield terminal


def strip_control_sequences(output):
    return _CONTROL_SEQUENCE.sub("", output.decode("utf-8", "replace"))
