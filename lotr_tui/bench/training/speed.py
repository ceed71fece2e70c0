"""Training speed, compared with the notebook's loop and with the machine's matrix products."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lotr_tui.bench.measurement import Measurement, SkippedMeasurement, median_of_runs
from lotr_tui.bench.processes import run_module

MODEL_NAME = "training, 2 layers of 512"


class BaselineTraining(NamedTuple):
    """Tokens per epoch, and seconds of each epoch, of a training by the notebook's loop."""

    tokens_per_epoch: int
    epoch_seconds: tuple[float, ...]


class TrainingSpeed(NamedTuple):
    """Speed of lotr-tui's training loop on the notebook's configuration."""

    tokens_per_second: float
    flops_per_second: float
    """Floating-point operations of the matrix products per second."""


def measure_training(repeat: int, csv: Path | None) -> Iterator[Measurement | SkippedMeasurement]:
    """Measure lotr-tui's loop and the notebook's loop in turn, in fp32 and then in bf16."""
    yield from _measure_precision(repeat, csv, "fp32", min_speedup=1.1, min_utilization=0.9)
    if has_bf16():
        yield from _measure_precision(repeat, csv, "bf16", min_speedup=1.7)
    else:
        yield SkippedMeasurement(f"{MODEL_NAME}, bf16", "this CPU has no bf16 instructions")


def _measure_precision(
    repeat: int, csv: Path | None, precision: str, min_speedup: float, min_utilization: float | None = None
) -> Iterator[Measurement]:
    rates, utilizations, baseline_rates, ratios = [], [], [], []
    for _ in range(repeat):
        speed = measure_loop(csv, precision)
        rates.append(speed.tokens_per_second)
        utilizations.append(speed.flops_per_second / measure_matmul_flops_per_second(precision))
        baseline = run_baseline(csv, epochs=2)
        baseline_rates.append(baseline.tokens_per_epoch / baseline.epoch_seconds[-1])
        ratios.append(rates[-1] / baseline_rates[-1])
    name = f"{MODEL_NAME}, {precision}"
    yield median_of_runs(name, "tokens/s", rates)
    yield median_of_runs(f"{MODEL_NAME}, baseline (the notebook's loop, fp32)", "tokens/s", baseline_rates)
    yield median_of_runs(f"{name}, ratio to the baseline", "", ratios, lower_limit=min_speedup)
    yield median_of_runs(f"{name}, fraction of the matrix-product rate", "", utilizations, lower_limit=min_utilization)


def measure_loop(csv: Path | None, precision: str) -> TrainingSpeed:
    """Measure lotr-tui's training loop in a new process; None for `csv` is the bundled corpus."""
    options = _json_options(corpus=_corpus(csv), precision=precision)
    return TrainingSpeed(**run_module("lotr_tui.bench.training.loop_speed", "loop", options))


def measure_matmul_flops_per_second(precision: str) -> float:
    """Measure the floating-point operations per second of large matrix products in a new process."""
    return float(run_module("lotr_tui.bench.training.loop_speed", "matmul", _json_options(precision=precision)))


def run_baseline(csv: Path | None, epochs: int) -> BaselineTraining:
    """Train by the notebook's loop in a new process; None for `csv` is the bundled corpus."""
    options = _json_options(corpus=_corpus(csv), epochs=epochs)
    result = run_module("lotr_tui.bench.training.notebook_loop", options)
    return BaselineTraining(result["tokens_per_epoch"], tuple(result["epoch_seconds"]))


def has_bf16() -> bool:
    """Return True if the CPU has bf16 instructions."""
    cpu_info = Path("/proc/cpuinfo")
    return cpu_info.exists() and any(flag in cpu_info.read_text() for flag in ("avx512_bf16", "amx_bf16", "bf16 "))


def _corpus(csv: Path | None) -> dict[str, str]:
    return {} if csv is None else {"corpus": str(csv)}


def _json_options(**options: object) -> str:
    return json.dumps(options | {"threads": os.cpu_count() or 1})
