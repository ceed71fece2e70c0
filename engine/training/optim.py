"""Loss, learning rates, optimizers and averages of weights of a training."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import TrainingConfig
from engine.data.arrays import chunked_bincount
from engine.data.tokenizers import TokenIds
from engine.models.lstm import LSTMModel
from engine.models.torch_ops import RecurrentState, layer_groups, linear_cross_entropy
from engine.models.transformer import TransformerModel
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext

Network = LSTMModel | TransformerModel
NETWORKS: dict[str, Any] = {"lstm": LSTMModel, "transformer": TransformerModel}  # by architecture
MANY_TOKENS = 8192  # tokens from which the logits of a window take much more memory than everything else
ADAM_STATE_KEYS = {"step", "exp_avg", "exp_avg_sq"}  # of each parameter; SGD without momentum has no state
SLANTED_TRIANGULAR_RATIO = 32  # highest divided by lowest learning rate (Howard and Ruder 2018, section 3.2)


@dataclass(frozen=True)
class Window:
    """One BPTT window of the training split; all tensors are `[time, batch]`."""

    inputs: Tensor
    targets: Tensor  # each the successor of the input at the same position
    punctuation: Tensor | None = None  # class after each input, if the model learns punctuation
    target_weights: Tensor | None = None  # factors of the losses, 1 on average over all columns; None for 1 everywhere
    start: float = 0.0  # fraction of the epoch read before this window
    end: float = 0.0  # the same after this window; 1 for the last one of an epoch

    def shard(self, distributed: DistributedContext) -> "Window":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        shards: dict[str, Any] = {name: distributed.shard_batch(tensor) for name, tensor in tensors.items()}
        return replace(self, **shards)


@dataclass(frozen=True)
class SoftTargets:
    """Distributions of the teachers over the targets of a window."""

    tokens: Tensor  # [time, batch, vocabulary], given the punctuation before the target if the model learns it
    punctuation: Tensor | None  # [time, batch, classes], of the punctuation before the target
    weights: Tensor  # [batch], the fraction of a column's loss that compares with predictions instead of the text
    num_corpus_columns: int  # the teachers wrote the text of the columns after them

    def mix_losses(self, losses: Tensor, log_probs: Tensor, probs: Tensor) -> Tensor:
        """Mix losses `[time, batch]` with the cross-entropies of the teachers' `probs` `[time, batch, classes]`."""
        cross_entropies = -(probs * log_probs).sum(dim=-1)
        return (1 - self.weights) * losses + self.weights * cross_entropies


