"""Each stage of the settings chain against a naive reference."""

import math

import numpy as np
import pytest

from engine.generation import processors
from engine.generation.processors import apply_temperature, apply_top_k, apply_top_p, log_softmax
from tests.support.sampling import kept_ids, naive_order, naive_top_p, random_logits


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [1, 2, 7, 39, 40, 1000])
def test_top_k_keeps_the_k_likeliest_tokens(seed: int, k: int) -> None:
    logits = random_logits(seed)
    actual = apply_top_k(logits, k)
    assert kept_ids(actual) == set(naive_order(logits)[:k])
    assert all(actual[i] == logits[i] for i in kept_ids(actual))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999999])
def test_top_p_keeps_the_smallest_nucleus(seed: int, p: float) -> None:
    logits = random_logits(seed)
    actual = apply_top_p(logits, p)
    assert kept_ids(actual) == naive_top_p(logits, p)
    assert all(actual[i] == logits[i] for i in kept_ids(actual))


def test_top_p_keeps_the_token_that_reaches_the_threshold() -> None:
    logits = np.log([0.05, 0.5, 0.15, 0.3])
    assert kept_ids(apply_top_p(logits, 0.49)) == {1}
    assert kept_ids(apply_top_p(logits, 0.51)) == {1, 3}
    assert kept_ids(apply_top_p(logits, 0.79)) == {1, 3}
    assert kept_ids(apply_top_p(logits, 0.81)) == {1, 3, 2}
    assert kept_ids(apply_top_p(logits, 0.99)) == {0, 1, 2, 3}


def test_top_p_renormalizes_after_an_earlier_filter() -> None:
    logits = np.array([-np.inf, math.log(0.3), math.log(0.2), math.log(0.1)])  # renormalized: 1/2, 1/3, 1/6
    assert kept_ids(apply_top_p(logits, 0.45)) == {1}
    assert kept_ids(apply_top_p(logits, 0.55)) == {1, 2}
    assert kept_ids(apply_top_p(logits, 0.9)) == {1, 2, 3}


def test_top_p_keeps_equally_likely_tokens_in_vocabulary_order() -> None:
    """One seed then gives the same text on all processors, whichever sorting algorithm NumPy uses there."""
    logits = np.where(np.arange(1000) % 3 == 0, 0.0, -0.5)
    probs = np.exp(logits) / np.exp(logits).sum()
    number = int(0.2 / probs[0]) + 1
    assert kept_ids(apply_top_p(logits, 0.2)) == set(range(0, 3 * number, 3))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("min_p", [1e-6, 0.05, 0.3, 1.0])
def test_min_p_keeps_tokens_close_to_the_likeliest(seed: int, min_p: float) -> None:
    logits = random_logits(seed)
    highest = max(math.exp(s) for s in logits)
    actual = processors.apply_min_p(logits, min_p)
    assert kept_ids(actual) == {i for i, s in enumerate(logits) if math.exp(s) >= min_p * highest * (1 - 1e-12)}
    assert all(actual[i] == logits[i] for i in kept_ids(actual))


def test_repetition_penalty_makes_seen_tokens_less_likely() -> None:
    logits = np.array([-1.0, 2.0, -0.5, 3.0, -np.inf, 0.0, 0.5])
    actual = processors.apply_repetition_penalty(logits, [1, 2, 2, 4, 1, 5, 6], 2.0)
    assert actual.tolist() == [-1.0, 1.0, -1.0, 3.0, -np.inf, 0.0, 0.25]
    assert logits.tolist() == [-1.0, 2.0, -0.5, 3.0, -np.inf, 0.0, 0.5]
    assert processors.apply_repetition_penalty(logits, [], 2.0).tolist() == logits.tolist()


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0, 2.0])
def test_temperature_is_a_power_of_the_probabilities(temperature: float) -> None:
    logits = random_logits(3)
    powers = np.exp(logits - logits.max()) ** (1 / temperature)
    assert np.exp(log_softmax(apply_temperature(logits, temperature))) == pytest.approx(
        powers / powers.sum(), abs=1e-12
    )


def test_temperatures_of_0_001_and_above_are_not_greedy() -> None:
    logits = random_logits(4)
    assert np.array_equal(apply_temperature(logits, 0.001), logits / 0.001)
    assert kept_ids(apply_temperature(logits, 0.0009)) == {int(np.argmax(logits))}


@pytest.mark.parametrize("temperature", [0.0, 1e-12, 1e-300])
def test_temperature_zero_keeps_the_likeliest_token(temperature: float) -> None:
    logits = random_logits(4)
    probs = np.exp(log_softmax(apply_temperature(logits, temperature)))
    assert kept_ids(np.log(np.maximum(probs, 1e-300)) * (probs > 0) + np.where(probs > 0, 0, -np.inf)) == {
        int(np.argmax(logits))
    }
    assert probs.max() == pytest.approx(1)
    assert apply_temperature(logits, temperature).max() == 0


def test_log_softmax_normalizes_the_probabilities() -> None:
    probs = np.exp(log_softmax(np.array([1000.0, 999.0, -np.inf, -5000.0])))
    assert probs == pytest.approx([1 / (1 + math.exp(-1)), math.exp(-1) / (1 + math.exp(-1)), 0, 0])
