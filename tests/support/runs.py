"""What tests of runs make them with: a small configuration, a training that is told, and runs of it."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import Config, ModelConfig, TrainingConfig
from engine.data.vocabulary import Vocabulary
from engine.events import Evaluated, Finished, Preparing, Sampled, Started, Step, TrainingEvent
from engine.models.numpy_lstm import Decoder, weight_shapes
from engine.runs import store, writer

VOCABULARY = Vocabulary(("<unk>", "<eos>", "bilbo", "is", "here"))
# The models kept along the way have tests of their own, in test_epochs.py.
CONFIG = Config("tiny", model=ModelConfig(embedding_size=6, hidden_size=6), training=TrainingConfig(keep_epochs=False))


def decoder(seed: int) -> Decoder:
    chance = np.random.default_rng(seed)
    shapes = weight_shapes(CONFIG.model, len(VOCABULARY))
    weights = {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Decoder(CONFIG.model, VOCABULARY, weights)


def training(finish: str | None = "done") -> list[TrainingEvent]:
    """A training as `train` tells it; the second evaluation is the best."""
    events: list[TrainingEvent] = [
        Preparing("counting"),
        Started("r", "tiny", 99, 5, 100, 10, 40, "cpu", "ab" * 32, 151.0, 94.0),
        Evaluated(0, 0.0, 150.0, True, 0.1, decoder(0)),
        Sampled(0, 0.0, "bilbo is", 'here "é"', 3, 0.7),
        Step(5, 0.5, 120.0, 0.003, math.nan, 1000.0, 1.0, math.inf),
        Step(9, 1.0, 110.0, 0.003, 0.5, 1000.0, 2.0, 3.0),
        Evaluated(9, 1.0, 90.0, True, 2.1, decoder(1)),
        Sampled(9, 1.0, "bilbo is", "here", 3, 0.7),
        Evaluated(18, 2.0, 95.0, False, 4.1, decoder(2)),
    ]
    if finish == "stopped":
        events.append(Finished("stopped", "r", 2.0, 90.0, math.nan, 5.0, decoder(1)))
    elif finish == "done":
        events.append(Finished("done", "r", 2.0, 90.0, 88.0, 5.0, decoder(1)))
    return events


def write(folder: Path, name: str | None, events: Iterable[TrainingEvent]) -> Path:
    run = writer.create(CONFIG, VOCABULARY, name, folder)
    list(writer.record(run, iter(events)))
    return run.path


def rows(path: Path) -> list[dict[str, Any]]:
    """Strict JSON, a line each."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def three_runs(folder: Path) -> list[Path]:
    """Runs made an hour apart, not in the order of their names."""
    paths = [write(folder, name, training()) for name in ("beta", "alpha", "gamma")]
    for age, path in zip((3, 2, 1), paths, strict=True):
        at = 1_700_000_000 - 3600 * age
        os.utime(path / store.CONFIG, (at, at))
    return paths
