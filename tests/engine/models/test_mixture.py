"""Mixtures against plain weighted means, and tuned weights against a search of all weights."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import InvalidInputError
from engine.models.mixture import Mixture, tune_mixture_weights
from engine.models.ngram import KneserNey
from tests.support.models import distributions, make_tokenizer, random_ids, random_lstm

SIZE = 9
VOCABULARY = make_tokenizer(SIZE)
CONFIG = ModelConfig(embedding_size=5, hidden_size=5)

TOKENS = st.integers(0, SIZE - 1)
TEXTS = st.lists(TOKENS, min_size=1, max_size=12)
WEIGHTS = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda parts: [part / sum(parts) for part in parts])


def make_ids(length, seed=0):
    return random_ids(length, SIZE, seed)


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
KNESER_NEY = KneserNey(make_ids(400, seed=5), VOCABULARY, order=3)
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
    assert mixture.forward_sequence(make_ids(4)).log_probs == pytest.approx([expected] * 4, rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.6], "0.5,0.6 sum to 1.1"),
        ([0.0, 0.0], "0,0 sum to 0"),
        ([-0.5, 1.5], "-0.5,1.5"),
        ([math.nan, 1.0], "nan,1"),
        ([math.inf, -math.inf], "inf,-inf"),
        ([1.0], "1 weights for 2 models"),
        ([], "0 weights for 2 models"),
    ],
    ids=str,
)
def test_invalid_weights_are_named_in_one_line(weights, message):
    with pytest.raises(InvalidInputError) as caught:
        Mixture([LSTM, KNESER_NEY], weights)
    assert message in str(caught.value)


def test_models_of_different_vocabularies_are_refused():
    swapped = WordTokenizer((*VOCABULARY.tokens[:-2], VOCABULARY.tokens[-1], VOCABULARY.tokens[-2]))
    with pytest.raises(InvalidInputError, match="different vocabularies"):
        Mixture([LSTM, KNESER_NEY, ConstantModel([-math.log(SIZE)] * SIZE, swapped)], [0.5, 0.25, 0.25])


def test_weights_may_miss_one_by_rounding():
    thirds = Mixture(THREE_MODELS, [0.3333333, 0.3333333, 0.3333333])
    assert distributions(thirds, make_ids(5)).sum(axis=1) == pytest.approx(1, abs=1e-5)


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
