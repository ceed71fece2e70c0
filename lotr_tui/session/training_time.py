"""Time that a training takes on this machine, measured in a thread beside a screen."""

import math
from collections.abc import Callable
from pathlib import Path

from engine.config import Config
from engine.runtime.process import limit_openmp_spinning, preload_torch

_measured: dict[tuple[Config, Path | None], float] = {}
"""Seconds of the trainings that this process has measured."""


def measure_training_seconds(config: Config, runs_dir: Path | None, cancelled: Callable[[], bool]) -> float:
    """Return about how many seconds a training takes, as busy as this machine is now; NaN if that is cancelled.

    Raises:
        InvalidInputError: If the corpus or the initial model cannot be read.
    """
    key = (config, runs_dir)
    if key not in _measured:
        limit_openmp_spinning()
        preload_torch()
        from engine.training.trainer import estimate_training_seconds  # loads PyTorch

        seconds = estimate_training_seconds(config, runs_dir, cancelled)
        if math.isnan(seconds):
            return seconds
        _measured[key] = seconds
    return _measured[key]
