"""Training by two processes compared with two threads: the notebook's network and batch on the bundled dialogues.

`python -m lotr_tui.bench.training.distributed ARGUMENTS…` runs `lotr-tui ARGUMENTS…` and reports every training step.
"""

import math
import os
import runpy
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.runs.directory import METRICS_FILE
from engine.runs.metrics import read_current_rows
from engine.runtime.process import launch_command
from lotr_tui.bench.measurement import Measurement, SkippedMeasurement, compare, median_of_runs
from lotr_tui.bench.programs import set_options
from lotr_tui.bench.terminal import BenchError

NUM_PROCESSES = 2
EPOCHS = 3
"""Epochs of 12 steps each."""
SETTINGS: dict[str, object] = {"precision": "fp32", "device": "cpu", "validation_metric": "perplexity"}
SETTINGS |= {"epochs": EPOCHS, "eval_every_epochs": EPOCHS, "checkpoint_seconds": 0, "keep_epoch_checkpoints": "false"}


@dataclass(frozen=True)
class TrainingResult:
    """Speed of a training from the end of its first step on, and the loss of each step in nats per token."""

    tokens_per_second: float
    losses: tuple[float, ...]


def measure_scale_out(repeat: int) -> Iterator[Measurement | SkippedMeasurement]:
    """Measure the speed of both in turn, and the difference between their losses."""
    if (cores := os.cpu_count() or 1) < NUM_PROCESSES:
        yield SkippedMeasurement(f"{NUM_PROCESSES} processes by torchrun", f"this machine has {cores} core")
        return
    pairs = [(train(NUM_PROCESSES, num_threads=1), train(1, num_threads=NUM_PROCESSES)) for _ in range(repeat)]
    processes_name, threads_name = f"{NUM_PROCESSES} processes", f"{NUM_PROCESSES} threads"
    rates = [(processes.tokens_per_second, threads.tokens_per_second) for processes, threads in pairs]
    names = (f"training with {processes_name}", f"training with {threads_name}")
    yield from compare(*names, "tokens/s", rates, ratio_lower_limit=0.9)
    differences = [max_loss_difference(processes, threads) for processes, threads in pairs]
    name = f"largest loss difference between {processes_name} and {threads_name}"
    yield median_of_runs(name, "nats", differences, upper_limit=1e-4)


def train(num_processes: int, num_threads: int, **overrides: object) -> TrainingResult:
    """Train in several processes of `num_threads` threads with `SETTINGS`, changed by `overrides`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*launch_command(num_processes), "lotr_tui.bench.training.distributed", "train", "--no-tui"]
        command += ["--threads", str(num_threads), "--preset", "notebook", "--runs-dir", folder, "--run", "run"]
        command += set_options(SETTINGS | overrides)
        process = subprocess.run(command, capture_output=True, text=True)
        if process.returncode:
            errors = [line for line in process.stderr.splitlines() if line.startswith("lotr-tui: ")]
            error = (errors or [process.stderr])[0][-300:]
            raise BenchError(f"a training by {num_processes} processes failed: {error}")
        rows = read_current_rows(Path(folder) / "run" / METRICS_FILE)
    steps = [row for row in rows if row["event"] == "step"]
    (train_tokens,) = (row["train_tokens"] for row in rows if row["event"] == "started")
    num_tokens = train_tokens * (steps[-1]["epoch"] - steps[0]["epoch"])
    seconds = steps[-1]["seconds"] - steps[0]["seconds"]
    return TrainingResult(num_tokens / seconds, tuple(math.log(row["train_perplexity"]) for row in steps))


def max_loss_difference(first: TrainingResult, second: TrainingResult) -> float:
    """Return the largest difference between the losses of the same step, in nats per token."""
    return max(abs(a - b) for a, b in zip(first.losses, second.losses, strict=True))


if __name__ == "__main__":
    import engine.training.reporting

    engine.training.reporting.REPORT_INTERVAL = 0.0
    runpy.run_module("lotr_tui", run_name="__main__")
