"""Signals at moments spread evenly over the start of the real program: it ends at once, and tells of no exception.

    python -m tests.faults.signals --moments 40

The session, the dashboard of `train` and that of `attach`. `tests/lotr_tui/test_outliving.py` has the short form, in
the process of the tests.
"""

import argparse
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from engine.runs.store import CONFIG, is_written
from lotr_tui.bench.subjects import SESSION_COMMAND
from lotr_tui.bench.terminal import BenchError, Terminal, shown

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
RUN = "ended"
PROGRAMS = {
    "session": list[str](),
    "train": ["train", "--preset", "tiny", "--set", "epochs=1", "--set", "threads=1"],
    "attach": ["attach", RUN],
}
LONGER = 1.5
"""The moments are spread over so many times what the program takes to its first keys."""
END_SECONDS = 120.0
"""A training that is told to end saves first; one whose terminal was closed goes on to its end."""


def interrupted(program: list[str], number: signal.Signals, seconds: float, home: Path) -> tuple[int, float]:
    """Start a program, send it the signal after so many seconds; its exit status, and the seconds that it took to end.

    Raises:
        AssertionError: it told of an exception, ended as a program does that broke, or did not end.
    """
    output = b""
    with Terminal([*SESSION_COMMAND, *program], 80, 24, home).opened() as terminal:

        def read() -> None:
            nonlocal output
            try:
                output += terminal.read(0.01)
            except BenchError:  # it has ended
                time.sleep(0.01)

        told = time.monotonic() + seconds
        while time.monotonic() < told:
            read()
        os.kill(terminal.pid, number)
        while not terminal.ended():
            said = f"{program} at {seconds:.2f} s, {number.name}: {shown(output)[-3000:]}"
            assert time.monotonic() < told + END_SECONDS, f"does not end: {said}"
            read()
        took = time.monotonic() - told
    said = f"{program} at {seconds:.2f} s, {number.name}: {terminal.status}: {shown(output)[-3000:]}"
    # While its modules are imported, nothing hears ctrl+c but Python itself, which says so.
    if not (number == signal.SIGINT and output.rstrip().endswith(b"KeyboardInterrupt")):
        assert terminal.status in (0, 130, -number), said
        assert b"Error" not in output, said
    return terminal.status, took


def all_signals(home: Path, moments: int) -> Iterator[str]:
    """A line for each program and signal.

    Raises:
        AssertionError: as `interrupted`.
    """
    run = [*SESSION_COMMAND, *PROGRAMS["train"], "--no-tui", "--run", RUN]
    subprocess.run(run, env={**os.environ, "LOTR_TUI_HOME": str(home)}, check=True, capture_output=True)
    for what, program in PROGRAMS.items():
        began = time.monotonic()
        with Terminal([*SESSION_COMMAND, *program], 80, 24, home).opened() as terminal:
            terminal.until("help")
            to_first_keys = time.monotonic() - began
        for number in SIGNALS:
            ends: Counter[int] = Counter()
            longest = 0.0
            for moment in range(1, moments + 1):
                seconds = LONGER * to_first_keys * moment / moments
                status, took = interrupted(program, number, seconds, home)
                ends[status] += 1
                longest = max(longest, took)
            yield f"{what}, {number.name}: exit statuses {dict(ends)}, at most {longest:.1f} s to its end"
        written = [path.name for path in (home / "runs").glob("*/") if (path / CONFIG).exists() and is_written(path)]
        assert not written, f"still being written: {written}"


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=40)
    options = parser.parse_args()
    os.environ["LOTR_TUI_DEBUG"] = "1"
    for number in SIGNALS:  # started by nohup or in the background, this would ignore some, and what it starts too
        signal.signal(number, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as folder:
        for line in all_signals(Path(folder), options.moments):
            print(line, flush=True)


if __name__ == "__main__":
    main()
