"""Comparison of two next-token distributions against sums that Python computes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.next_token_comparison import compare_next_tokens, kl_divergence_bits
from engine.models.base import LogProbs

weights = st.lists(st.floats(0.01, 10), min_size=6, max_size=6)


def log_probs(weights: list[float]) -> LogProbs:
    return np.log(np.array(weights) / sum(weights)).astype(np.float32)


@given(weights, weights)
def test_divergence_is_the_expected_difference_of_bits(first: list[float], second: list[float]) -> None:
    p, q = ([weight / sum(each) for weight in each] for each in (first, second))
    expected = math.fsum(a * (math.log2(a) - math.log2(b)) for a, b in zip(p, q, strict=True))
    assert kl_divergence_bits(log_probs(first), log_probs(second)) == pytest.approx(expected, abs=1e-5)


@given(weights)
def test_equal_distributions_do_not_diverge(each: list[float]) -> None:
    assert kl_divergence_bits(log_probs(each), log_probs(each)) == 0


def test_divergence_of_a_fair_from_a_loaded_coin() -> None:
    assert kl_divergence_bits(log_probs([3, 1]), log_probs([1, 1])) == pytest.approx(
        0.75 * math.log2(1.5) + 0.25 * math.log2(0.5), abs=1e-6
    )


@given(weights, weights, st.integers(1, 6))
def test_comparison_lists_what_is_likely_in_either(first: list[float], second: list[float], count: int) -> None:
    p, q = log_probs(first), log_probs(second)
    comparison = compare_next_tokens(p, q, count)
    larger = [max(a, b) for a, b in zip(p.tolist(), q.tolist(), strict=True)]
    assert sorted((larger[id] for id in comparison.ids.tolist()), reverse=True) == sorted(larger, reverse=True)[:count]
    assert comparison.probs[0] == pytest.approx(np.exp(p[comparison.ids]), abs=1e-6)
    assert comparison.probs[1] == pytest.approx(np.exp(q[comparison.ids]), abs=1e-6)
    assert comparison.best == (int(np.argmax(p)), int(np.argmax(q)))
    assert comparison.agrees == (np.argmax(p) == np.argmax(q))


def test_excluded_token_adds_nothing_to_the_divergence() -> None:
    with np.errstate(divide="ignore"):
        first, second = np.log(np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]], np.float32))
    assert kl_divergence_bits(first, second) == pytest.approx(1)
    assert kl_divergence_bits(first, first) == 0
    assert kl_divergence_bits(second, first) == math.inf
