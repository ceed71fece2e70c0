"""Device, precision and CPU threads of a training."""

import os

import torch

from engine.config import Config, TrainingConfig
from engine.errors import ConfigError
from engine.runtime.process import SINGLE_PROCESS_INFO, ProcessInfo

MIN_BF16_UNITS = 400
"""Minimum units of a layer for which training in bfloat16 on a CPU was measured to be faster, by 1.5 times."""


def choose_device(config: TrainingConfig, process: ProcessInfo = SINGLE_PROCESS_INFO) -> torch.device:
    """Return the configured device, or with "auto" the fastest one. Each of several processes gets its own GPU.

    Raises:
        ConfigError: If the machine does not have the device, or fewer GPUs than processes.
    """
    is_single_process = process.world_size == 1
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    available = {
        "cuda": gpus >= process.local_world_size,
        "mps": is_single_process and torch.backends.mps.is_available(),
        "cpu": True,
    }
    best = next(name for name, is_available in available.items() if is_available)
    name = best if config.device == "auto" else config.device
    if not available[name]:
        problem = f"has {gpus} for {process.local_world_size} processes" if gpus else "has none that PyTorch can use"
        raise ConfigError(f"--device {name}: this machine {problem}; try --device cpu")
    return torch.device(name) if is_single_process or name != "cuda" else torch.device(name, process.local_rank)


def choose_dtype(config: Config, device: torch.device) -> torch.dtype:
    """Return the type of the matrix products; weights and losses are always float32.

    With "auto", the type is bfloat16 on devices with fast bfloat16 products: GPUs, and CPUs if the layers are large.
    There the perplexity was measured to be the same, and training to be faster.
    """
    precision = config.training.precision
    if precision == "auto":
        has_bf16 = {"cuda": torch.cuda.is_bf16_supported, "cpu": _cpu_has_bf16}.get(device.type)
        model = config.model
        width = model.embedding_size if model.architecture == "transformer" else model.hidden_size
        is_large = device.type == "cuda" or width >= MIN_BF16_UNITS
        return torch.bfloat16 if has_bf16 and is_large and has_bf16() else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _cpu_has_bf16() -> bool:
    """Return True if the CPU multiplies bfloat16 matrices in hardware; emulation is slow."""
    # PyTorch before 2.9 has no get_capabilities.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def set_num_threads(config: TrainingConfig, process: ProcessInfo = SINGLE_PROCESS_INFO) -> None:
    """Set the number of PyTorch's CPU threads. Without a configured number, the processes share all cores."""
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // process.local_world_size))
