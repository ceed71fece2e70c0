"""Where a training runs and in which precision."""

import os

import torch

from engine.config import TrainingConfig
from engine.errors import ConfigError


def choose_device(config: TrainingConfig) -> torch.device:
    """The device asked for, or with "auto" the best there is.

    Raises:
        ConfigError: the device asked for is not on this machine.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if config.device == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    if not there[config.device]:
        raise ConfigError(f"--device {config.device}: this machine has none that PyTorch can use; try --device cpu")
    return torch.device(config.device)


def choose_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """The type matrix products are computed in; weights and losses stay float32."""
    if config.precision == "bf16" or (
        config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    ):
        return torch.bfloat16
    return torch.float32


def use_threads(config: TrainingConfig) -> None:
    """Set PyTorch's CPU threads for the calling thread's work."""
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