class Objective:
    """The configured loss of a BPTT window."""

    def __init__(
        self,
        options: TrainingConfig,
        ids: TokenIds,
        vocabulary_size: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        distributed: DistributedContext = SINGLE_PROCESS,
    ) -> None:
        self.options, self._dtype, self._distributed = options, dtype, distributed
        frequencies = chunked_bincount(ids, vocabulary_size) / len(ids)
        self._frequencies = torch.from_numpy(frequencies.astype(np.float32)).to(device)
        self._sample_probability = min(1.0, options.softmax_samples / vocabulary_size)
        # A class is included as a target of the window, or because it was sampled.
        excluded = (1 - frequencies) ** (options.bptt * options.batch_size) * (1 - self._sample_probability)
        log_inclusion_probs = np.log(np.maximum(1 - excluded, 1e-30))
        self._log_inclusion_probs = torch.from_numpy(log_inclusion_probs.astype(np.float32)).to(device)

    def sample_classes(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Return the sorted token ids of a sampled softmax: all targets and random others."""
        random_values = torch.rand(self._frequencies.shape, device=targets.device, generator=generator)
        included = random_values < self._sample_probability
        included[targets.flatten()] = True
        return included.nonzero().flatten()

    def __call__(
        self,
        network: Network,
        window: Window,
        state: RecurrentState,
        generator: torch.Generator,
        sampled_classes: Tensor | None = None,
        soft_targets: SoftTargets | None = None,
    ) -> tuple[Tensor, Tensor, RecurrentState]:
        """Read a window; return its cross-entropy, the objective to minimize with all penalties, and the next state.

        The cross-entropy is the one of the columns of the corpus. Logits are only of the `sampled_classes`, if any.
        """
        options, targets, distributed = self.options, window.targets, self._distributed
        is_mixed = self._dtype != torch.float32 and network.base is None  # a base has the type of the products already
        needs_logits = options.label_smoothing or options.softmax_samples or soft_targets is not None
        autocast = torch.autocast(targets.device.type, self._dtype if is_mixed else None, enabled=is_mixed)
        if isinstance(network, TransformerModel) and not needs_logits and network.vocabulary_size >= MANY_TOKENS:
            with autocast:
                raw, dropped = network.read_window(window.inputs, generator, distributed)
                loss = objective = linear_cross_entropy(dropped, network.output_weight, targets, window.target_weights)
        else:
            with autocast:
                logits, state, raw, dropped = network(
                    window.inputs, state, generator, sampled_classes, window.punctuation, distributed=distributed
                )
            logits, classes = logits.float().flatten(0, 1), targets.flatten()
            if sampled_classes is not None:
                # A sampled softmax estimates the full one (Jean et al. 2015, section 3) if the exponential of each
                # class is divided by the probability that the class was included, since it represents classes that were
                # not. The target of a position is always included and keeps its logit.
                log_inclusion_probs = self._log_inclusion_probs[sampled_classes]
                classes = torch.searchsorted(sampled_classes, classes)
                kept = log_inclusion_probs[classes][:, None]
                logits = (logits - log_inclusion_probs).scatter_add(1, classes[:, None], kept)
            log_probs = torch.log_softmax(logits, dim=-1)
            losses = nn.functional.nll_loss(log_probs, classes, reduction="none").view_as(targets)
            weights = torch.ones_like(losses) if window.target_weights is None else window.target_weights
            loss = (losses * weights)[:, : None if soft_targets is None else soft_targets.num_corpus_columns].mean()
            if smoothing := options.label_smoothing:
                losses = (1 - smoothing) * losses + smoothing * -(log_probs @ self._frequencies).view_as(targets)
            if soft_targets is not None:
                losses = soft_targets.mix_losses(losses, log_probs.view(*targets.shape, -1), soft_targets.tokens)
            objective = (losses * weights).mean()
        # Penalties of large and of changing outputs: AR and TAR (Merity et al. 2017, section 4.6).
        if options.ar:
            objective = objective + options.ar * dropped.float().pow(2).mean()
        if options.tar and len(raw) > 1:
            objective = objective + options.tar * (raw[1:] - raw[:-1]).float().pow(2).mean()
        if network.punctuation_softmax is not None and window.punctuation is not None:
            log_probs = network.punctuation_softmax.gate_log_probs(dropped)
            losses = nn.functional.nll_loss(log_probs.flatten(0, 1), window.punctuation.flatten(), reduction="none")
            losses = losses.view_as(targets)
            if soft_targets is not None and soft_targets.punctuation is not None:
                losses = soft_targets.mix_losses(losses, log_probs, soft_targets.punctuation)
            objective = objective + losses.mean()
        return loss, objective, state


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
    layers = layer_groups(network) if options.layer_lr_decay != 1 else [dict(network.named_parameters())]
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


def recurrent_tensors(state: RecurrentState) -> dict[str, Tensor]:
    parts = ("hidden", "cell")
    return {f"{layer}.{parts[index]}": pair[index] for layer, pair in enumerate(state) for index in (0, 1)}


def load_recurrent_state(
    tensors: Mapping[str, Tensor], prefix: str, like: RecurrentState, shard: Callable[[Tensor], Tensor]
) -> RecurrentState:
    """Load what `recurrent_tensors` returned; a tensor of another shape or type than in `like` raises a ValueError."""
    loaded = []
    for name, expected in recurrent_tensors(like).items():
        tensor = shard(tensors[f"{prefix}{name}"])
        if tensor.shape != expected.shape or not tensor.is_floating_point():
            raise ValueError(f"unexpected shape or type of {prefix}{name}")
        loaded.append(tensor.to(expected.device))
    return list(zip(loaded[::2], loaded[1::2], strict=True))
