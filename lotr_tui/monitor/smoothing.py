"""The smoothed train curve: a running mean, kept up as reports come in."""

import math

import numpy as np

from lotr_tui.monitor.step_columns import Floats, StepColumns

WILD = 1e300
"""What is above can no longer be reckoned with."""
BLOCK = 32
"""Values that are smoothed in one product of matrices."""
AT_ONCE = 256 * BLOCK
"""Reports smoothed together: for what is larger, memory is fetched anew each time, which takes ten times as long."""


class Smoothed:
    """Base-10 logarithms of the train perplexity, smoothed; only what is new is computed."""

    def __init__(self, share: float) -> None:
        """`share` of the old mean in each new one."""
        self.share = share
        self._steps: StepColumns | None = None
        self._forgets = 0
        self._values = np.empty(0)
        self._length = 0
        self._mean = math.nan

    def of(self, steps: StepColumns) -> Floats:
        """A value a report; NaN where the perplexity is no positive number."""
        if self._steps is not steps or self._forgets != steps.forgets:
            self._steps, self._forgets = steps, steps.forgets
            self._length, self._mean = 0, math.nan
        if len(steps) > len(self._values):
            grown = np.empty(steps.room)
            grown[: self._length] = self._values[: self._length]
            self._values = grown
        values = steps.column("train_perplexity")
        while self._length < len(values):
            piece = slice(self._length, min(self._length + AT_ONCE, len(values)))
            self._values[piece], self._mean = smooth(log10(values[piece]), self.share, self._mean)
            self._length = piece.stop
        return self._values[: self._length]


def log10(values: Floats) -> Floats:
    """Logarithms; NaN for what is no perplexity: not above 0, not finite, or beyond all measure."""
    good = (values > 0) & (values < WILD)
    return np.log10(values, where=good, out=np.full(len(values), np.nan))


def smooth(values: Floats, share: float, mean: float = math.nan) -> tuple[Floats, float]:
    """Each value's running mean, `share` of the mean before and the rest of the value, and the last mean.

    The first mean, where none is given, is the first value. What is not finite is passed over and has none.
    """
    finite = np.isfinite(values)
    known = values[finite]
    if not len(known):
        return np.full(len(values), np.nan), mean
    before = float(known[0]) if math.isnan(mean) else mean
    blocks = np.zeros((-(-len(known) // BLOCK), BLOCK))
    blocks.ravel()[: len(known)] = known
    powers = share ** np.arange(BLOCK + 1)
    age = np.subtract.outer(np.arange(BLOCK), np.arange(BLOCK))
    weights = np.where(age >= 0, (1 - share) * powers[np.maximum(age, 0)], 0.0)
    own = blocks @ weights.T  # of each block alone, as if the mean before it were 0
    means = np.empty(len(blocks))
    for block, end in enumerate(own[:, -1].tolist()):
        means[block] = before
        before = powers[-1] * before + end
    smoothed = (own + np.outer(means, powers[1:])).ravel()[: len(known)]
    result = np.full(len(values), np.nan)
    result[finite] = smoothed
    return result, float(smoothed[-1])
