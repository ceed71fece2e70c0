"""Averages of the weights along the way, and when the non-monotone trigger begins one."""

from collections.abc import Sequence
from copy import deepcopy

import torch

from engine.models.lstm import Network


class WeightAverage:
    """A second network whose weights are an average of the trained one's.

    With a decay it is an exponential moving average; without one the plain mean of all updates since it was
    begun, which is what averaged SGD evaluates (arXiv 1708.02182, section 3).
    """

    def __init__(self, network: Network, decay: float | None = None) -> None:
        self.network = deepcopy(network)
        self._decay = decay
        self.updates = 0
        """Taken into the average so far."""

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Take the weights after one more update into the average."""
        before = self.updates
        # A moving average is a running mean at first, so that the random start is soon forgotten.
        share = 1 / (before + 1) if self._decay is None else 1 - min(self._decay, before / (before + 10))
        for mean, parameter in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(parameter, share)
        self.updates += 1


def gets_no_better(earlier: Sequence[float], now: float, window: int) -> bool:
    """Whether validation `now` is worse than the best of all `earlier` ones but the last `window`.

    The trigger of NT-ASGD (algorithm 1): it waits for `window` evaluations, and a worse one among the last
    few does not set it off.
    """
    return len(earlier) > window and now > min(earlier[:-window])
