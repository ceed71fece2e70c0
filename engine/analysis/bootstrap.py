"""Block bootstrap: confidence intervals of a rate over a text, and the comparison of two models on the same text."""

from dataclasses import dataclass

import numpy as np

from engine.data.arrays import Float64Array

MIN_BLOCKS = 10
"""Fewest blocks for a confidence interval: with fewer, the resampled texts are almost all alike."""
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class PairedComparison:
    """Difference between two models on the same text, first model minus second."""

    difference: float
    """Difference of the rates, such as bits per character; negative if the first model is better."""
    confidence_interval: tuple[float, float] | None
    """95 % confidence interval of `difference`; None if the text is too short for one."""
    better_fraction: float | None
    """Fraction of the resampled texts on which the first model is better, ties counted as half; None as above."""


def rate_confidence_interval(amounts: Float64Array, sizes: Float64Array) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of `amounts.sum() / sizes.sum()`, both `[blocks]`.

    Blocks of consecutive text are resampled, because neighbouring tokens are similarly hard to predict. The result is
    None for fewer than `MIN_BLOCKS` blocks, or amounts that are not finite.
    """
    if len(amounts) < MIN_BLOCKS or not np.isfinite(amounts).all():
        return None
    return _interval(_resampled_rates(amounts, sizes))


def compare_paired(first: Float64Array, second: Float64Array, sizes: Float64Array) -> PairedComparison:
    """Compare the amounts `[blocks]` of two models for the same blocks of a text, whose `sizes` are `[blocks]`.

    Both models are scored on the same resampled texts, so that a text that is hard for both does not count.
    """
    difference = float((first.sum() - second.sum()) / sizes.sum())
    if len(first) < MIN_BLOCKS or not np.isfinite(first - second).all():
        return PairedComparison(difference, None, None)
    rates = _resampled_rates(first - second, sizes)
    better_fraction = float(np.mean(rates < 0) + np.mean(rates == 0) / 2)
    return PairedComparison(difference, _interval(rates), better_fraction)


def _resampled_rates(amounts: Float64Array, sizes: Float64Array) -> Float64Array:
    """Return the rates `[resamples]` of texts that consist of as many blocks, drawn with replacement."""
    num_blocks = len(amounts)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), NUM_RESAMPLES).astype(np.float64)
    rates: Float64Array = (counts @ amounts) / (counts @ sizes)
    return rates


def _interval(rates: Float64Array) -> tuple[float, float]:
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)
