"""Incremental smoothing of the training perplexity."""

import math

import numpy as np

from engine.data.arrays import Float64Array
from lotr_tui.monitor.step_columns import StepColumns

MAX_PERPLEXITY = 1e300
"""Perplexity from which a value is treated as missing."""
BLOCK_SIZE = 32
"""Values that are smoothed by one row of a matrix product."""
CHUNK_SIZE = 256 * BLOCK_SIZE
"""Steps smoothed at once; larger temporary arrays are allocated again for each chunk, which takes ten times as long."""


class SmoothedPerplexity:
    """Exponential moving average of the base-10 logarithm of the training perplexity, updated incrementally."""

    def __init__(self, decay: float) -> None:
        """Smooth with `decay`, the weight of the previous mean in each new mean."""
        self.decay = decay
        self._steps: StepColumns | None = None
        self._rewind_count = 0
        self._values = np.empty(0)
        self._length = 0
        self._mean = math.nan

    def compute(self, steps: StepColumns) -> Float64Array:
        """Return the smoothed values `[step]`; NaN if the perplexity is not a positive number."""
        if self._steps is not steps or self._rewind_count != steps.rewind_count:
            self._steps, self._rewind_count = steps, steps.rewind_count
            self._length, self._mean = 0, math.nan
        if len(steps) > len(self._values):
            grown = np.empty(steps.capacity)
            grown[: self._length] = self._values[: self._length]
            self._values = grown
        perplexities = steps.column("train_perplexity")
        while self._length < len(perplexities):
            chunk = slice(self._length, min(self._length + CHUNK_SIZE, len(perplexities)))
            self._values[chunk], self._mean = exponential_moving_average(
                log10_or_nan(perplexities[chunk]), self.decay, self._mean
            )
            self._length = chunk.stop
        return self._values[: self._length]


def log10_or_nan(values: Float64Array) -> Float64Array:
    """Return base-10 logarithms; NaN for values that are not in (0, `MAX_PERPLEXITY`)."""
    valid = (values > 0) & (values < MAX_PERPLEXITY)
    return np.log10(values, where=valid, out=np.full(len(values), np.nan))


def exponential_moving_average(
    values: Float64Array, decay: float, initial_mean: float = math.nan
) -> tuple[Float64Array, float]:
    """Return the exponential moving average after each value, and the last average.

    Args:
        values: Values `[time]`. Values that are not finite are skipped, and their average is NaN.
        decay: Weight of the previous average; the new value has the weight `1 - decay`.
        initial_mean: Average before the first value; NaN to start with the first finite value.
    """
    finite = np.isfinite(values)
    known = values[finite]
    if not len(known):
        return np.full(len(values), np.nan), initial_mean
    mean = float(known[0]) if math.isnan(initial_mean) else initial_mean
    blocks = np.zeros((-(-len(known) // BLOCK_SIZE), BLOCK_SIZE))
    blocks.ravel()[: len(known)] = known
    powers = decay ** np.arange(BLOCK_SIZE + 1)
    age = np.subtract.outer(np.arange(BLOCK_SIZE), np.arange(BLOCK_SIZE))
    weights = np.where(age >= 0, (1 - decay) * powers[np.maximum(age, 0)], 0.0)
    block_means = blocks @ weights.T  # average of each block if the average before the block were 0
    means_before = np.empty(len(blocks))
    for block, block_end in enumerate(block_means[:, -1].tolist()):
        means_before[block] = mean
        mean = powers[-1] * mean + block_end
    smoothed = (block_means + np.outer(means_before, powers[1:])).ravel()[: len(known)]
    result = np.full(len(values), np.nan)
    result[finite] = smoothed
    return result, float(smoothed[-1])
