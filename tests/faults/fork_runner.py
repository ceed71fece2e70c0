"""Functions run in forked processes, with limits on time and memory, and checks of their exit code and output."""

import contextlib
import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CPU_SECONDS = 5
"""Maximum processor time; other processes may use the processor meanwhile."""
MAX_WAIT_FACTOR = 12
"""Maximum elapsed time, as a multiple of the maximum processor time."""
MAX_MEGABYTES = 500
"""Maximum memory in addition to the memory of an idle child."""
ADDRESS_SPACE = 4_000_000_000
"""Maximum bytes that a process may allocate in addition to its memory at the start; protects the machine."""
UNEXPECTED_ERROR = 99
"""Exit code after an unexpected exception."""


@dataclass(frozen=True)
class ForkResult:
    """Exit code, output and memory of a forked process."""

    code: int
    """Exit code, or the negative number of the signal that ended the process."""
    stdout: str
    stderr: str
    megabytes: float
    """Maximum memory in addition to the memory of an idle child."""

    @property
    def problem(self) -> str:
        """The rule for commands that the process violated, or "" if it violated none."""
        if self.code == -signal.SIGXCPU:
            return f"takes over {CPU_SECONDS} s"
        if self.code == -signal.SIGALRM:
            return f"waits for over {MAX_WAIT_FACTOR * CPU_SECONDS} s"
        if self.megabytes > MAX_MEGABYTES:
            return f"takes {self.megabytes:.0f} MB"
        if self.code not in (0, 1, 2):
            return f"ends with {self.code}: {self.stderr[-2000:]}"
        if "Traceback" in self.stderr or "LOTR_TUI_DEBUG" in self.stderr:
            return f"unexpected exception: {self.stderr[-2000:]}"
        if self.code and len(self.stderr.splitlines()) != 1:
            return f"ends with {self.code} without a reason of one line: {self.stderr[-2000:]!r}"
        for line in (*self.stdout.split("\n"), *self.stderr.split("\n")):
            if not line.isprintable():
                return f"sends {line[:500]!r} to the terminal"
        return ""


class ForkRunner:
    """Runner of functions in forks of this process, which has imported the modules that the functions need."""

    def __init__(self, folder: Path) -> None:
        """Store the output of the forks in `folder`."""
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        self._idle_megabytes = 0.0
        gc.freeze()  # otherwise the garbage collection of a fork would copy the memory of this process
        self._idle_megabytes = self.run(lambda: 0).megabytes

    def run(self, function: Callable[[], int], cpu_seconds: int = CPU_SECONDS) -> ForkResult:
        """Run a function, which returns the exit code, for at most `cpu_seconds`."""
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = UNEXPECTED_ERROR
            try:
                self._limit_and_redirect(cpu_seconds)
                code = function()
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                os._exit(code)
        _, status, usage = os.wait4(child, 0)
        stdout, stderr = (path.read_bytes().decode(errors="backslashreplace") for path in (self._stdout, self._stderr))
        return ForkResult(
            os.waitstatus_to_exitcode(status), stdout, stderr, usage.ru_maxrss / 1000 - self._idle_megabytes
        )

    def _limit_and_redirect(self, cpu_seconds: int) -> None:
        """Set the limits of this process, and redirect its output to the files of the runner."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))  # works in extension modules too
        signal.alarm(MAX_WAIT_FACTOR * cpu_seconds)
        for path, number in ((os.devnull, 0), (self._stdout, 1), (self._stderr, 2)):
            flags = os.O_RDWR if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, flags, 0o600), number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        limit_address_space()


def limit_address_space() -> None:
    """Let this process allocate at most `ADDRESS_SPACE` bytes more, so that a huge allocation fails at once."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
