"""What a session costs that nobody touches: bytes over the line, and time of the processor."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from lotr_tui.bench.figures import Figure, Skipped, median
from lotr_tui.bench.subjects import BARE_COMMAND, BARE_READY, SESSION_COMMAND, running

WINDOW_SECONDS = 10.0


def idle(repeat: int, window: float = WINDOW_SECONDS) -> Iterator[Figure | Skipped]:
    """A session and a bare app, side by side, for `window` seconds."""
    bytes_written: tuple[list[float], list[float]] = ([], [])
    shares: tuple[list[float], list[float]] = ([], [])
    measurable = cpu_seconds(os.getpid()) is not None
    for _ in range(repeat):
        with running(SESSION_COMMAND, 80, 24) as session, running(BARE_COMMAND, 80, 24, BARE_READY) as bare:
            session.settle(1, 5)
            counts = [0, 0]
            before = [cpu_seconds(terminal.pid) for terminal in (session, bare)]
            started = time.perf_counter()
            while (seconds := time.perf_counter() - started) < window:
                for number, terminal in enumerate((session, bare)):
                    counts[number] += len(terminal.read(0.1))
            after = [cpu_seconds(terminal.pid) for terminal in (session, bare)]
            for number in (0, 1):
                bytes_written[number].append(counts[number])
                shares[number].append(100 * ((after[number] or 0) - (before[number] or 0)) / seconds)
    yield median(f"idle session, in {window:.0f} s", "bytes", bytes_written[0], 0)
    yield median(f"idle bare Textual app, in {window:.0f} s", "bytes", bytes_written[1])
    if not measurable:
        yield Skipped("idle session, share of a core", "this system tells of a process's time nowhere under /proc")
        return
    yield median("idle session, share of a core", "%", shares[0], 0.5)
    yield median("idle bare Textual app, share of a core", "%", shares[1])


def cpu_seconds(pid: int) -> float | None:
    """The processor's time that a process has had, all its threads together; None where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
