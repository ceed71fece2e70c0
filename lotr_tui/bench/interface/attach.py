"""`attach` to a run with a million steps: time to the first paint and to the whole curve, event loop delay, memory."""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from engine import events
from engine.config import Config
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, SAMPLES_FILE
from lotr_tui.bench.event_loop_latency import delay_recording_command, read_delays
from lotr_tui.bench.measurement import Measurement, SkippedMeasurement, median_of_runs
from lotr_tui.bench.processes import peak_megabytes
from lotr_tui.bench.terminal import Terminal

NUM_STEPS = 1_000_000
NUM_EVALUATIONS = 1000
HEARTBEAT_INTERVAL = 0.002
"""Seconds between two checks of the event loop."""
TEST_PERPLEXITY = 72.3
"""Test perplexity of the run, shown together with the whole curve."""
SECONDS_PER_STEP = 0.0371
FOOTER_TEXT = "quit"
"""Text in the footer, which is painted last."""


@dataclass(frozen=True)
class AttachResult:
    """Seconds until the footer and the end of the record are shown, longest delay in seconds, and memory."""

    first_paint: float
    whole_curve: float
    max_event_loop_delay: float
    peak_megabytes: float | None
    """Maximum resident memory; None without `/proc`."""


def measure_attach(repeat: int, num_steps: int = NUM_STEPS) -> Iterator[Measurement | SkippedMeasurement]:
    """Measure `attach` to the same run several times, on a terminal of 160x45."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "runs" / "long"
        write_long_run(path, num_steps)
        runs = [attach_once(path) for _ in range(repeat)]
    name = f"attach to {num_steps:,} steps"
    yield median_of_runs(f"{name}, first paint", "s", [run.first_paint for run in runs], 0.8)
    yield median_of_runs(f"{name}, whole curve", "s", [run.whole_curve for run in runs], 5)
    delays = tuple(1000 * run.max_event_loop_delay for run in runs)
    yield Measurement(f"{name}, longest event loop delay of all runs", "ms", max(delays), delays, 100)
    megabytes = [run.peak_megabytes for run in runs if run.peak_megabytes is not None]
    if megabytes:
        yield median_of_runs(f"{name}, peak memory", "MB", megabytes, 300)
    else:
        yield SkippedMeasurement(f"{name}, peak memory", "this system has no /proc")


def attach_once(path: Path) -> AttachResult:
    """Attach to the run in `path`, in a new process and terminal."""
    with tempfile.TemporaryDirectory() as folder:
        delay_file = Path(folder) / "delays.json"
        command = delay_recording_command(delay_file, HEARTBEAT_INTERVAL, "attach", str(path))
        started = time.monotonic()
        with Terminal(command, 160, 45, Path(folder)).spawn() as terminal:
            terminal.read_until(FOOTER_TEXT)
            painted_at = time.monotonic()
            terminal.read_until(f"test {TEST_PERPLEXITY}")
            complete_at = time.monotonic()
            terminal.read_until_quiet(0.5, 3)
            megabytes = peak_megabytes(terminal.pid)
            ended = time.monotonic()
            terminal.write(b"q")
            terminal.read_until_exit()
        max_delay = max(read_delays(delay_file, started, ended))
    return AttachResult(painted_at - started, complete_at - started, max_delay, megabytes)


def write_long_run(path: Path, num_steps: int) -> None:
    """Write a finished run with `num_steps` steps and evenly spaced evaluations and samples."""
    path.mkdir(parents=True)
    (path / CONFIG_FILE).write_text(Config("tiny").to_json())
    eval_interval = max(1, num_steps // NUM_EVALUATIONS)
    with (path / METRICS_FILE).open("w") as metrics, (path / SAMPLES_FILE).open("w") as samples:
        started = events.Started(
            run=path.name,
            preset="tiny",
            parameters=752_239,
            vocabulary_size=879,
            train_tokens=19_022,
            valid_tokens=2_227,
            epochs=NUM_EVALUATIONS,
            device="cpu",
            corpus_sha256="",
            unigram_perplexity=150.9,
            kneser_ney_perplexity=90.8,
        )
        _write_event(metrics, started)
        for number in range(1, num_steps + 1):
            fraction = number / num_steps
            epoch, seconds = NUM_EVALUATIONS * fraction, number * SECONDS_PER_STEP
            step = events.Step(
                step=number,
                epoch=epoch,
                train_perplexity=60 + 90 * (1 - fraction) ** 2 + number * 7919 % 1009 / 100,
                lr=0.006 * (1 - fraction),
                gradient_norm=0.2 + number * 31 % 97 / 1000,
                tokens_per_second=9000 + number % 997 / 7,
                seconds=seconds,
                eta_seconds=(num_steps - number) * SECONDS_PER_STEP,
            )
            _write_event(metrics, step)
            if number % eval_interval == 0:
                perplexity = 70 + 80 * (1 - fraction) ** 2
                _write_event(metrics, events.Evaluated(number, epoch, perplexity, is_best=True, seconds=seconds))
                texts = ("bilbo baggins is", "a friend of mine")
                _write_event(samples, events.Sampled(number, epoch, *texts, seed=0, temperature=0.7))
        end = (float(NUM_EVALUATIONS), 70.0, TEST_PERPLEXITY, num_steps * SECONDS_PER_STEP)
        _write_event(metrics, events.Finished("done", path.name, *end))


def _write_event(file: TextIO, event: events.TrainingEvent) -> None:
    file.write(json.dumps(events.event_to_dict(event)) + "\n")
