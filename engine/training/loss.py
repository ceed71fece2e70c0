"""Training objective: cross-entropy of the next token, and the regularization terms of the AWD-LSTM paper."""

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import TrainingConfig
from engine.data.arrays import chunked_bincount
from engine.data.tokenizers.base import TokenIds
from engine.models.network import Network, RecurrentState
from engine.models.torch_ops import linear_cross_entropy
from engine.models.transformer import TransformerModel
from engine.runtime.distributed import DistributedContext
from engine.training.batches import Window
from engine.training.distillation import SoftTargets

LARGE_VOCABULARY = 8192  # tokens from which the logits of a window take much more memory than everything else


class Objective:
    """The configured loss of a BPTT window, computed from the network's output."""

    def __init__(self, options: TrainingConfig, ids: TokenIds, vocabulary_size: int, device: torch.device) -> None:
        """Count the token frequencies of the training split `ids` `[time]`; `device` is the device of the logits."""
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
        """Return the cross-entropy, and the objective to minimize: the cross-entropy with all regularization terms.

        `logits` `[time, batch, classes]` belong to the `sampled_classes` that `sample_softmax_classes` returned, or to
        the whole vocabulary. `raw` and `dropped` `[time, batch, hidden]` are the outputs of the last layer before and
        after dropout. The cross-entropy counts only the columns of the corpus, not those that teachers wrote.
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
        """Return the cross-entropy of a window, the objective to minimize, and the new state of the network."""
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
