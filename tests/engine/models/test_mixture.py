"""Mixtures against plain weighted means, and their weights against a search of all of them."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.vocabulary import EOS_ID, Ids, Vocabulary
from engine.errors import UnusableInput
from engine.models.base import LanguageModel, hidden_of, trace
from engine.models.mixture import Mixture, choose_weights
from engine.models.ngram import KneserNey, Unigram
from engine.models.numpy_lstm import Decoder, weight_shapes

SIZE = 9
VOCABULARY = Vocabulary(("<unk>", "<eos>", *(f"w{i}" for i in range(SIZE - 2))))
CONFIG = ModelConfig(embedding_size=5, hidden_size=5)

tokens = st.integers(0, SIZE - 1)
texts = st.lists(tokens, min_size=1, max_size=12)
shares = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda parts: [part / sum(parts) for part in parts])


def text(length: int, seed: int = 0) -> Ids:
    return np.random.default_rng(seed).integers(0, SIZE, length).astype(np.int32)


def decoder(seed: int) -> Decoder:
    chance = np.random.default_rng(seed)
    shapes = weight_shapes(CONFIG, SIZE)
    weights = {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Decoder(CONFIG, VOCABULARY, weights)


class Fixed:
    """Says the same whatever it reads; its vector is empty."""

    def __init__(self, log_probs: Sequence[float], vocabulary: Vocabulary = VOCABULARY) -> None:
        self.vocabulary = vocabulary
        self.log_probs = np.array(log_probs, np.float32)

    def start(self) -> None:
        return None

    def advance(self, state: None, token: int):
        return self.log_probs, None


LSTM, OTHER_LSTM, COUNTS = decoder(0), decoder(1), KneserNey(text(400, seed=5), VOCABULARY, order=3)
THREE = (LSTM, COUNTS, OTHER_LSTM)


def distributions(model: LanguageModel, ids: Sequence[int]) -> np.ndarray:
    """What `model` says after `<eos>` and after each word, as float64 probabilities."""
    state, found = model.start(), []
    for token in (EOS_ID, *ids):
        log_probs, state = model.advance(state, int(token))
        found.append(np.exp(log_probs.astype(np.float64)))
    return np.stack(found)


# --- the mixture ----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(texts, shares)
def test_in_every_state_it_is_the_weighted_mean_and_sums_to_one(ids: list[int], weights: list[float]) -> None:
    mixed = distributions(Mixture(THREE, weights), ids)
    each = [distributions(model, ids) for model in THREE]
    for position, found in enumerate(mixed):
        expected = [sum(w * one[position][word] for w, one in zip(weights, each, strict=True)) for word in range(SIZE)]
        assert found == pytest.approx(expected, rel=1e-5)
        assert found.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_with_all_the_weight_on_one_model_it_is_that_model(chosen: int) -> None:
    ids = text(20)
    mixture = Mixture(THREE, [float(i == chosen) for i in range(3)])
    assert distributions(mixture, ids) == pytest.approx(distributions(THREE[chosen], ids), rel=1e-5)
    assert mixture.trace(ids).scores == pytest.approx(trace(THREE[chosen], ids).scores, abs=1e-6)


def test_a_model_mixed_with_itself_is_itself() -> None:
    ids = text(20)
    assert distributions(Mixture([LSTM, LSTM], [0.3, 0.7]), ids) == pytest.approx(distributions(LSTM, ids), rel=1e-5)


def test_a_mixture_of_mixtures_is_one_mixture() -> None:
    ids = text(20)
    nested = Mixture([Mixture([LSTM, COUNTS], [0.25, 0.75]), OTHER_LSTM], [0.4, 0.6])
    flat = Mixture([LSTM, COUNTS, OTHER_LSTM], [0.1, 0.3, 0.6])
    assert distributions(nested, ids) == pytest.approx(distributions(flat, ids), rel=1e-5)
    assert nested.trace(ids).scores == pytest.approx(flat.trace(ids).scores, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(texts, shares)
def test_reading_a_whole_text_is_reading_it_word_by_word(ids: list[int], weights: list[float]) -> None:
    mixture = Mixture(THREE, weights)
    read = mixture.trace(np.array(ids, np.int32))
    state = mixture.start()
    log_probs, state = mixture.advance(state, EOS_ID)
    for position, token in enumerate(ids):
        assert read.scores[position] == pytest.approx(log_probs[token], abs=1e-5)
        assert read.hidden[position] == pytest.approx(mixture.hidden(state), abs=1e-6)
        log_probs, state = mixture.advance(state, token)
    assert read.scores.shape == (len(ids),)


@settings(max_examples=25, deadline=None)
@given(texts, tokens, tokens)
def test_a_state_that_was_kept_is_a_place_to_branch_from(ids: list[int], one: int, other: int) -> None:
    mixture = Mixture(THREE, [0.5, 0.3, 0.2])
    state = mixture.start()
    for token in (EOS_ID, *ids):
        _, state = mixture.advance(state, token)
    first, after = mixture.advance(state, one)
    beyond, _ = mixture.advance(after, other)
    kept = first.copy()
    mixture.advance(state, other)
    again, after_again = mixture.advance(state, one)
    assert np.array_equal(first, kept)
    assert np.array_equal(first, again)
    assert np.array_equal(beyond, mixture.advance(after_again, other)[0])


def test_its_vector_and_words_are_those_of_the_first_model() -> None:
    ids = text(15)
    lstm_first, counts_first = Mixture([LSTM, OTHER_LSTM], [0.1, 0.9]), Mixture([COUNTS, LSTM], [0.5, 0.5])
    state, alone = lstm_first.start(), LSTM.start()
    for token in (EOS_ID, *ids.tolist()):
        (_, state), (_, alone) = lstm_first.advance(state, token), LSTM.advance(alone, token)
        assert np.array_equal(hidden_of(lstm_first, state), LSTM.hidden(alone))
    assert np.array_equal(lstm_first.trace(ids).hidden, LSTM.trace(ids).hidden)
    _, state = counts_first.advance(counts_first.start(), EOS_ID)
    assert hidden_of(counts_first, state).size == 0
    assert lstm_first.vocabulary == VOCABULARY


def test_words_all_models_find_almost_impossible_keep_their_scores() -> None:
    first, second = Fixed([-5000.0] * SIZE), Fixed([-5001.0] * SIZE)
    mixture = Mixture([first, second], [0.25, 0.75])
    expected = -5000 + math.log(0.25 + 0.75 * math.exp(-1))
    log_probs, _ = mixture.advance(mixture.start(), EOS_ID)
    assert log_probs == pytest.approx([expected] * SIZE, rel=1e-6)
    assert mixture.trace(text(4)).scores == pytest.approx([expected] * 4, rel=1e-6)


def test_what_the_models_say_is_not_changed_by_mixing_it() -> None:
    unigram = Unigram(text(100), VOCABULARY)
    before = unigram.advance(None, 3)[0].copy()
    distributions(Mixture([unigram, COUNTS], [0.5, 0.5]), text(10))
    assert np.array_equal(unigram.advance(None, 3)[0], before)


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ([0.5, 0.6], "0.5,0.6 sum to 1.1"),
        ([0.2, 0.3], "0.2,0.3 sum to 0.5"),
        ([0.0, 0.0], "0,0 sum to 0"),
        ([-0.5, 1.5], "-0.5,1.5"),
        ([math.nan, 1.0], "nan,1"),
        ([1.0, math.nan], "1,nan"),
        ([math.inf, 0.0], "inf,0"),
        ([math.inf, -math.inf], "inf,-inf"),
        ([1.0], "1 weights for 2 models"),
        ([0.2, 0.3, 0.5], "3 weights for 2 models"),
        ([], "0 weights for 2 models"),
    ],
    ids=str,
)
def test_unusable_weights_are_named_in_one_line(weights: list[float], named: str) -> None:
    with pytest.raises(UnusableInput) as caught:
        Mixture([LSTM, COUNTS], weights)
    assert named in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("place", [1, 2])
def test_models_of_different_words_are_refused(place: int) -> None:
    swapped = Vocabulary((*VOCABULARY.words[:-2], VOCABULARY.words[-1], VOCABULARY.words[-2]))
    models: list[LanguageModel] = [LSTM, COUNTS, OTHER_LSTM]
    models[place] = Fixed([-math.log(SIZE)] * SIZE, swapped)
    with pytest.raises(UnusableInput, match="different vocabularies") as caught:
        Mixture(models, [0.5, 0.25, 0.25])
    assert str(caught.value).isprintable()


def test_weights_that_rounding_keeps_from_one_are_taken() -> None:
    thirds = Mixture(THREE, [0.3333333, 0.3333333, 0.3333333])
    assert distributions(thirds, text(5)).sum(axis=1) == pytest.approx(1, abs=1e-5)


# --- choosing weights -----------------------------------------------------------------------------------------


def likelihood(scores: np.ndarray, weights: Sequence[float]) -> float:
    """Of a text, by plain loops."""
    return sum(
        math.log(sum(w * math.exp(score) for w, score in zip(weights, column, strict=True)))
        for column in scores.T.tolist()
    )


@pytest.mark.parametrize("seed", range(4))
def test_chosen_weights_are_the_best_of_all_that_were_tried(seed: int) -> None:
    scores = np.log(np.random.default_rng(seed).uniform(0.01, 1, (2, 40)) * [[1.0], [1 - 0.1 * seed]])
    chosen = choose_weights(scores)
    tried = {share: likelihood(scores, [share, 1 - share]) for share in (i / 500 for i in range(501))}
    best = max(tried, key=tried.__getitem__)
    assert sum(chosen) == pytest.approx(1)
    assert likelihood(scores, chosen) >= tried[best] - 1e-6
    assert chosen[0] == pytest.approx(best, abs=0.01)


def test_a_hand_worked_choice() -> None:
    # Three words of probabilities .8 and .2 and one of .2 and .8: 3 log(.2 + .6w) + log(.8 - .6w) is highest
    # where 3 (.8 - .6w) = .2 + .6w, that is at w = 2.2 / 2.4.
    scores = np.log([[0.8, 0.8, 0.8, 0.2], [0.2, 0.2, 0.2, 0.8]])
    assert choose_weights(scores) == pytest.approx((2.2 / 2.4, 0.2 / 2.4), abs=1e-4)


def test_models_that_each_know_their_own_words_get_the_shares_of_these() -> None:
    scores = np.array([[0.0, 0.0, 0.0, -np.inf], [-np.inf, -np.inf, -np.inf, 0.0]])
    assert choose_weights(scores) == pytest.approx((0.75, 0.25))


def test_a_model_worse_at_every_word_gets_nothing() -> None:
    better = np.random.default_rng(0).uniform(-3, -1, 30)
    assert choose_weights(np.stack([better - 1, better])) == pytest.approx((0, 1), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 30), st.floats(-2000, 0))
def test_at_the_choice_no_model_deserves_more(seed: int, models: int, time: int, offset: float) -> None:
    """The conditions of a maximum: d likelihood / d weight is at most the number of tokens."""
    scores = np.random.default_rng(seed).uniform(-4, 0, (models, time))
    weights = np.array(choose_weights(scores + offset, rounds=3000))  # an offset for all changes no ratio
    probs = np.exp(scores)
    deserved = (probs / (weights @ probs)).mean(axis=1)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert (deserved <= 1.01).all()
    assert weights @ deserved == pytest.approx(1)
