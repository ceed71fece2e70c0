"""What tests of training train with: a corpus of a few hundred words, a small model of it, and its events."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.config import Config
from engine.data.dataset import Dataset, prepare
from engine.events import Evaluated, Step, TrainingEvent
from engine.models.numpy_lstm import Decoder
from engine.training.run import train
from engine.training.trainer import Loop

NO_DROPOUT: dict[str, Any] = {
    "dropout_words": 0.0,
    "dropout_input": 0.0,
    "dropout_between": 0.0,
    "dropout_output": 0.0,
    "weight_drop": 0.0,
}
SMALL: dict[str, Any] = {
    "embedding_size": 16,
    "hidden_size": 16,
    "layers": 1,
    "tied": True,
    "locked": True,
    "dropout_words": 0.1,
    "dropout_input": 0.1,
    "dropout_between": 0.1,
    "dropout_output": 0.1,
    "weight_drop": 0.1,
    "initialisation": "uniform",
    "spelling": False,
    "pauses": False,
    "unigram_bias": True,
    "epochs": 3,
    "batch_size": 4,
    "window": 12,
    "variable_window": True,
    "shuffle_lines": True,
    "optimizer": "adamw",
    "lr": 0.03,
    "schedule": "one_cycle",
    "warmup": 0.1,
    "beta2": 0.999,
    "weight_decay": 0.0,
    "clip": 0.25,
    "ar": 0.1,
    "tar": 0.1,
    "smoothing": 0.0,
    "average": 0.0,
    "evaluate_every": 1,
    "patience": 0,
    "seed": 0,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
    "sample_prompt": "the old hobbit",
}
"""All that a default could change: these tests are of the loop, not of the presets."""


def small_dataset(folder: Path) -> Dataset:
    """140 lines of a small grammar, in which the word before tells much of the next."""
    chance = random.Random(5)
    who = ["the old hobbit", "a tall ranger", "the grey wizard", "my cousin"]
    does = ["walks slowly to", "remembers", "never speaks of", "waits beside"]
    where = ["the mill by the water", "an empty road", "the hill", "the last bridge in the north"]
    lines = [f"{chance.choice(who)} {chance.choice(does)} {chance.choice(where)} {i % 7}" for i in range(140)]
    path = folder / "lines.txt"
    path.write_text("\n".join(lines))
    return prepare(config_of(corpus=str(path), corpus_format="text").data)


def config_of(**values: Any) -> Config:
    return Config("test").with_values(**(SMALL | values))


def run(dataset: Dataset, cancelled: Callable[[], bool] = lambda: False, **values: Any) -> list[TrainingEvent]:
    return list(train(config_of(**values), dataset, "a-run", cancelled))


def of(kind: type, events: list[TrainingEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def weights_of(event: Any) -> dict[str, np.ndarray]:
    assert isinstance(event.model, Decoder)
    return dict(event.model.weights)


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def epoch_rates(events: list[TrainingEvent]) -> list[set[float]]:
    """The rates of the steps before each evaluation but the first."""
    rates: list[set[float]] = []
    for event in events:
        if isinstance(event, Evaluated):
            rates.append(set())
        elif isinstance(event, Step):
            rates[-1].add(event.lr)
    return rates[:-1]


def loop_of(dataset: Dataset, **values: Any) -> Loop:
    return Loop(config_of(**values), dataset, torch.device("cpu"), 0.0)
