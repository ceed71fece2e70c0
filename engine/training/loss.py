"""What training makes small: the cross-entropy of the next word, and what the paper adds to it."""

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import TrainingConfig
from engine.data.arrays import count
from engine.data.vocabulary import Ids
from engine.models.lstm import Network, States
from engine.runtime.distributed import World


class Objective:
    """The loss of a window, as configured."""

    def __init__(self, options: TrainingConfig, ids: Ids, vocabulary_size: int, device: torch.device) -> None:
        """Count the training text `ids` `[time]`."""
        self.options = options
        shares = count(ids, vocabulary_size) / len(ids)
        self._frequencies = torch.from_numpy(shares.astype(np.float32)).to(device)
        # How likely each word is to be among those compared: as a target of the window, or drawn.
        self._drawn = min(1.0, options.softmax_samples / vocabulary_size)
        absent = (1 - shares) ** (options.window * options.batch_size) * (1 - self._drawn)
        self._log_shares = torch.from_numpy(np.log(np.maximum(1 - absent, 1e-30)).astype(np.float32)).to(device)

    def words_to_compare(self, targets: Tensor, chance: torch.Generator) -> Tensor | None:
        """Ids, in order, of all the window's targets and of words drawn evenly; None for the whole vocabulary."""
        if not self.options.softmax_samples:
            return None
        among = torch.rand(self._frequencies.shape, device=targets.device, generator=chance) < self._drawn
        among[targets.flatten()] = True
        return among.nonzero().flatten()

    def __call__(
        self, logits: Tensor, targets: Tensor, words: Tensor | None, raw: Tensor, dropped: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The mean negative log-probability of the targets, and that with all penalties: what is made small.

        Args:
            logits: `[time, batch, vocabulary]`, or `[time, batch, words]`.
            targets: `[time, batch]`.
            words: what `words_to_compare` gave.
            raw: the last layer's output `[time, batch, hidden]` before dropout.
            dropped: and after it.
        """
        options = self.options
        logits, classes = logits.float().flatten(0, 1), targets.flatten()
        if words is not None:
            logits, classes = as_if_over_all(logits, classes, words, self._log_shares[words])
        log_probs = torch.log_softmax(logits, dim=-1)
        loss = nn.functional.nll_loss(log_probs, classes)
        objective = loss
        if options.smoothing:
            spread = -(log_probs @ self._frequencies).mean()
            objective = (1 - options.smoothing) * loss + options.smoothing * spread
        if options.ar:
            objective = objective + options.ar * dropped.float().pow(2).mean()
        if options.tar and len(raw) > 1:
            objective = objective + options.tar * (raw[1:] - raw[:-1]).float().pow(2).mean()
        return loss, objective


class Lesson(nn.Module):
    """A network and what is made small, as one module: from a window to its loss."""

    def __init__(self, network: Network, objective: Objective, dtype: torch.dtype, world: World) -> None:
        """`dtype` is that of the matrix products."""
        super().__init__()
        self.network = network
        self._objective = objective
        self._dtype = dtype
        self._world = world

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        pauses: Tensor | None,
        words: Tensor | None,
        states: States,
        masks: torch.Generator,
    ) -> tuple[Tensor, Tensor, States]:
        """The loss of a window, all that is made small, and the states after it.

        Args:
            inputs: `[time, batch]`, this process's columns, as all of these but `words`.
            targets: `[time, batch]`.
            pauses: `[time, batch]`, of a text that has them.
            words: what `Objective.words_to_compare` gave.
            states: those before the window.
            masks: where dropout masks are drawn from.
        """
        mixed: Any = contextlib.nullcontext()
        if self._dtype != torch.float32:
            mixed = torch.autocast(inputs.device.type, self._dtype)
        with mixed:
            logits, states, raw, dropped = self.network(inputs, states, masks, words, pauses, self._world)
        loss, objective = self._objective(logits, targets, words, raw, dropped)
        if self.network.pauses is not None and pauses is not None:
            objective = objective + self.network.pauses.loss(dropped, pauses)
        return loss, objective, states


def as_if_over_all(logits: Tensor, targets: Tensor, words: Tensor, log_shares: Tensor) -> tuple[Tensor, Tensor]:
    """Make a softmax over some words estimate that over all (Jean et al. 2015, section 3).

    A word that is only now and then among the compared ones stands for those that are not, so its exponential is
    divided by how likely it was to be there; a position's own target is always there and stands for itself.

    Args:
        logits: `[position, words]`.
        targets: `[position]`, ids that are all in `words`.
        words: ids in order.
        log_shares: logarithm `[words]` of how likely each was to be among them.

    Returns:
        The logits so weighted, and the targets as places in `words`.
    """
    places = torch.searchsorted(words, targets)
    weighted = (logits - log_shares).scatter_add(1, places[:, None], log_shares[places][:, None])
    return weighted, places
