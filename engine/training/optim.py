"""Optimizers, their state as named tensors, and the learning-rate schedules."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from engine.config import TrainingConfig
from engine.models.lstm import LSTMModel

ADAM_STATE_KEYS = {"step", "exp_avg", "exp_avg_sq"}
"""Names of the values that Adam keeps for each parameter. SGD without momentum keeps none."""


def build_optimizer(network: LSTMModel, options: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimizer that `options` name. Adam and AdamW do not decay biases."""
    if options.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), options.lr, weight_decay=options.weight_decay)
    named = list(network.named_parameters())
    groups = [
        {"params": [p for name, p in named if "bias" not in name], "weight_decay": options.weight_decay},
        {"params": [p for name, p in named if "bias" in name], "weight_decay": 0.0},
    ]
    optimizer_type = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    # Fused: one pass over weights, gradients and moments instead of a dozen.
    return optimizer_type(groups, lr=options.lr, betas=(0.9, options.beta2), fused=True)


def build_fine_tuning_optimizer(network: LSTMModel, options: TrainingConfig) -> torch.optim.Optimizer:
    """Return the SGD optimizer of the fine-tuning phase (Merity et al. 2017, section 5)."""
    return torch.optim.SGD(network.parameters(), options.fine_tune_lr, weight_decay=options.weight_decay)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as tensors named "<parameter number>.<value>"."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{key}": value for number, values in state.items() for key, value in values.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors that `optimizer_tensors` returned.

    Raises:
        LookupError: If a tensor belongs to an unknown parameter.
        ValueError: If a tensor is missing, or has an unknown name or another shape or type.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        shape = () if key == "step" else parameters[int(number)].shape
        if key not in ADAM_STATE_KEYS or tensor.dtype != torch.float32 or tensor.shape != shape:
            raise ValueError(f"unexpected optimizer state {name}")
        state.setdefault(int(number), {})[key] = tensor
    if any(values.keys() != ADAM_STATE_KEYS for values in state.values()):
        raise ValueError("a part of the optimizer state is missing")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def scheduled_lr(options: TrainingConfig, progress: float, plateau_factor: float) -> float:
    """Return the learning rate of the configured schedule.

    `progress` is the fraction of the training that is done. The "plateau" schedule halves `plateau_factor` after each
    validation without improvement.
    """
    if options.schedule == "plateau":
        return options.lr * plateau_factor
    if options.schedule == "constant":
        return options.lr
    if progress < options.warmup_fraction:
        return options.lr * (0.04 + 0.96 * progress / options.warmup_fraction)
    decay_progress = (progress - options.warmup_fraction) / max(1e-9, 1 - options.warmup_fraction)
    return options.lr * max(1e-4, 0.5 * (1 + math.cos(math.pi * min(1.0, decay_progress))))
