"""Device, precision and CPU threads of a training."""

import os

import torch

from engine.config import Config, TrainingConfig
from engine.errors import ConfigError
from engine.runtime.process import SINGLE_PROCESS_INFO, ProcessInfo

MIN_BF16_UNITS = 400  # of a layer; from there, training in bfloat16 on a CPU was measured to be 1.5 times faster


def choose_device(config: TrainingConfig, process: ProcessInfo = SINGLE_PROCESS_INFO) -> torch.device:
    """Return the configured device, or with "auto" the fastest one; a ConfigError is raised if there is none.

    Each of several processes gets its own GPU.
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

    With "auto", it is bfloat16 where that was measured to be faster, with the same perplexity.
    """
    precision, model = config.training.precision, config.model
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    width = model.embedding_size if model.architecture == "transformer" else model.hidden_size
    has_bf16 = False
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported()
    elif device.type == "cpu" and width >= MIN_BF16_UNITS and hasattr(torch.cpu, "get_capabilities"):  # PyTorch 2.9
        capabilities = torch.cpu.get_capabilities()  # without hardware for it, products in bfloat16 are slow
        has_bf16 = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if has_bf16 else torch.float32


def set_num_threads(config: TrainingConfig, process: ProcessInfo = SINGLE_PROCESS_INFO) -> None:
    """Set the number of PyTorch's threads. Without a configured number, the processes share all cores."""
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // process.local_world_size))
