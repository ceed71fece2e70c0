"""Memory, CPU time and output of a session, compared with a minimal Textual app."""

import time
from collections.abc import Iterator

from lotr_tui.bench.measurement import Measurement, alternate, compare, median_of_runs
from lotr_tui.bench.processes import cpu_seconds, unique_megabytes
from lotr_tui.bench.programs import BARE_COMMAND, BARE_READY_TEXT, PROMPT, SESSION_COMMAND, run_in_terminal

REPLY_DONE_TEXT = "s/s"
"""Text in the line below a finished reply: the end of "words/s" or "tokens/s"."""
WINDOW_SECONDS = 10.0
"""Seconds for which an idle session is observed."""


def measure_memory(repeat: int) -> Iterator[Measurement]:
    """Measure the unshared memory of the session after its first reply, and of the minimal app, in turn."""
    pairs = alternate(_session_megabytes, _bare_app_megabytes, repeat)
    name, baseline_name = "memory of the session after a reply", "memory of a bare Textual app"
    yield from compare(name, baseline_name, "MB", pairs, ratio_upper_limit=2.5)


def _session_megabytes() -> float:
    with run_in_terminal(SESSION_COMMAND, 80, 24) as terminal:
        terminal.write(f"{PROMPT}\r".encode())
        terminal.read_until(REPLY_DONE_TEXT)
        terminal.read_until_quiet(0.5, 3)
        return unique_megabytes(terminal.pid)


def _bare_app_megabytes() -> float:
    with run_in_terminal(BARE_COMMAND, 80, 24, BARE_READY_TEXT) as terminal:
        return unique_megabytes(terminal.pid)


def measure_idle(repeat: int) -> Iterator[Measurement]:
    """Measure an idle session and an idle minimal app side by side for `WINDOW_SECONDS` each time."""
    names = ("idle session", "idle bare Textual app")
    output_bytes: dict[str, list[float]] = {name: [] for name in names}
    cpu_percent: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeat):
        with (
            run_in_terminal(SESSION_COMMAND, 80, 24) as session,
            run_in_terminal(BARE_COMMAND, 80, 24, BARE_READY_TEXT) as bare,
        ):
            session.read_until_quiet(1, 5)
            terminals = dict(zip(names, (session, bare), strict=True))
            num_bytes = dict.fromkeys(names, 0)
            cpu_before = {name: cpu_seconds(terminal.pid) for name, terminal in terminals.items()}
            started = time.perf_counter()
            while (seconds := time.perf_counter() - started) < WINDOW_SECONDS:
                for name, terminal in terminals.items():
                    num_bytes[name] += len(terminal.read(0.1))
            for name, terminal in terminals.items():
                output_bytes[name].append(num_bytes[name])
                cpu_percent[name].append(100 * (cpu_seconds(terminal.pid) - cpu_before[name]) / seconds)
    for name, upper_limit in zip(names, (0.0, None), strict=True):
        yield median_of_runs(f"output of an {name} in {WINDOW_SECONDS:.0f} s", "bytes", output_bytes[name], upper_limit)
    for name, upper_limit in zip(names, (0.5, None), strict=True):
        yield median_of_runs(f"CPU use of an {name}, of one core", "%", cpu_percent[name], upper_limit)
