"""`attach` to a run of a million reports: when it is seen, when all of it is, whether the screen is ever held up."""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.config import Config
from engine.events import Evaluated, Finished, Sampled, Started, Step, to_record
from engine.runs.store import CONFIG, METRICS, SAMPLES
from lotr_tui.bench.figures import Figure, Skipped, median
from lotr_tui.bench.terminal import Terminal
from lotr_tui.bench.training.event_loop_latency import noting, read_lateness

REPORTS = 1_000_000
EVALUATIONS = 1000
BEAT_SECONDS = 0.002
TEST_PERPLEXITY = 72.3
"""Shown once the end of the record was read, in the paint that has the whole curve."""


@dataclass(frozen=True)
class Attached:
    """How one `attach` went."""

    first_paint: float
    """Seconds to the footer, which is painted last."""
    whole_curve: float
    """Seconds to what the end of the record tells."""
    longest_block: float
    """The most seconds that the event loop was late by."""
    megabytes: float | None
    """Its memory at most; None where there is no /proc."""


def attach(repeat: int, reports: int = REPORTS) -> Iterator[Figure | Skipped]:
    """The same run time and again, on a terminal of 160x45."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "runs" / "long"
        write_long_run(path, reports)
        runs = [attach_once(path) for _ in range(repeat)]
    to = f"attach to {reports:,} reports"
    yield median(f"{to}, first paint", "s", [run.first_paint for run in runs], 0.8)
    yield median(f"{to}, whole curve", "s", [run.whole_curve for run in runs], 5)
    blocks = tuple(1000 * run.longest_block for run in runs)
    yield Figure(f"{to}, longest block of all runs", "ms", max(blocks), blocks, 100)
    megabytes = [run.megabytes for run in runs if run.megabytes is not None]
    if megabytes:
        yield median(f"{to}, memory at most", "MB", megabytes, 300)
    else:
        yield Skipped(f"{to}, memory at most", "this system tells of a process's memory nowhere under /proc")


def attach_once(path: Path) -> Attached:
    """In a process and a terminal of its own.

    Raises:
        BenchError: the whole curve is not there after a minute.
    """
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "lateness.json"
        command = noting(noted, BEAT_SECONDS, "attach", str(path))
        started = time.monotonic()
        with Terminal(command, 160, 45, Path(folder)).opened() as terminal:
            terminal.until("quit")
            painted = time.monotonic()
            terminal.until(f"test {TEST_PERPLEXITY}")
            whole = time.monotonic()
            terminal.settle(0.5, 3)
            megabytes = peak_megabytes(terminal.pid)
            until = time.monotonic()
            terminal.write(b"q")
            terminal.until_end()
        longest = max(read_lateness(noted, started, until))
    return Attached(painted - started, whole - started, longest, megabytes)


def peak_megabytes(pid: int) -> float | None:
    """The most memory a process has had since it began; None where there is no /proc.

    `getrusage` would count what the process that it was forked from had.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def write_long_run(path: Path, reports: int) -> None:
    """A run as a training leaves it: so many reports, evaluations and samples evenly between them."""
    path.mkdir(parents=True)
    (path / CONFIG).write_text(Config("tiny").to_json())
    every = max(1, reports // EVALUATIONS)
    with (path / METRICS).open("w") as metrics, (path / SAMPLES).open("w") as samples:
        started = Started(path.name, "tiny", 752_239, 879, 19_022, 2_227, EVALUATIONS, "cpu", "", 150.9, 90.8)
        metrics.write(json.dumps(to_record(started)) + "\n")
        for number in range(1, reports + 1):
            share = number / reports
            step = Step(
                step=number,
                epoch=EVALUATIONS * share,
                train_perplexity=60 + 90 * (1 - share) ** 2 + number * 7919 % 1009 / 100,
                lr=0.006 * (1 - share),
                gradient_norm=0.2 + number * 31 % 97 / 1000,
                tokens_per_second=9000 + number % 997 / 7,
                seconds=number * 0.0371,
                eta_seconds=(reports - number) * 0.0371,
            )
            metrics.write(json.dumps(to_record(step)) + "\n")
            if number % every == 0:
                valid = 70 + 80 * (1 - share) ** 2
                evaluated = Evaluated(number, EVALUATIONS * share, valid, True, number * 0.0371)
                metrics.write(json.dumps(to_record(evaluated)) + "\n")
                sampled = Sampled(number, EVALUATIONS * share, "bilbo baggins is", "a friend of mine", 0, 0.7)
                samples.write(json.dumps(to_record(sampled)) + "\n")
        finished = Finished("done", path.name, float(EVALUATIONS), 70.0, TEST_PERPLEXITY, reports * 0.0371)
        metrics.write(json.dumps(to_record(finished)) + "\n")
