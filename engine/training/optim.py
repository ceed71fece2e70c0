"""Changes of the weights: optimizers, learning-rate schedules, frozen layer groups, and averages of the weights."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from engine.config import TrainingConfig
from engine.models.network import Network

ADAM_STATE_KEYS = {"step", "exp_avg", "exp_avg_sq"}  # of each parameter; SGD without momentum has no state
SLANTED_TRIANGULAR_RATIO = 32  # highest divided by lowest learning rate (Howard and Ruder 2018, section 3.2)


def scheduled_lr(options: TrainingConfig, progress: float, plateau_factor: float) -> float:
    """Return the learning rate of the configured schedule; `progress` is the fraction of the training that is done."""
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


def build_optimizer(network: Network, options: TrainingConfig, *, fine_tuning: bool = False) -> torch.optim.Optimizer:
    """Return the configured optimizer, or the SGD of the fine-tuning phase (Merity et al. 2017, section 5).

    The value `lr_factor` of a parameter group is 1 for the top layer group and `layer_lr_decay` times less for each
    lower one (Howard and Ruder 2018, section 3.2). Adam and AdamW decay neither biases nor the scales of norms.
    """
    is_sgd = fine_tuning or options.optimizer == "sgd"
    layers = network.layer_groups() if options.layer_lr_decay != 1 else [dict(network.named_parameters())]
    groups: list[dict[str, Any]] = []
    for depth, layer in enumerate(layers):
        decayed = {name for name, weight in layer.items() if is_sgd or ("bias" not in name and weight.ndim > 1)}
        for is_decayed, weight_decay in ((True, options.weight_decay), (False, 0.0)):
            if parameters := [weight for name, weight in layer.items() if (name in decayed) == is_decayed]:
                lr_factor = options.layer_lr_decay**-depth
                groups.append({"params": parameters, "weight_decay": weight_decay, "lr_factor": lr_factor})
    if is_sgd:
        return torch.optim.SGD(groups, options.fine_tune_lr if fine_tuning else options.lr)
    optimizer_type = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    # Fused: one pass over weights, gradients and moments instead of a dozen.
    return optimizer_type(groups, lr=options.lr, betas=(0.9, options.beta2), fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{number}.{key}": value for number, values in state.items() for key, value in values.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
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


def discard_frozen_gradients(network: Network, options: TrainingConfig, epoch_index: int) -> None:
    """Remove the gradients of frozen layer groups: gradual unfreezing (Howard and Ruder 2018, section 3.3)."""
    if options.unfreeze_epochs:  # they keep `requires_grad`: `DistributedDataParallel` expects a gradient of each
        for group in network.layer_groups()[1 + epoch_index // options.unfreeze_epochs :]:
            for parameter in group.values():
                parameter.grad = None


class WeightAverage:
    """A copy of a network whose weights are a running average of the trained network's weights.

    With a decay, it is an exponential moving average, which soon forgets random weights. Without one, it is the mean
    over all updates since its creation, which averaged SGD evaluates (Merity et al. 2017, section 3).
    """

    def __init__(self, network: Network, decay: float | None = None, *, is_pretrained: bool = False) -> None:
        # What the training never changes is shared: a pre-trained model below an adapter is large.
        self.network = deepcopy(network, {id(frozen): frozen for frozen in (*network.buffers(), network.base)})
        self.updates = 0
        self._decay = decay
        self._is_pretrained = is_pretrained

    @torch.no_grad()
    def update(self, network: Network) -> None:
        n = self.updates
        if self._decay is None:
            weight = 1 / (n + 1)
        else:
            weight = 1 - (self._decay if self._is_pretrained else min(self._decay, n / (n + 10)))
        for mean, parameter in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(parameter, weight)
        self.updates += 1


def nonmonotone_trigger(history: Sequence[float], perplexity: float, interval: int) -> bool:
    """Return True if `perplexity` exceeds the best of `history` without its last `interval` entries.

    This is the trigger of NT-ASGD (Merity et al. 2017, algorithm 1), which tolerates a worse evaluation among the last.
    """
    return len(history) > interval and perplexity > min(history[:-interval])
