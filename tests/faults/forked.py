"""Something done in a forked process: watched for time, memory, and what it says."""

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

SECONDS = 5
"""Of the processor, after which it counts as hanging; other processes may have it meanwhile."""
TIMES_WAITED = 12
"""So much longer it may take by the clock."""
MOST_MB = 500
"""More than a child that does nothing."""
ADDRESS_SPACE = 4_000_000_000
"""Beyond what there is when it begins: so that nothing here takes the memory of the machine."""
BROKE = 99
"""The exit code of what raised an error that is none of ours."""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    code: int
    """Negative: the signal that ended it."""
    stdout: str
    stderr: str
    megabytes: float
    """The most memory it had at once, beyond that of a child that does nothing."""

    @property
    def problem(self) -> str:
        """What a command of ours may not do, whatever it is given; "" if it did nothing of that."""
        if self.code in (-signal.SIGALRM, -signal.SIGXCPU):
            return f"takes over {SECONDS} s{'' if self.code == -signal.SIGXCPU else ', waiting'}"
        if self.megabytes > MOST_MB:
            return f"takes {self.megabytes:.0f} MB"
        if self.code not in (0, 1, 2):
            return f"ends with {self.code}: {self.stderr[-2000:]}"
        if "Traceback" in self.stderr or "LOTR_TUI_DEBUG" in self.stderr:
            return f"breaks: {self.stderr[-2000:]}"
        if self.code and len(self.stderr.splitlines()) != 1:
            return f"does not say in one line why it ends with {self.code}: {self.stderr[-2000:]!r}"
        for line in (*self.stdout.split("\n"), *self.stderr.split("\n")):
            if not line.isprintable():
                return f"sends {line[:500]!r} to the terminal"
        return ""


class Forks:
    """Runs things in forked children of this process, which has imported what they need."""

    def __init__(self, folder: Path) -> None:
        """What they print goes to files in `folder`."""
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        self._idle = 0.0
        gc.freeze()  # so that children do not copy what is here
        self._idle = self.run(lambda: 0).megabytes

    def run(self, action: Callable[[], int], seconds: int = SECONDS) -> Outcome:
        """Do it, `seconds` long at most."""
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = BROKE
            try:
                code = self._act(action, seconds)
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                os._exit(code)
        _, status, usage = os.wait4(child, 0)
        said = [path.read_bytes().decode(errors="backslashreplace") for path in (self._stdout, self._stderr)]
        return Outcome(os.waitstatus_to_exitcode(status), said[0], said[1], usage.ru_maxrss / 1000 - self._idle)

    def _act(self, action: Callable[[], int], seconds: int) -> int:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # ends it even where Python has no say
        signal.alarm(TIMES_WAITED * seconds)
        for path, number in ((os.devnull, 0), (self._stdout, 1), (self._stderr, 2)):
            flags = os.O_RDWR if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, flags, 0o600), number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return action()
