"""Where a training runs and in which precision."""

import os

import torch

from engine.config import TrainingConfig
from engine.errors import ConfigError
from engine.processes import ONLY, Place


def choose_device(config: TrainingConfig, place: Place = ONLY) -> torch.device:
    """The device asked for, or with "auto" the best there is. Of several processes each has a GPU of its own.

    Raises:
        ConfigError: the device asked for is not on this machine, or not once for every process.
    """
    alone = place.size == 1
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cuda": gpus >= place.local_size, "mps": alone and torch.backends.mps.is_available(), "cpu": True}
    best = next(name for name, available in there.items() if available)
    name = best if config.device == "auto" else config.device
    if not there[name]:
        has = f"has {gpus} for {place.local_size} processes" if gpus else "has none that PyTorch can use"
        raise ConfigError(f"--device {name}: this machine {has}; try --device cpu")
    return torch.device(name) if alone or name != "cuda" else torch.device(name, place.local_rank)


def choose_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """The type matrix products are computed in; weights and losses stay float32."""
    if config.precision == "bf16" or (
        config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    ):
        return torch.bfloat16
    return torch.float32


def use_threads(config: TrainingConfig, place: Place = ONLY) -> None:
    """Set PyTorch's CPU threads for the calling thread's work; several processes share the cores."""
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // place.local_size))
