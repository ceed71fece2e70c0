"""What a training minimizes, and how it changes the weights: loss, optimizers, learning rates, averages of weights."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import TrainingConfig
from engine.data.arrays import chunked_bincount
from engine.data.tokenizers import TokenIds
from engine.models.network import Network
from engine.models.torch_ops import RecurrentState, linear_cross_entropy
from engine.models.transformer import TransformerModel
from engine.runtime.distributed import DistributedContext
from engine.training.windows import SoftTargets, Window

LARGE_VOCABULARY = 8192  # tokens from which the logits of a window take much more memory than everything else
ADAM_STATE_KEYS = {"step", "exp_avg", "exp_avg_sq"}  # of each parameter; SGD without momentum has no state
SLANTED_TRIANGULAR_RATIO = 32  # highest divided by lowest learning rate (Howard and Ruder 2018, section 3.2)


class Objective:
    """The configured loss of a BPTT window."""

    def __init__(self, options: TrainingConfig, ids: TokenIds, vocabulary_size: int, device: torch.device) -> None:
        self.options = options
        frequencies = chunked_bincount(ids, vocabulary_size) / len(ids)
        self._frequencies = torch.from_numpy(frequencies.astype(np.float32)).to(device)
        self._sample_probability = min(1.0, options.softmax_samples / vocabulary_size)
        # A class is included as a target of the window, or because it was sampled.
        excluded = (1 - frequencies) ** (options.bptt * options.batch_size) * (1 - self._sample_probability)
        log_inclusion_probs = np.log(np.maximum(1 - excluded, 1e-30))
        self._log_inclusion_probs = torch.from_numpy(log_inclusion_probs.astype(np.float32)).to(device)

    def sample_softmax_classes(self, targets: Tensor, generator: torch.Generator) -> Tensor | None:
        """Return the sorted token ids of a sampled softmax: all targets and random others."""
        if not self.options.softmax_samples:
            return None
        random_values = torch.rand(self._frequencies.shape, device=targets.device, generator=generator)
        included = random_values < self._sample_probability
        included[targets.flatten()] = True
        return included.nonzero().flatten()

    def __call__(
        self,
        logits: Tensor,
        targets: Tensor,
        sampled_classes: Tensor | None,
        raw: Tensor,
        dropped: Tensor,
        soft_targets: SoftTargets | None = None,
        target_weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of the columns of the corpus, and the objective to minimize, with all penalties.

        `logits` `[time, batch, classes]` are of the `sampled_classes` or the vocabulary; `raw` and `dropped`
        `[time, batch, hidden]` are the outputs of the last layer before and after dropout.
        """
        smoothing = self.options.label_smoothing
        logits, classes = logits.float().flatten(0, 1), targets.flatten()
        if sampled_classes is not None:
            # A sampled softmax estimates the full one (Jean et al. 2015, section 3) if the exponential of each class is
            # divided by the probability that the class was included, since it represents classes that were not. The
            # target of a position is always included and keeps its logit.
            log_inclusion_probs = self._log_inclusion_probs[sampled_classes]
            classes = torch.searchsorted(sampled_classes, classes)
            kept = log_inclusion_probs[classes][:, None]
            logits = (logits - log_inclusion_probs).scatter_add(1, classes[:, None], kept)
        log_probs = torch.log_softmax(logits, dim=-1)
        losses = nn.functional.nll_loss(log_probs, classes, reduction="none").view_as(targets)
        weights = torch.ones_like(losses) if target_weights is None else target_weights
        num_columns = None if soft_targets is None else soft_targets.num_corpus_columns
        loss = (losses * weights)[:, :num_columns].mean()
        if smoothing:
            losses = (1 - smoothing) * losses + smoothing * -(log_probs @ self._frequencies).view_as(targets)
        if soft_targets is not None:
            losses = soft_targets.mix_losses(losses, log_probs.view(*targets.shape, -1), soft_targets.tokens)
        return loss, self.regularize((losses * weights).mean(), raw, dropped)

    def regularize(self, objective: Tensor, raw: Tensor, dropped: Tensor) -> Tensor:
        """Add the penalties of large and of changing outputs: AR and TAR (Merity et al. 2017, section 4.6)."""
        if self.options.ar:
            objective = objective + self.options.ar * dropped.float().pow(2).mean()
        if self.options.tar and len(raw) > 1:
            objective = objective + self.options.tar * (raw[1:] - raw[:-1]).float().pow(2).mean()
        return objective


