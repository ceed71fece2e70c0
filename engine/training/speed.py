"""Estimate of the time that a training takes on this machine, from a few of its steps."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from engine.config import Config
from engine.training.device import choose_device, set_num_threads
from engine.training.trainer import Trainer
from engine.training.transfer.initial_run import TrainingInput, load_training_input

MEASURED_LAYERS = (1, 3)
"""Layers of the Transformers that are measured in place of a deeper one, whose further layers take as long."""
MEASURED_COLUMNS = 2
"""Columns of the windows of such a Transformer; the time of a token hardly depends on them."""
MEASURED_STEPS = 3
FORWARD_FRACTION = 1 / 3
"""Time of a token in a validation, which needs no gradients, as a fraction of that in training."""


def estimate_training_seconds(
    config: Config, runs_dir: Path | None = None, cancelled: Callable[[], bool] = lambda: False
) -> float:
    """Return about how many seconds all epochs of a training take, validations included; NaN if that is cancelled.

    The data is read as for the training, and a few steps are measured in this process, which takes some seconds. Other
    programs that are busy now count.

    Raises:
        InvalidInputError: If the corpus or the initial run cannot be read.
    """
    source = load_training_input(config, runs_dir)
    set_num_threads(config.training)
    device = choose_device(config.training)
    seconds_per_token = _seconds_per_token(config, source, device, cancelled)
    epochs = config.training.epochs + config.training.fine_tune_epochs
    validations = epochs / config.training.eval_every_epochs
    tokens = epochs * len(source.dataset.train) + FORWARD_FRACTION * validations * len(source.dataset.valid)
    return tokens * seconds_per_token


def _seconds_per_token(
    config: Config, source: TrainingInput, device: torch.device, cancelled: Callable[[], bool]
) -> float:
    layers = config.model.num_layers
    if config.model.architecture != "transformer" or layers <= max(MEASURED_LAYERS):
        return _time_steps(config, source, device, cancelled)
    columns = min(config.training.batch_size, MEASURED_COLUMNS)
    few, more = (
        _time_steps(config.with_values(num_layers=number, batch_size=columns), source, device, cancelled)
        for number in MEASURED_LAYERS
    )
    return few + (more - few) * (layers - MEASURED_LAYERS[0]) / (MEASURED_LAYERS[1] - MEASURED_LAYERS[0])


def _time_steps(config: Config, source: TrainingInput, device: torch.device, cancelled: Callable[[], bool]) -> float:
    """Return the median time of a token in the first steps after the first one, which allocates memory."""
    if cancelled():
        return math.nan
    trainer = Trainer(config, source.dataset, device, base=source.base)
    times = []
    for _ in range(1 + MEASURED_STEPS):
        if cancelled():
            return math.nan
        started_at = time.perf_counter()
        result = trainer.train_step()
        result.loss.item()  # waits for the device
        times.append((time.perf_counter() - started_at) / result.num_tokens)
    return median(times[1:])
