"""Perplexity: what is fed, what is counted, and the figures by hand."""

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from engine.analysis.perplexity import BLOCK, confidence_interval, evaluate, perplexity, token_log_probs
from engine.config import ModelConfig
from engine.data.vocabulary import EOS_ID, UNK_ID, Ids, Vocabulary
from engine.errors import CorpusError
from engine.models.base import LogProbs, Trace
from engine.models.lstm import Network
from engine.models.ngram import KneserNey, Unigram

VOCABULARY = Vocabulary(("<unk>", "<eos>", "a", "b"))


class Double:
    """A model of a given function from what was read to probabilities, that notes all it is fed."""

    def __init__(self, probs: Callable[[tuple[int, ...]], list[float]]) -> None:
        self.vocabulary = VOCABULARY
        self.probs = probs
        self.fed: list[tuple[tuple[int, ...], int]] = []

    def start(self) -> tuple[int, ...]:
        return ()

    def advance(self, state: tuple[int, ...], token: int) -> tuple[LogProbs, tuple[int, ...]]:
        self.fed.append((state, token))
        with np.errstate(divide="ignore"):
            return np.log(np.array(self.probs((*state, token)), dtype=np.float32)), (*state, token)


class Scorer:
    """A model with nothing but the fast way."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def trace(self, ids: Ids) -> Trace:
        return Trace(np.array(self.scores[: len(ids)]), np.empty((len(ids), 0), np.float32))


def ids_of(*tokens: int) -> Ids:
    return np.array(tokens, dtype=np.int32)


def test_by_hand() -> None:
    table = {
        (1,): [0.1, 0.2, 0.5, 0.2],
        (1, 2): [0.25, 0.25, 0.25, 0.25],
        (1, 2, 3): [0.5, 0.125, 0.125, 0.25],
    }
    model = Double(lambda read: table.get(read, [0.25] * 4))
    found = evaluate(model, ids_of(2, 3, 1))
    assert token_log_probs(model, ids_of(2, 3, 1)) == pytest.approx(np.log([0.5, 0.25, 0.125]), rel=1e-6)
    assert found.tokens == 3
    assert found.perplexity == pytest.approx(4)  # (1/2 * 1/4 * 1/8) ** (-1/3)
    assert found.bits_per_token == pytest.approx(2)
    assert found.unk_rate == 0


def test_every_token_once_and_the_state_carried_from_first_to_last() -> None:
    model = Double(lambda read: [0.25] * 4)
    text = [2, 3, 0, 1, 2, 2]
    evaluate(model, ids_of(*text))
    read = [EOS_ID, *text]
    expected = [(tuple(read[:i]), token) for i, token in enumerate(read)]
    assert model.fed[: len(text)] == expected[: len(text)]  # the last word needs not be read, only scored
    assert model.fed == expected[: len(model.fed)]


@pytest.mark.parametrize("length", [1, 2, 49, 50, 51, 101])
def test_no_remainder_is_dropped(length: int) -> None:
    """A uniform model has the perplexity of its vocabulary at any length, and the last token always counts."""
    assert evaluate(Double(lambda read: [0.25] * 4), ids_of(*[2] * length)).perplexity == pytest.approx(4)
    uneven = evaluate(Double(lambda read: [0.1, 0.1, 0.5, 0.3]), ids_of(*[2] * (length - 1), 0))
    expected = math.exp(-((length - 1) * math.log(0.5) + math.log(0.1)) / length)
    assert uneven.perplexity == pytest.approx(expected, rel=1e-5)
    assert uneven.tokens == length


def test_unk_counts_like_any_word_and_its_share_is_told() -> None:
    found = evaluate(Double(lambda read: [0.7, 0.1, 0.1, 0.1]), ids_of(UNK_ID, UNK_ID, 2, EOS_ID))
    assert found.unk_rate == 0.5
    assert found.perplexity == pytest.approx(math.exp(-(2 * math.log(0.7) + 2 * math.log(0.1)) / 4), rel=1e-6)


def test_bits_and_perplexity_say_the_same() -> None:
    found = evaluate(Scorer([-1.0, -3.0]), ids_of(2, 3))
    assert found.perplexity == pytest.approx(math.exp(2))
    assert 2**found.bits_per_token == pytest.approx(found.perplexity)


@pytest.mark.parametrize("model", [Double(lambda read: [0.25] * 4), Scorer([])])
def test_nothing_to_score_is_an_error_never_a_perplexity(model: Double | Scorer) -> None:
    with pytest.raises(CorpusError) as caught:
        evaluate(model, ids_of())
    assert str(caught.value) == "there is no token to score, so there is no perplexity; give a longer text"


def test_an_impossible_word_makes_it_infinite() -> None:
    assert evaluate(Double(lambda read: [0.5, 0.5, 0, 0]), ids_of(0, 2)).perplexity == math.inf


def test_a_very_bad_model_is_infinite_not_an_overflow() -> None:
    assert evaluate(Scorer([-1e5, -1e5]), ids_of(2, 3)).perplexity == math.inf


def test_it_is_infinite_only_where_a_float_holds_no_more() -> None:
    """No number, as of a model whose weights are none, is as bad as it can be."""
    for exponent in (0.0, 699.5, 700.0, 709.7):
        assert perplexity(exponent) == math.exp(exponent)
    assert perplexity(math.log(sys.float_info.max)) == pytest.approx(sys.float_info.max)
    assert [perplexity(exponent) for exponent in (709.79, 710.0, 1e6, math.inf, math.nan)] == [math.inf] * 5


def test_the_score_of_a_network_is_its_word_by_word_path() -> None:
    """The same perplexity whichever way: the network's own, the decoder's score, the decoder word by word."""
    torch.set_num_threads(1)
    network = Network(ModelConfig(embedding_size=8, hidden_size=8), len(VOCABULARY), torch.Generator().manual_seed(0))
    decoder = network.decoder(VOCABULARY)

    class WordByWord:
        vocabulary = VOCABULARY
        start = staticmethod(decoder.start)
        advance = staticmethod(decoder.advance)

    ids = np.random.default_rng(0).integers(0, 4, 700).astype(np.int32)
    slow = token_log_probs(WordByWord(), ids)
    assert token_log_probs(decoder, ids) == pytest.approx(slow, abs=1e-4)
    assert token_log_probs(network, ids) == pytest.approx(slow, abs=1e-4)
    assert evaluate(network, ids).perplexity == pytest.approx(evaluate(WordByWord(), ids).perplexity, rel=1e-5)


def test_evaluating_twice_gives_the_same() -> None:
    train = ids_of(2, 3, 2, 2, 3, 1, 2, 3, 0, 1)
    for model in (Unigram(train, VOCABULARY), KneserNey(train, VOCABULARY, 3)):
        assert evaluate(model, train) == evaluate(model, train)


class TestConfidenceInterval:
    def test_it_holds_the_perplexity_and_is_the_same_every_time(self) -> None:
        scores = np.random.default_rng(0).normal(-4, 2, 2000)
        low, high = confidence_interval(scores)
        assert low < perplexity(-scores.mean()) < high
        assert confidence_interval(scores) == (low, high) == confidence_interval(scores, resamples=2000, seed=0)

    @pytest.mark.parametrize("length", [7, BLOCK, 50])
    def test_it_is_a_bootstrap_with_plain_slices(self, length: int) -> None:
        """Texts of as many blocks as it takes, from any token on, and on from the beginning behind the last one."""
        scores, size = np.random.default_rng(5).normal(-4, 2, length).tolist(), min(BLOCK, length)
        drawn = np.random.default_rng(7).integers(0, length, (41, math.ceil(length / BLOCK))).tolist()
        blocks = [-math.fsum((scores + scores)[start : start + size]) / size for start in range(length)]
        means = sorted(math.fsum(blocks[start] for start in text) / len(text) for text in drawn)
        expected = math.exp(means[1]), math.exp(means[39])  # of 41 all but a fortieth on each side
        assert confidence_interval(np.array(scores), 41, 7) == pytest.approx(expected)

    def test_a_text_that_is_alike_throughout_leaves_no_doubt(self) -> None:
        assert confidence_interval(np.full(100, -1.0)) == pytest.approx((math.e, math.e))

    def test_of_independent_tokens_it_is_as_wide_as_the_normal_distribution_says(self) -> None:
        scores = np.random.default_rng(1).normal(-4, 2, 20_000)
        low, high = confidence_interval(scores)
        error = 1.96 * scores.std() / math.sqrt(len(scores))
        assert math.log(high) - math.log(low) == pytest.approx(2 * error, rel=0.1)

    def test_neighbours_that_are_alike_make_it_wider(self) -> None:
        """Each score stands BLOCK times in a row: as many words, a BLOCK-th of the evidence."""
        scores = np.random.default_rng(2).normal(-4, 2, 1000)
        width = np.diff(np.log(confidence_interval(np.repeat(scores, BLOCK))))[0]
        as_one = np.diff(np.log(confidence_interval(np.random.default_rng(3).permutation(np.repeat(scores, BLOCK)))))[0]
        assert width > 3 * as_one

    def test_it_covers_the_truth_about_as_often_as_it_says(self) -> None:
        random = np.random.default_rng(4)
        covered = 0
        for _ in range(200):
            low, high = confidence_interval(random.normal(-3, 1.5, 400), resamples=300)
            covered += low <= math.exp(3) <= high
        assert 175 <= covered <= 198

    @pytest.mark.parametrize("length", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1])
    def test_short_texts(self, length: int) -> None:
        low, high = confidence_interval(np.linspace(-2, -1, length))
        assert math.e - 1e-9 <= low <= high <= math.e**2 + 1e-9