class LossModule(nn.Module):
    """A network and its objective as one module, so that `DistributedDataParallel` can wrap both."""

    def __init__(
        self, network: Network, objective: Objective, dtype: torch.dtype, distributed: DistributedContext
    ) -> None:
        super().__init__()
        self.network = network
        self._objective, self._dtype, self._distributed = objective, dtype, distributed

    def forward(
        self,
        window: Window,
        sampled_classes: Tensor | None,
        state: RecurrentState,
        generator: torch.Generator,
        soft_targets: SoftTargets | None,
    ) -> tuple[Tensor, Tensor, RecurrentState]:
        autocast: Any = contextlib.nullcontext()
        if self._dtype != torch.float32 and self.network.base is None:  # a base has the type already
            autocast = torch.autocast(window.inputs.device.type, self._dtype)
        network, options = self.network, self._objective.options
        targets, weights, punctuation = window.targets, window.target_weights, window.punctuation
        needs_logits = options.label_smoothing or options.softmax_samples or soft_targets is not None
        if isinstance(network, TransformerModel) and network.vocabulary_size >= LARGE_VOCABULARY and not needs_logits:
            with autocast:
                raw, dropped = network.read_window(window.inputs, generator, self._distributed)
                loss = linear_cross_entropy(dropped, network.output_weight, targets, weights)
            return loss, self._objective.regularize(loss, raw, dropped), state
        with autocast:
            logits, state, raw, dropped = network(
                window.inputs, state, generator, sampled_classes, punctuation, distributed=self._distributed
            )
        loss, objective = self._objective(logits, targets, sampled_classes, raw, dropped, soft_targets, weights)
        if network.punctuation_softmax is not None and punctuation is not None:
            log_probs = network.punctuation_softmax.gate_log_probs(dropped)
            objective = objective + punctuation_loss(log_probs, punctuation, soft_targets)
        return loss, objective, state


def punctuation_loss(log_probs: Tensor, punctuation: Tensor, soft_targets: SoftTargets | None = None) -> Tensor:
    """Return the mean loss of the log-probabilities `[time, batch, classes]` of `punctuation` `[time, batch]`."""
    losses = nn.functional.nll_loss(log_probs.flatten(0, -2), punctuation.flatten(), reduction="none")
    losses = losses.view_as(punctuation)
    if soft_targets is not None and soft_targets.punctuation is not None:
        losses = soft_targets.mix_losses(losses, log_probs, soft_targets.punctuation)
    return losses.mean()


def scheduled_lr(options: TrainingConfig, progress: float, plateau_factor: float) -> float:
    """Return the learning rate of the configured schedule; `progress` is the fraction of the training that is done."""
    if options.schedule in ("plateau", "constant"):
        return options.lr * (plateau_factor if options.schedule == "plateau" else 1)
    decay_progress = (progress - options.warmup_fraction) / max(1e-9, 1 - options.warmup_fraction)
    is_warmup = progress < options.warmup_fraction
    if options.schedule == "slanted_triangular":
        height = progress / options.warmup_fraction if is_warmup else 1 - min(1.0, decay_progress)
        return options.lr * (1 + height * (SLANTED_TRIANGULAR_RATIO - 1)) / SLANTED_TRIANGULAR_RATIO
    if is_warmup:
        return options.lr * (0.04 + 0.96 * progress / options.warmup_fraction)
    return options.lr * max(1e-4, 0.5 * (1 + math.cos(math.pi * min(1.0, decay_progress))))


def build_optimizer(network: Network, options: TrainingConfig, *, fine_tuning: bool = False) -> torch.optim.Optimizer:
    """Return the configured optimizer, or the SGD of the fine-tuning phase.

    `lr_factor` falls by `layer_lr_decay` with each lower layer group (Howard and Ruder 2018, section 3.2).
    """
    is_sgd = fine_tuning or options.optimizer == "sgd"
    layers = network.layer_groups() if options.layer_lr_decay != 1 else [dict(network.named_parameters())]
    groups: list[dict[str, Any]] = []
    for depth, layer in enumerate(layers):
        # Adam and AdamW decay neither biases nor the scales of norms.
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


class WeightAverage:
    """A copy of a network with averaged weights: a moving average, or without a decay the mean of averaged SGD."""

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
    """Return True where NT-ASGD starts to average (Merity et al. 2017, algorithm 1)."""
    return len(history) > interval and perplexity > min(history[:-interval])
