"""Two processes that train together, and one with two threads: the notebook's network and batch, bundled dialogues."""

import math
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.runs.metrics import current_rows
from engine.runs.store import METRICS
from engine.runtime.process import torchrun
from lotr_tui.bench.figures import Figure, Skipped, median
from lotr_tui.bench.terminal import BenchError

PROCESSES = 2
EPOCHS = 3
"""Of 12 updates each."""
SETTINGS: dict[str, object] = {
    "precision": "fp32",
    "device": "cpu",
    "validation": "true",
    "evaluate_every": EPOCHS,
    "checkpoint_seconds": 0,
    "keep_epochs": "false",
    "epochs": EPOCHS,
}


def scale_out(repeat: int) -> Iterator[Figure | Skipped]:
    """Tokens a second of both, in turn, and how far the losses of their updates lie apart.

    Raises:
        BenchError: a training failed.
    """
    if (cores := os.cpu_count() or 1) < PROCESSES:
        yield Skipped(f"{PROCESSES} processes by torchrun", f"this machine has {cores} core")
        return
    pairs = [(train(PROCESSES, threads=1), train(1, threads=PROCESSES)) for _ in range(repeat)]
    name, against = f"training, {PROCESSES} processes", f"training, {PROCESSES} threads"
    yield median(name, "tokens/s", [several.tokens_per_second for several, _ in pairs])
    yield median(against, "tokens/s", [alone.tokens_per_second for _, alone in pairs])
    ratios = [several.tokens_per_second / alone.tokens_per_second for several, alone in pairs]
    yield median(f"ratio of {name} to {against}", "", ratios, least=0.9)
    apart = [furthest_apart(several, alone) for several, alone in pairs]
    yield median(f"{name}, losses away from {against}", "nats", apart, limit=1e-4)


@dataclass(frozen=True)
class Trained:
    """How a training went."""

    tokens_per_second: float
    """From the end of its first update on."""
    losses: tuple[float, ...]
    """Of each update."""


def train(processes: int, threads: int, **more: object) -> Trained:
    """Train by so many processes of so many threads each; `more` settings.

    Raises:
        BenchError: it failed.
    """
    settings = [part for name, value in (SETTINGS | more).items() for part in ("--set", f"{name}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *torchrun(processes),
            "lotr_tui.bench.training.distributed",
            "train",
            "--no-tui",
            "--threads",
            str(threads),
        ]
        done = subprocess.run(
            [*command, "--preset", "notebook", "--runs-dir", folder, "--run", "run", *settings],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise BenchError(f"a training by {processes} processes failed: {done.stderr[-300:]}")
        rows = current_rows(Path(folder) / "run" / METRICS)
    steps = [row for row in rows if row["event"] == "step"]
    (words,) = (row["train_tokens"] for row in rows if row["event"] == "started")
    read = words * (steps[-1]["epoch"] - steps[0]["epoch"])
    seconds = steps[-1]["seconds"] - steps[0]["seconds"]
    return Trained(read / seconds, tuple(math.log(row["train_perplexity"]) for row in steps))


def furthest_apart(first: Trained, second: Trained) -> float:
    """The largest difference between losses of the same update."""
    return max(abs(a - b) for a, b in zip(first.losses, second.losses, strict=True))


if __name__ == "__main__":
    import engine.training.trainer
    from lotr_tui.__main__ import main

    engine.training.trainer.REPORT_SECONDS = 0.0  # every update is reported
    main()
