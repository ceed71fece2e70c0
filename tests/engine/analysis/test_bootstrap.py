"""Block bootstrap: known widths, coverage, and the comparison of two models on the same blocks."""

import math

import numpy as np
import pytest

from engine.analysis import bootstrap
from engine.analysis.bootstrap import MIN_BLOCKS, compare_paired, rate_confidence_interval
from engine.data.arrays import Float64Array


def random_bits(num_blocks: int, seed: int, mean: float = 200.0, spread: float = 30.0) -> Float64Array:
    return np.random.default_rng(seed).normal(mean, spread, num_blocks)


def sizes_of(bits: Float64Array, size: float = 100.0) -> Float64Array:
    return np.full(len(bits), size)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "NUM_RESAMPLES", 300)


class TestInterval:
    def test_width_is_that_of_a_normal_distribution(self) -> None:
        bits = random_bits(400, seed=0)
        low, high = rate_confidence_interval(bits, sizes_of(bits)) or (math.nan, math.nan)
        standard_error = bits.std() / math.sqrt(400) / 100
        assert (low + high) / 2 == pytest.approx(bits.mean() / 100, abs=standard_error / 5)
        assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.08)

    @pytest.mark.usefixtures("few_resamples")
    def test_interval_covers_the_true_rate_95_percent_of_the_time(self) -> None:
        num_covered = 0
        for seed in range(200):
            bits = random_bits(60, seed)
            low, high = rate_confidence_interval(bits, sizes_of(bits)) or (math.nan, math.nan)
            num_covered += low <= 2.0 <= high
        assert 180 <= num_covered <= 198

    def test_blocks_of_different_size_are_weighted_by_size(self) -> None:
        """All blocks have the same rate, so any resample has it, too."""
        sizes = np.random.default_rng(1).uniform(1, 100, 50)
        assert rate_confidence_interval(1.7 * sizes, sizes) == pytest.approx((1.7, 1.7))

    def test_interval_is_deterministic(self) -> None:
        bits = random_bits(40, seed=2)
        assert rate_confidence_interval(bits, sizes_of(bits)) == rate_confidence_interval(bits, sizes_of(bits))

    def test_short_texts_and_impossible_tokens_have_none(self) -> None:
        bits = random_bits(MIN_BLOCKS, seed=3)
        assert rate_confidence_interval(bits, sizes_of(bits)) is not None
        assert rate_confidence_interval(bits[1:], sizes_of(bits[1:])) is None
        bits[4] = math.inf
        assert rate_confidence_interval(bits, sizes_of(bits)) is None


class TestPairedComparison:
    def test_a_model_compared_with_itself_is_no_better(self) -> None:
        bits = random_bits(50, seed=0)
        comparison = compare_paired(bits, bits, sizes_of(bits))
        assert (comparison.difference, comparison.confidence_interval) == (0, (0, 0))
        assert comparison.better_fraction == 0.5

    def test_a_small_difference_on_every_block_is_certain(self) -> None:
        """The same difference between two independent texts would be far below their noise."""
        bits = random_bits(50, seed=1)
        comparison = compare_paired(bits, bits + 1, sizes_of(bits))
        assert comparison.difference == pytest.approx(-0.01)
        assert comparison.confidence_interval == pytest.approx((-0.01, -0.01))
        assert comparison.better_fraction == 1
        interval = rate_confidence_interval(bits, sizes_of(bits)) or (math.nan, math.nan)
        assert interval[1] - interval[0] > 0.1

    def test_swapping_the_models_mirrors_the_result(self) -> None:
        first, second = random_bits(50, seed=2), random_bits(50, seed=3)
        there, back = (compare_paired(*pair, sizes_of(first)) for pair in ((first, second), (second, first)))
        assert there.difference == -back.difference
        assert there.confidence_interval is not None
        assert back.confidence_interval == pytest.approx(tuple(-bound for bound in reversed(there.confidence_interval)))
        assert back.better_fraction == pytest.approx(1 - (there.better_fraction or 0))

    @pytest.mark.usefixtures("few_resamples")
    def test_equal_models_are_found_better_by_chance_only(self) -> None:
        """The fraction is spread evenly from 0 to 1, so it is beyond 95 % in about 5 % of the trials on each side."""
        fractions = []
        for seed in range(200):
            common = random_bits(60, seed)
            first, second = (common + random_bits(60, 1000 + 2 * seed + i, 0, 10) for i in range(2))
            fractions.append(compare_paired(first, second, sizes_of(common)).better_fraction or 0.0)
        assert 1 <= sum(fraction > 0.95 for fraction in fractions) <= 22
        assert 1 <= sum(fraction < 0.05 for fraction in fractions) <= 22
        assert np.mean(fractions) == pytest.approx(0.5, abs=0.07)

    def test_short_texts_have_a_difference_only(self) -> None:
        bits = random_bits(MIN_BLOCKS - 1, seed=4)
        comparison = compare_paired(bits, bits + 5, sizes_of(bits))
        assert comparison.difference == pytest.approx(-0.05)
        assert comparison.confidence_interval is None
        assert comparison.better_fraction is None
