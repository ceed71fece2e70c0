"""Averages of the weights over optimizer steps, and the non-monotone trigger that starts one."""

from collections.abc import Sequence
from copy import deepcopy

import torch

from engine.models.network import Network


class WeightAverage:
    """A copy of a network whose weights are a running average of the trained network's weights.

    With a decay the average is an exponential moving average. Without a decay it is the mean over all updates since
    its creation, which averaged SGD evaluates (Merity et al. 2017, section 3).
    """

    def __init__(self, network: Network, decay: float | None = None, *, is_pretrained: bool = False) -> None:
        """Copy `network`; None as `decay` for a plain mean.

        A moving average of a pre-trained network starts at the network's weights. Otherwise, it starts as a running
        mean of the updates, so that it soon forgets the random initial weights.
        """
        # What the training never changes is shared: a pre-trained model below an adapter is large.
        self.network = deepcopy(network, {id(frozen): frozen for frozen in (*network.buffers(), network.base)})
        self.updates = 0
        self._decay = decay
        self._is_pretrained = is_pretrained

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Add the weights of `network` after one more optimizer step to the average."""
        n = self.updates
        if self._decay is None:
            weight = 1 / (n + 1)
        else:
            weight = 1 - (self._decay if self._is_pretrained else min(self._decay, n / (n + 10)))
        for mean, parameter in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(parameter, weight)
        self.updates += 1


def nonmonotone_trigger(history: Sequence[float], perplexity: float, nonmonotone_interval: int) -> bool:
    """Return True if `perplexity` exceeds the best of `history` without its last `nonmonotone_interval` entries.

    This is the trigger of NT-ASGD (Merity et al. 2017, algorithm 1). It never fires before the history is longer than
    the interval, and tolerates a worse evaluation among the last few.
    """
    return len(history) > nonmonotone_interval and perplexity > min(history[:-nonmonotone_interval])
