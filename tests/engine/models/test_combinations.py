"""Mixtures and the neural cache (Grave, Joulin and Usunier 2017, equations 2 to 4) against plain loops."""

import math
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID
from engine.models.base import SCORING_CHUNK, SequenceOutput, forward_sequence, hidden_vector
from engine.models.combinations import (
    THETA_GRID,
    WEIGHT_GRID,
    CacheSettings,
    Mixture,
    NeuralCache,
    cache_probs,
    tune_cache,
    tune_mixture_weights,
)
from engine.models.ngram import KneserNey, Unigram
from tests.support.models import distributions, make_tokenizer, random_ids, random_lstm

SIZE = 9
VOCABULARY = make_tokenizer(SIZE)
CONFIG = ModelConfig(embedding_size=5, hidden_size=5)

TEXTS = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=12)
WEIGHTS = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda parts: [part / sum(parts) for part in parts])


class ConstantModel:
    """The same distribution after every token, and no hidden vectors."""

    def __init__(self, log_probs, tokenizer=VOCABULARY):
        self.tokenizer = tokenizer
        self.log_probs = np.array(log_probs, np.float32)

    def start(self):
        return None

    def advance(self, state, token):
        return self.log_probs, None


LSTM, OTHER_LSTM = random_lstm(CONFIG, VOCABULARY, 0), random_lstm(CONFIG, VOCABULARY, 1)
KNESER_NEY = KneserNey(random_ids(400, SIZE, 5), VOCABULARY, order=3)
THREE_MODELS = (LSTM, KNESER_NEY, OTHER_LSTM)


@settings(max_examples=25, deadline=None)
@given(TEXTS, WEIGHTS)
def test_distributions_are_weighted_means(ids, weights):
    mixed = distributions(Mixture(THREE_MODELS, weights), ids)
    by_model = [distributions(model, ids) for model in THREE_MODELS]
    for position, row in enumerate(mixed):
        expected = [
            sum(weight * rows[position][token] for weight, rows in zip(weights, by_model, strict=True))
            for token in range(SIZE)
        ]
        assert row == pytest.approx(expected, rel=1e-5)
        assert row.sum() == pytest.approx(1, abs=1e-5)


def test_tokens_that_are_almost_impossible_for_all_models_have_finite_scores():
    first, second = ConstantModel([-5000.0] * SIZE), ConstantModel([-5001.0] * SIZE)
    mixture = Mixture([first, second], [0.25, 0.75])
    expected = -5000 + math.log(0.25 + 0.75 * math.exp(-1))
    log_probs, _ = mixture.advance(mixture.start(), EOS_ID)
    assert log_probs == pytest.approx([expected] * SIZE, rel=1e-6)
    assert forward_sequence(mixture, random_ids(4, SIZE)).log_probs == pytest.approx([expected] * 4, rel=1e-6)


def test_weights_may_miss_one_by_rounding():
    thirds = Mixture(THREE_MODELS, [0.3333333, 0.3333333, 0.3333333])
    assert distributions(thirds, random_ids(5, SIZE)).sum(axis=1) == pytest.approx(1, abs=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 30), st.floats(-2000, 0))
def test_tuned_weights_satisfy_the_conditions_of_a_maximum(seed, num_models, time, offset):
    """At a maximum, d log-likelihood / d weight is at most the number of tokens."""
    log_probs = np.random.default_rng(seed).uniform(-4, 0, (num_models, time))
    weights = np.array(tune_mixture_weights(log_probs + offset, num_iterations=3000))  # the offset cancels
    probs = np.exp(log_probs)
    gradient = (probs / (weights @ probs)).mean(axis=1)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert (gradient <= 1.01).all()
    assert weights @ gradient == pytest.approx(1)


CACHE_SETTINGS = st.builds(CacheSettings, st.integers(1, 6), st.floats(0, 100), st.floats(0, 0.9))


UNIGRAM = Unigram(random_ids(300, SIZE, 5), VOCABULARY)
MODELS = {
    "LSTM": LSTM, "Kneser-Ney": KNESER_NEY, "unigram": UNIGRAM, "mixture": Mixture([LSTM, KNESER_NEY], [0.6, 0.4]),
}  # fmt: skip


def reference_cache_probs(cached, vector, theta):
    """Equation 3: each cached token gets exp(theta h_t . h_i), normalized over the cache."""
    probs = [0.0] * SIZE
    for key, token in cached:
        probs[token] += math.exp(theta * sum(a * b for a, b in zip(key, vector, strict=True)))
    return [prob / sum(probs) for prob in probs]


