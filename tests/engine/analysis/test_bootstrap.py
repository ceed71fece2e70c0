"""Block bootstrap: widths of a normal distribution, and the comparison of two models on the same blocks."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from engine.analysis.bootstrap import MIN_BLOCKS, compare_paired, rate_confidence_interval


def random_bits(num_blocks, seed, mean=200.0, spread=30.0):
    return np.random.default_rng(seed).normal(mean, spread, num_blocks)


def sizes_of(bits):
    return np.full(len(bits), 100.0)


def test_the_interval_has_the_width_of_a_normal_distribution():
    bits = random_bits(400, seed=0)
    low, high = rate_confidence_interval(bits, sizes_of(bits))
    standard_error = bits.std() / math.sqrt(400) / 100
    assert (low + high) / 2 == pytest.approx(bits.mean() / 100, abs=standard_error / 5)
    assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.08)
    assert rate_confidence_interval(bits, sizes_of(bits)) == (low, high)


def test_blocks_of_different_size_are_weighted_by_size():
    """All blocks have the same rate, so any resample has it, too."""
    sizes = np.random.default_rng(1).uniform(1, 100, 50)
    assert rate_confidence_interval(1.7 * sizes, sizes) == pytest.approx((1.7, 1.7))


def test_short_texts_and_impossible_tokens_have_no_interval():
    bits = random_bits(MIN_BLOCKS, seed=3)
    assert rate_confidence_interval(bits, sizes_of(bits)) is not None
    short = bits[1:]
    assert rate_confidence_interval(short, sizes_of(short)) is None
    comparison = compare_paired(short, short + 5, sizes_of(short))
    assert comparison.difference == pytest.approx(-0.05)
    assert (comparison.confidence_interval, comparison.better_fraction) == (None, None)
    bits[4] = math.inf
    assert rate_confidence_interval(bits, sizes_of(bits)) is None


def test_a_small_difference_on_every_block_is_certain_and_none_is_even():
    bits = random_bits(50, seed=1)
    comparison = compare_paired(bits, bits + 1, sizes_of(bits))
    assert comparison.difference == pytest.approx(-0.01)
    assert comparison.confidence_interval == pytest.approx((-0.01, -0.01))
    assert comparison.better_fraction == 1
    same = compare_paired(bits, bits, sizes_of(bits))
    assert (same.difference, same.confidence_interval, same.better_fraction) == (0, (0, 0), 0.5)


@pytest.mark.parametrize("mean", [-3.0, 0.0, 1.5])
def test_the_chance_of_being_better_is_that_of_a_normal_distribution(mean):
    common, differences = random_bits(400, seed=2), random_bits(400, 3, mean, 30)
    comparison = compare_paired(common + differences, common, sizes_of(common))
    standard_error = differences.std() / math.sqrt(400)
    expected = NormalDist(differences.mean(), standard_error)
    assert comparison.difference == pytest.approx(differences.mean() / 100)
    assert comparison.better_fraction == pytest.approx(expected.cdf(0), abs=0.04)
    low, high = comparison.confidence_interval
    assert (100 * low, 100 * high) == pytest.approx(
        (expected.inv_cdf(0.025), expected.inv_cdf(0.975)), abs=standard_error / 4
    )
