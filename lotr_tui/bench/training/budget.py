"""Training runs that fit a time: the speed is measured first, and the number of epochs follows from it.

The learning rate falls to zero over the epochs, so a training that is merely stopped when the time is over would be
worse than a shorter one. Where a whole epoch takes too long, a part of the training text is read once.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from engine.config import Config
from engine.data.dataset import Dataset
from engine.events import TrainingEvent
from engine.runs.directory import METRICS_FILE
from engine.runs.metrics import Row, read_current_rows
from engine.runs.summary import is_finished
from engine.runtime.allocator import disable_heap_trimming
from engine.training.device import set_num_threads
from engine.training.job import prepare_job, resume_job
from engine.training.trainer import Trainer
from engine.training.transfer.initial_run import load_dataset_and_weights

PROBE_SECONDS = 5.0
"""Seconds for which the speed of a training is measured."""
MIN_PROBE_STEPS = 3
TARGET_FRACTION = 0.94
"""Fraction of the time that the optimizer steps are planned to take; validations need the rest."""
STOP_FRACTION = 0.98
"""Fraction of the time after which a stopped training counts as done."""
NUM_EVALUATIONS = 8
"""Validations of a training that reads its text once or twice."""
BLOCK_TOKENS = 16_384
"""Tokens that stay together where a part of a text is chosen."""


@dataclass(frozen=True)
class BudgetedTraining:
    """A finished or stopped training in its run directory."""

    path: Path
    seconds: float
    """Training time, validations included."""
    epochs: float
    train_tokens: int
    """Tokens of an epoch."""
    parameters: int

    @property
    def num_tokens(self) -> int:
        """Number of tokens that were read, some of them several times."""
        return round(self.epochs * self.train_tokens)


def train_within(
    config: Config, name: str, runs_dir: Path, seconds: float, report: Callable[[str], None] = print
) -> BudgetedTraining:
    """Train the run `name` within `seconds`, or continue it; a run that is done is not trained again.

    `config` states the maximum number of epochs. With `shuffle_lines`, every epoch reads the whole text.

    Raises:
        InvalidInputError: If the input is unusable.
        TrainingError: If the training diverges.
    """
    path = runs_dir / name
    if not is_trained(path, seconds):
        if _row(path, "started"):
            report(f"{name}: continuing")
            job = resume_job(name, runs_dir)
            num_tokens = int(_row(path, "started")["train_tokens"])
        else:
            speed = measure_speed(config, runs_dir)
            dataset, _ = load_dataset_and_weights(config, runs_dir)
            config, num_tokens = fit_epochs(config, len(dataset.train), TARGET_FRACTION * seconds * speed)
            report(f"{name}: {speed:,.0f} tokens/s, {config.training.epochs} epochs of {num_tokens:,} tokens")
            job = prepare_job(config, name, runs_dir)
        job = replace(job, dataset=sample_blocks(job.dataset, num_tokens, job.config.training.seed))
        clock = _TrainingClock()
        for event in job.events(lambda: clock.seconds >= seconds):
            clock.on_event(event)
    rows = read_current_rows(path / METRICS_FILE, subsample=True)
    started, last = _row(path, "started"), next(row for row in reversed(rows) if row.get("seconds") is not None)
    epochs = max(row["epoch"] for row in rows if row["event"] in ("step", "evaluated"))
    return BudgetedTraining(path, last["seconds"], epochs, started["train_tokens"], started["parameters"])


def is_trained(path: Path, seconds: float) -> bool:
    """Return True if the run at `path` is finished, or has been trained for `seconds`."""
    if not (path / METRICS_FILE).is_file():
        return False
    finished = _row(path, "finished")
    return is_finished(path) or (bool(finished) and finished["seconds"] >= STOP_FRACTION * seconds)


def _row(path: Path, event: str) -> Row:
    """Return the latest row of an event in the metrics of a run; empty if there is none."""
    if not (path / METRICS_FILE).is_file():
        return {}
    rows = read_current_rows(path / METRICS_FILE, subsample=True)
    return next((row for row in reversed(rows) if row["event"] == event), {})


def measure_speed(config: Config, runs_dir: Path | None = None, seconds: float = PROBE_SECONDS) -> float:
    """Return the tokens per second of the optimizer steps of a training."""
    set_num_threads(config.training)
    disable_heap_trimming()
    dataset, weights = load_dataset_and_weights(config, runs_dir)
    trainer = Trainer(config, dataset, torch.device("cpu"), initial_weights=weights)
    trainer.train_step()  # not counted: the first step allocates memory
    num_tokens, num_steps, started = 0, 0, time.perf_counter()
    while num_steps < MIN_PROBE_STEPS or time.perf_counter() - started < seconds:
        num_tokens += trainer.train_step().num_tokens
        num_steps += 1
    return num_tokens / (time.perf_counter() - started)


def fit_epochs(config: Config, train_tokens: int, max_tokens: float) -> tuple[Config, int]:
    """Return a configuration whose epochs read at most `max_tokens`, and the tokens of an epoch.

    The epochs of `config` are the maximum. A training that reads the text in order also shortens the epochs, so that
    all of the time is used.
    """
    options = config.training
    if options.shuffle_lines:
        epochs = min(options.epochs, max(1, int(max_tokens / train_tokens)))
        return config.with_values(epochs=epochs), train_tokens
    epochs = min(options.epochs, max(1, math.ceil(max_tokens / train_tokens)))
    minimum = 2 * options.batch_size * options.bptt
    num_tokens = max(min(minimum, train_tokens), min(train_tokens, int(max_tokens / epochs)))
    config = config.with_values(epochs=epochs)
    if epochs <= 2:
        steps = epochs * num_tokens // (options.batch_size * options.bptt)
        config = config.with_values(eval_every_steps=max(1, steps // NUM_EVALUATIONS))
    elif config.training.eval_every_steps:
        config = config.with_values(eval_every_steps=0)
    return config, num_tokens


def sample_blocks(dataset: Dataset, num_tokens: int, seed: int) -> Dataset:
    """Return the dataset with about `num_tokens` of its training tokens: random blocks, in their order in the text."""
    if num_tokens >= len(dataset.train):
        return dataset
    num_blocks = math.ceil(len(dataset.train) / BLOCK_TOKENS)
    order = np.random.default_rng(seed).permutation(num_blocks)
    chosen = np.sort(order[: max(1, math.ceil(num_tokens / BLOCK_TOKENS))])
    spans = [slice(block * BLOCK_TOKENS, (block + 1) * BLOCK_TOKENS) for block in chosen.tolist()]
    return replace(
        dataset,
        train=np.concatenate([dataset.train[span] for span in spans])[:num_tokens],
        train_punctuation=np.concatenate([dataset.train_punctuation[span] for span in spans])[:num_tokens],
    )


class _TrainingClock:
    """Training time between the events, which state it."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._known_at = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Training time so far, with that before a resume once an event has stated it."""
        return self._seconds + time.perf_counter() - self._known_at

    def on_event(self, event: TrainingEvent) -> None:
        """Take over the training time of an event."""
        if (seconds := getattr(event, "seconds", None)) is not None:
            self._seconds, self._known_at = seconds, time.perf_counter()
