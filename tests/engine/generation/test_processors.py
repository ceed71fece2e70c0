"""Each stage of the sampler chain against a naive reference."""

import math

import numpy as np
import pytest

from engine.generation.processors import keep_min_p, keep_top_k, keep_top_p, normalize, penalize_repetition, temper
from tests.support.sampling import kept_by, naive_order, naive_top_p, scores_of


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [1, 2, 7, 39, 40, 1000])
def test_top_k(seed: int, k: int) -> None:
    scores = scores_of(seed)
    found = keep_top_k(scores, k)
    assert kept_by(found) == set(naive_order(scores)[:k])
    assert all(found[i] == scores[i] for i in kept_by(found))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999999])
def test_top_p(seed: int, p: float) -> None:
    scores = scores_of(seed)
    found = keep_top_p(scores, p)
    assert kept_by(found) == naive_top_p(scores, p)
    assert all(found[i] == scores[i] for i in kept_by(found))


def test_top_p_keeps_the_word_that_crosses() -> None:
    scores = np.log([0.05, 0.5, 0.15, 0.3])
    assert kept_by(keep_top_p(scores, 0.49)) == {1}
    assert kept_by(keep_top_p(scores, 0.51)) == {1, 3}
    assert kept_by(keep_top_p(scores, 0.79)) == {1, 3}
    assert kept_by(keep_top_p(scores, 0.81)) == {1, 3, 2}
    assert kept_by(keep_top_p(scores, 0.99)) == {0, 1, 2, 3}


def test_top_p_counts_what_is_left_as_the_whole() -> None:
    """After an earlier filter the probabilities are those of the words that are left."""
    scores = np.array([-np.inf, math.log(0.3), math.log(0.2), math.log(0.1)])  # one half, a third, a sixth
    assert kept_by(keep_top_p(scores, 0.45)) == {1}
    assert kept_by(keep_top_p(scores, 0.55)) == {1, 2}
    assert kept_by(keep_top_p(scores, 0.9)) == {1, 2, 3}


def test_of_words_as_likely_as_each_other_top_p_keeps_those_first_in_the_vocabulary() -> None:
    """So that one seed gives one text on any processor, whatever way it sorts."""
    scores = np.where(np.arange(1000) % 3 == 0, 0.0, -0.5)
    probs = np.exp(scores) / np.exp(scores).sum()
    number = int(0.2 / probs[0]) + 1
    assert kept_by(keep_top_p(scores, 0.2)) == set(range(0, 3 * number, 3))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [1e-6, 0.05, 0.3, 1.0])
def test_min_p(seed: int, share: float) -> None:
    scores = scores_of(seed)
    highest = max(math.exp(s) for s in scores)
    found = keep_min_p(scores, share)
    assert kept_by(found) == {i for i, s in enumerate(scores) if math.exp(s) >= share * highest * (1 - 1e-12)}
    assert all(found[i] == scores[i] for i in kept_by(found))


def test_repetition_penalty() -> None:
    scores = np.array([-1.0, 2.0, -0.5, 3.0, -np.inf, 0.0, 0.5])
    found = penalize_repetition(scores, [1, 2, 2, 4, 1, 5, 6], 2.0)
    assert found.tolist() == [-1.0, 1.0, -1.0, 3.0, -np.inf, 0.0, 0.25]
    assert scores.tolist() == [-1.0, 2.0, -0.5, 3.0, -np.inf, 0.0, 0.5]
    assert penalize_repetition(scores, [], 2.0).tolist() == scores.tolist()


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0, 2.0])
def test_temperature_is_a_power_of_the_probabilities(temperature: float) -> None:
    scores = scores_of(3)
    powers = np.exp(scores - scores.max()) ** (1 / temperature)
    assert np.exp(normalize(temper(scores, temperature))) == pytest.approx(powers / powers.sum(), abs=1e-12)


def test_a_temperature_that_is_written_is_no_greed() -> None:
    scores = scores_of(4)
    assert np.array_equal(temper(scores, 0.001), scores / 0.001)
    assert kept_by(temper(scores, 0.0009)) == {int(np.argmax(scores))}


@pytest.mark.parametrize("temperature", [0.0, 1e-12, 1e-300])
def test_temperature_zero_is_the_likeliest_word(temperature: float) -> None:
    scores = scores_of(4)
    probs = np.exp(normalize(temper(scores, temperature)))
    assert kept_by(np.log(np.maximum(probs, 1e-300)) * (probs > 0) + np.where(probs > 0, 0, -np.inf)) == {
        int(np.argmax(scores))
    }
    assert probs.max() == pytest.approx(1)
    assert temper(scores, temperature).max() == 0  # the logarithm of one


def test_normalize() -> None:
    probs = np.exp(normalize(np.array([1000.0, 999.0, -np.inf, -5000.0])))
    assert probs == pytest.approx([1 / (1 + math.exp(-1)), math.exp(-1) / (1 + math.exp(-1)), 0, 0])
