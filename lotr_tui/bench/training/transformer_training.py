"""Training speed of the Transformer of the preset `gpt`, compared with a nanoGPT-style model of the same size."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from lotr_tui.bench.measurement import Measurement, alternate, compare
from lotr_tui.bench.processes import run_module

TRAINER_MODULE = "lotr_tui.bench.training.transformer_loop"
BASELINE_MODULE = "lotr_tui.bench.training.nanogpt_loop"


def measure_transformer_training(repeat: int, csv: Path | None) -> Iterator[Measurement]:
    """Measure both loops in turn in fp32, with the same layers, vocabulary, batch and threads."""
    settings: dict[str, object] = {"precision": "fp32"}
    if csv is not None:
        settings["corpus"] = str(csv)
    pairs = alternate(
        lambda: measure_loop(TRAINER_MODULE, settings), lambda: measure_loop(BASELINE_MODULE, settings), repeat
    )
    names = ("training a Transformer, 6 layers of 320, fp32", "training a nanoGPT-style model of that size")
    yield from compare(*names, "tokens/s", pairs, ratio_lower_limit=1.0)


def measure_loop(module: str, settings: Mapping[str, object]) -> float:
    """Return the tokens per second of the preset `gpt` with `settings` in a new process."""
    options = {"settings": dict(settings), "threads": os.cpu_count() or 1}
    return float(run_module(module, json.dumps(options)))
