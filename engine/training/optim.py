"""The update rules that a configuration can ask for."""

import torch

from engine.config import TrainingConfig
from engine.models.lstm import Network


def optimizer_of(network: Network, options: TrainingConfig) -> torch.optim.Optimizer:
    """The one that `options` name; Adam's two kinds spare the biases from weight decay."""
    if options.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), options.lr, weight_decay=options.weight_decay)
    named = list(network.named_parameters())
    biases = [parameter for name, parameter in named if "bias" in name]
    others = [parameter for name, parameter in named if "bias" not in name]
    groups = [
        {"params": others, "weight_decay": options.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    # Fused: one pass over weights, gradients and moments instead of a dozen.
    return kind(groups, lr=options.lr, betas=(0.9, options.beta2), fused=True)


def fine_tuning_optimizer(network: Network, options: TrainingConfig) -> torch.optim.Optimizer:
    """That of fine-tuning, whatever the one before (section 5)."""
    return torch.optim.SGD(network.parameters(), options.fine_tune_lr, weight_decay=options.weight_decay)
