"""Optimizers, their state as named tensors, and the learning-rate schedules."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.config import TrainingConfig
from engine.models.network import Network

ADAM_STATE_KEYS = {"step", "exp_avg", "exp_avg_sq"}
"""Names of the values that Adam keeps for each parameter. SGD without momentum keeps none."""
SLANTED_TRIANGULAR_RATIO = 32
"""Highest divided by lowest learning rate of the slanted triangular schedule (Howard and Ruder 2018, section 3.2)."""


def build_optimizer(network: Network, options: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimizer that `options` name. Adam and AdamW decay neither biases nor the scales of norms."""
    if options.optimizer == "sgd":
        return torch.optim.SGD(_parameter_groups(network, options), options.lr)
    groups = _parameter_groups(network, options, decays_all=False)
    optimizer_type = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    # Fused: one pass over weights, gradients and moments instead of a dozen.
    return optimizer_type(groups, lr=options.lr, betas=(0.9, options.beta2), fused=True)


def build_fine_tuning_optimizer(network: Network, options: TrainingConfig) -> torch.optim.Optimizer:
    """Return the SGD optimizer of the fine-tuning phase (Merity et al. 2017, section 5)."""
    return torch.optim.SGD(_parameter_groups(network, options), options.fine_tune_lr)


def _parameter_groups(network: Network, options: TrainingConfig, *, decays_all: bool = True) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimizer, which differ in weight decay and in the learning rate.

    The value `lr_factor` of a group is 1 for the top layer group and `layer_lr_decay` times less for each lower one.
    """
    layers = network.layer_groups() if options.layer_lr_decay != 1 else [dict(network.named_parameters())]
    groups: list[dict[str, Any]] = []
    for depth, layer in enumerate(layers):
        lr_factor = options.layer_lr_decay**-depth
        decayed = [parameter for name, parameter in layer.items() if decays_all or _is_weight(name, parameter)]
        others = [parameter for name, parameter in layer.items() if not (decays_all or _is_weight(name, parameter))]
        for parameters, weight_decay in ((decayed, options.weight_decay), (others, 0.0)):
            if parameters:
                groups.append({"params": parameters, "weight_decay": weight_decay, "lr_factor": lr_factor})
    return groups


def _is_weight(name: str, parameter: Tensor) -> bool:
    """Return False for a bias and for the scale of a norm."""
    return "bias" not in name and parameter.ndim > 1


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the top layer group to `lr`, and the rates of the others in proportion."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


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
    decay_progress = (progress - options.warmup_fraction) / max(1e-9, 1 - options.warmup_fraction)
    is_warmup = progress < options.warmup_fraction
    if options.schedule == "slanted_triangular":
        height = progress / options.warmup_fraction if is_warmup else 1 - min(1.0, decay_progress)
        return options.lr * (1 + height * (SLANTED_TRIANGULAR_RATIO - 1)) / SLANTED_TRIANGULAR_RATIO
    if is_warmup:
        return options.lr * (0.04 + 0.96 * progress / options.warmup_fraction)
    return options.lr * max(1e-4, 0.5 * (1 + math.cos(math.pi * min(1.0, decay_progress))))
