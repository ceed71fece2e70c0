"""Time from the start of `train --preset tiny` until its model is better than a Kneser-Ney model on validation."""

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lotr_tui.bench.measurement import Measurement, compare
from lotr_tui.bench.programs import SESSION_COMMAND
from lotr_tui.bench.terminal import BenchError
from lotr_tui.bench.training.speed import run_baseline

BASELINE_EPOCHS = 50
"""Epochs of the notebook, after which its model is still worse than Kneser-Ney."""
TIMED_BASELINE_EPOCHS = 3
"""Epochs that are timed; the time of the others is extrapolated."""


def measure_time_to_quality(repeat: int, csv: Path | None) -> Iterator[Measurement]:
    """Measure the time of a training, including the start of Python, and the time of the notebook's 50 epochs."""
    name, baseline_name = "train until better than Kneser-Ney, from a cold start", "50 epochs of the notebook's loop"
    pairs = [(seconds_to_quality(csv), _baseline_seconds(csv)) for _ in range(repeat)]
    yield from compare(name, baseline_name, "s", pairs, ratio_upper_limit=0.05)


def seconds_to_quality(csv: Path | None) -> float:
    """Return the seconds until the validation perplexity is lower than the Kneser-Ney model's."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        data = [] if csv is None else ["--csv", str(csv)]
        options = ["--preset", "tiny", "--mode", "stream", "--no-tui", "--json", "--runs-dir", folder, *data]
        with subprocess.Popen([*SESSION_COMMAND, "train", *options], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            kneser_ney: float | None = None
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "started":
                    kneser_ney = event["kneser_ney_perplexity"]
                if event["event"] == "evaluated" and kneser_ney is not None and event["valid_perplexity"] < kneser_ney:
                    seconds = time.perf_counter() - started
                    process.kill()
                    return seconds
    raise BenchError("a training of the tiny preset ended above the perplexity of Kneser-Ney")


def _baseline_seconds(csv: Path | None) -> float:
    """Return the seconds of `BASELINE_EPOCHS` epochs, extrapolated from a few epochs and the start of Python."""
    started = time.perf_counter()
    epoch_seconds = run_baseline(csv, TIMED_BASELINE_EPOCHS).epoch_seconds
    seconds = time.perf_counter() - started
    return seconds + (BASELINE_EPOCHS - len(epoch_seconds)) * statistics.median(epoch_seconds)