def reference_distributions(model, ids, cache_settings):
    """Return the distributions after `<eos>` and after each token, with a queue as the cache."""
    cached = deque(maxlen=cache_settings.window)
    log_probs, state = model.advance(model.start(), EOS_ID)
    rows = [[math.exp(value) for value in log_probs.tolist()]]
    weight = cache_settings.weight
    for token in ids:
        cached.append((hidden_vector(model, state).tolist(), int(token)))
        log_probs, state = model.advance(state, int(token))
        cache_probs = reference_cache_probs(cached, hidden_vector(model, state).tolist(), cache_settings.theta)
        model_probs = [math.exp(value) for value in log_probs.tolist()]
        rows.append([(1 - weight) * p + weight * c for p, c in zip(model_probs, cache_probs, strict=True)])
    return rows


@pytest.mark.parametrize("name", list(MODELS))
@settings(max_examples=20, deadline=None)
@given(ids=TEXTS, cache_settings=CACHE_SETTINGS)
def test_distributions_match_the_equations(name, ids, cache_settings):
    rows = distributions(NeuralCache(MODELS[name], cache_settings), ids)
    for row, expected in zip(rows, reference_distributions(MODELS[name], ids, cache_settings), strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-9)
        assert row.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("window", [1, 7, SCORING_CHUNK - 1, SCORING_CHUNK, SCORING_CHUNK + 1, 1000])
def test_cache_probs_of_a_long_text_match_plain_sums(window):
    length = 2 * SCORING_CHUNK + 5
    ids, hidden = random_ids(length, SIZE), np.random.default_rng(window).normal(size=(length, 3)).astype(np.float32)
    theta = 0.7
    similarity = np.exp(theta * (hidden.astype(np.float64) @ hidden.astype(np.float64).T)).tolist()
    probs = cache_probs(hidden, ids, window, [theta])[0]
    tokens = ids.tolist()
    assert probs[0] == 0
    around_first_chunk = [SCORING_CHUNK + offset for offset in (-1, 0, 1, 100)]
    around_second_chunk = [2 * SCORING_CHUNK + offset for offset in (-1, 0, 4)]
    for position in (1, 2, 8, *around_first_chunk, *around_second_chunk):
        cached = range(max(0, position - window), position)
        total = sum(similarity[position][other] for other in cached)
        same = sum(similarity[position][other] for other in cached if tokens[other] == tokens[position])
        assert probs[position] == pytest.approx(same / total, rel=1e-4, abs=1e-9), position


@pytest.mark.parametrize(("num_words", "noise"), [(4, 0.3), (2, 2.0)], ids=["similarity helps", "frequency helps"])
@pytest.mark.parametrize("window", [4, 500])
def test_tuned_settings_are_the_best_of_the_grid(num_words, noise, window):
    rng = np.random.default_rng(4)
    ids = (random_ids(50, SIZE) % num_words).astype(np.int32)
    hidden = (np.eye(SIZE)[ids] + rng.normal(0, noise, (50, SIZE))).astype(np.float32)
    model_probs, totals = rng.uniform(0.05, 0.4, 50), {}
    for theta, probs in zip(THETA_GRID, cache_probs(hidden, ids, window, THETA_GRID), strict=True):
        for weight in WEIGHT_GRID:
            mixed = (1 - weight) * model_probs + weight * probs
            totals[theta, weight] = np.log(mixed[1:]).sum()  # the first token has no cache
    tuned = tune_cache(SequenceOutput(np.log(model_probs), hidden), ids, window)
    assert tuned.window == window
    assert totals[tuned.theta, tuned.weight] == pytest.approx(max(totals.values()), abs=1e-6)


def test_a_model_without_hidden_vectors_gets_the_best_weight():
    ids = np.array([2, 2, 2, 3] * 10, np.int32)
    tuned = tune_cache(forward_sequence(UNIGRAM, ids), ids)
    totals = {
        weight: forward_sequence(NeuralCache(UNIGRAM, CacheSettings(500, 0.0, weight)), ids).log_probs.sum()
        for weight in WEIGHT_GRID
    }
    assert tuned.weight == max(totals, key=totals.__getitem__)
    assert totals[tuned.weight] > forward_sequence(UNIGRAM, ids).log_probs.sum()
