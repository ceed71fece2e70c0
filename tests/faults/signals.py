"""Signals at moments spread evenly over the start-up of the real program, which must end at once without a traceback.

    python -m tests.faults.signals --moments 40

The programs are the session, the dashboard of `train` and the dashboard of `attach`.
`tests/lotr_tui/monitor/test_outlives_terminal.py` has the short form, in the process of the tests.
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

from engine.runs.directory import CONFIG_FILE, is_locked
from tests.support.terminal import SESSION_COMMAND, Terminal, TerminalError, strip_control_sequences

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
RUN = "finished-run"
PROGRAMS = {
    "session": list[str](),
    "train": ["train", "--preset", "tiny", "--set", "epochs=1", "--set", "threads=1"],
    "attach": ["attach", RUN],
}
SPREAD = 1.5
"""Time over which the signals are spread, as a multiple of the start-up time."""
EXIT_TIMEOUT = 120.0
"""Maximum seconds to the end. A stopped training saves first; one whose terminal was closed continues to its end."""


def send_signal_after(arguments: list[str], number: signal.Signals, delay: float, home: Path) -> tuple[int, float]:
    """Start a program and send it a signal after `delay` seconds.

    Returns:
        The exit status, and the seconds between the signal and the exit.

    Raises:
        AssertionError: If the program shows an error, fails, or does not end.
    """
    output = b""
    with Terminal([*SESSION_COMMAND, *arguments], 80, 24, home).spawn() as terminal:

        def read() -> None:
            nonlocal output
            try:
                output += terminal.read(0.01)
            except TerminalError:  # the program has ended
                time.sleep(0.01)

        def describe() -> str:
            text = strip_control_sequences(output)[-3000:]
            return f"{arguments}, {number.name} after {delay:.2f} s: status {terminal.exit_status}: {text}"

        signal_time = time.monotonic() + delay
        while time.monotonic() < signal_time:
            read()
        os.kill(terminal.pid, number)
        while not terminal.has_exited():
            assert time.monotonic() < signal_time + EXIT_TIMEOUT, f"does not end: {describe()}"
            read()
        seconds = time.monotonic() - signal_time
    assert terminal.exit_status is not None
    # While the modules are imported, Python itself handles ctrl+c, with a traceback.
    if not (number == signal.SIGINT and output.rstrip().endswith(b"KeyboardInterrupt")):
        # Without its handler, the signal ends the process; a training continues after SIGHUP, and exits with 0.
        continues = number == signal.SIGHUP and arguments == PROGRAMS["train"]
        assert terminal.exit_status in (128 + number, -number, *([0] if continues else [])), describe()
        assert b"Error" not in output, describe()
    return terminal.exit_status, seconds


def run_trials(home: Path, moments: int) -> Iterator[str]:
    """Send each signal to each program at several moments, and yield a line for each program and signal.

    Raises:
        AssertionError: If a program fails or does not end, or a training is still running at the end.
    """
    train = [*SESSION_COMMAND, *PROGRAMS["train"], "--no-tui", "--run", RUN]
    subprocess.run(train, env={**os.environ, "LOTR_TUI_HOME": str(home)}, check=True, capture_output=True)
    for name, arguments in PROGRAMS.items():
        start_time = time.monotonic()
        with Terminal([*SESSION_COMMAND, *arguments], 80, 24, home).spawn() as terminal:
            terminal.read_until("help")
            startup_seconds = time.monotonic() - start_time
        for number in SIGNALS:
            statuses: Counter[int] = Counter()
            max_seconds = 0.0
            for moment in range(1, moments + 1):
                delay = SPREAD * startup_seconds * moment / moments
                status, seconds = send_signal_after(arguments, number, delay, home)
                statuses[status] += 1
                max_seconds = max(max_seconds, seconds)
            yield f"{name}, {number.name}: exit statuses {dict(statuses)}, ended within {max_seconds:.1f} s"
        active = [run.name for run in (home / "runs").glob("*/") if (run / CONFIG_FILE).exists() and is_locked(run)]
        assert not active, f"still being trained: {active}"


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=40, help="number of moments for each program and signal")
    options = parser.parse_args()
    os.environ["LOTR_TUI_DEBUG"] = "1"
    for number in SIGNALS:  # a process started by nohup inherits ignored signals, and so do its children
        signal.signal(number, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as folder:
        for line in run_trials(Path(folder), options.moments):
            print(line, flush=True)


if __name__ == "__main__":
    main()
