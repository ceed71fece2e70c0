"""Where a training runs and in which precision."""

import os

import torch

from engine.config import Config, TrainingConfig
from engine.errors import ConfigError
from engine.models.bf16_lstm import WORTH_IT_FROM
from engine.runtime.process import ONLY, Place


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


def choose_dtype(config: Config, device: torch.device) -> torch.dtype:
    """The type matrix products are computed in; weights and losses stay float32.

    With "auto" bfloat16 where it was measured to pay without a difference in perplexity: on a GPU that has it, and on a
    CPU that has it where the layers are large.
    """
    asked = config.training.precision
    if asked == "auto":
        pays = {"cuda": torch.cuda.is_bf16_supported, "cpu": _cpu_has_bf16}.get(device.type)
        large = device.type == "cuda" or config.model.hidden_size >= WORTH_IT_FROM
        return torch.bfloat16 if pays and large and pays() else torch.float32
    return torch.bfloat16 if asked == "bf16" else torch.float32


def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies matrices of bfloat16; elsewhere it is emulated, and slow."""
    # Older PyTorch does not tell.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def use_threads(config: TrainingConfig, place: Place = ONLY) -> None:
    """Set PyTorch's CPU threads for the calling thread's work; several processes share the cores."""
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // place.local_size))
