"""Perplexity: the tokens a model reads and is scored on, hand calculations, and confidence intervals."""

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from engine.analysis import perplexity as scoring
from engine.analysis.perplexity import evaluate, perplexity, perplexity_confidence_interval, token_log_probs
from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID, UNK_ID, TokenIds
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import CorpusError
from engine.models.base import LogProbs, SequenceOutput
from engine.models.lstm import LSTMModel
from engine.models.ngram import KneserNey, Unigram
from tests.support.models import TokenByTokenModel

VOCABULARY = WordTokenizer(("<unk>", "<eos>", "a", "b"))


class FunctionModel:
    """A model that computes its distribution with a function of all tokens read, and records its inputs."""

    def __init__(self, probs: Callable[[tuple[int, ...]], list[float]]) -> None:
        self.tokenizer = VOCABULARY
        self.probs = probs
        self.inputs: list[tuple[tuple[int, ...], int]] = []

    def start(self) -> tuple[int, ...]:
        return ()

    def advance(self, state: tuple[int, ...], token: int) -> tuple[LogProbs, tuple[int, ...]]:
        self.inputs.append((state, token))
        with np.errstate(divide="ignore"):
            return np.log(np.array(self.probs((*state, token)), dtype=np.float32)), (*state, token)


class ScoresOnlyModel:
    """A model that can only score whole texts."""

    def __init__(self, log_probs: list[float]) -> None:
        self.log_probs = log_probs

    def forward_sequence(self, ids: TokenIds) -> SequenceOutput:
        return SequenceOutput(np.array(self.log_probs[: len(ids)]), np.empty((len(ids), 0), np.float32))


def to_ids(*tokens: int) -> TokenIds:
    return np.array(tokens, dtype=np.int32)


def test_evaluation_matches_a_hand_calculation() -> None:
    table = {
        (1,): [0.1, 0.2, 0.5, 0.2],
        (1, 2): [0.25, 0.25, 0.25, 0.25],
        (1, 2, 3): [0.5, 0.125, 0.125, 0.25],
    }
    model = FunctionModel(lambda read: table.get(read, [0.25] * 4))
    evaluation = evaluate(model, to_ids(2, 3, 1))
    assert token_log_probs(model, to_ids(2, 3, 1)) == pytest.approx(np.log([0.5, 0.25, 0.125]), rel=1e-6)
    assert evaluation.tokens == 3
    assert evaluation.perplexity == pytest.approx(4)  # (1/2 * 1/4 * 1/8) ** (-1/3)
    assert evaluation.bits_per_token == pytest.approx(2)
    assert evaluation.unk_rate == 0


def test_every_token_is_read_once_with_the_state_carried() -> None:
    model = FunctionModel(lambda read: [0.25] * 4)
    tokens = [2, 3, 0, 1, 2, 2]
    evaluate(model, to_ids(*tokens))
    inputs = [EOS_ID, *tokens]
    expected = [(tuple(inputs[:i]), token) for i, token in enumerate(inputs)]
    assert model.inputs[: len(tokens)] == expected[: len(tokens)]  # the last token is scored, but need not be read
    assert model.inputs == expected[: len(model.inputs)]


@pytest.mark.parametrize("length", [1, 2, 49, 50, 51, 101])
def test_no_remainder_is_dropped(length: int) -> None:
    """The perplexity of a uniform model is its vocabulary size at any length, and the last token counts."""
    assert evaluate(FunctionModel(lambda read: [0.25] * 4), to_ids(*[2] * length)).perplexity == pytest.approx(4)
    uneven = evaluate(FunctionModel(lambda read: [0.1, 0.1, 0.5, 0.3]), to_ids(*[2] * (length - 1), 0))
    expected = math.exp(-((length - 1) * math.log(0.5) + math.log(0.1)) / length)
    assert uneven.perplexity == pytest.approx(expected, rel=1e-5)
    assert uneven.tokens == length


def test_unk_counts_like_any_token_and_its_rate_is_reported() -> None:
    evaluation = evaluate(FunctionModel(lambda read: [0.7, 0.1, 0.1, 0.1]), to_ids(UNK_ID, UNK_ID, 2, EOS_ID))
    assert evaluation.unk_rate == 0.5
    assert evaluation.perplexity == pytest.approx(math.exp(-(2 * math.log(0.7) + 2 * math.log(0.1)) / 4), rel=1e-6)


def test_bits_per_token_are_the_binary_logarithm_of_perplexity() -> None:
    evaluation = evaluate(ScoresOnlyModel([-1.0, -3.0]), to_ids(2, 3))
    assert evaluation.perplexity == pytest.approx(math.exp(2))
    assert 2**evaluation.bits_per_token == pytest.approx(evaluation.perplexity)


@pytest.mark.parametrize("model", [FunctionModel(lambda read: [0.25] * 4), ScoresOnlyModel([])])
def test_an_empty_text_is_an_error(model: FunctionModel | ScoresOnlyModel) -> None:
    with pytest.raises(CorpusError) as caught:
        evaluate(model, to_ids())
    assert str(caught.value) == "the text has no token to score; use a longer text"


def test_an_impossible_token_gives_infinite_perplexity() -> None:
    assert evaluate(FunctionModel(lambda read: [0.5, 0.5, 0, 0]), to_ids(0, 2)).perplexity == math.inf


def test_a_very_bad_model_gives_infinite_perplexity_instead_of_overflow() -> None:
    assert evaluate(ScoresOnlyModel([-1e5, -1e5]), to_ids(2, 3)).perplexity == math.inf


def test_perplexity_is_infinite_only_if_a_float_overflows() -> None:
    """NaN, the loss of a model with NaN weights, also gives infinity."""
    for exponent in (0.0, 699.5, 700.0, 709.7):
        assert perplexity(exponent) == math.exp(exponent)
    assert perplexity(math.log(sys.float_info.max)) == pytest.approx(sys.float_info.max)
    assert [perplexity(exponent) for exponent in (709.79, 710.0, 1e6, math.inf, math.nan)] == [math.inf] * 5


@pytest.mark.usefixtures("one_thread")
def test_pytorch_numpy_and_token_by_token_scores_agree() -> None:
    torch_lstm = LSTMModel(
        ModelConfig(embedding_size=8, hidden_size=8), len(VOCABULARY), torch.Generator().manual_seed(0)
    )
    lstm = torch_lstm.to_decoder(VOCABULARY)
    token_by_token = TokenByTokenModel(lstm)
    ids = np.random.default_rng(0).integers(0, 4, 700).astype(np.int32)
    expected = token_log_probs(token_by_token, ids)
    assert token_log_probs(lstm, ids) == pytest.approx(expected, abs=1e-4)
    assert token_log_probs(torch_lstm, ids) == pytest.approx(expected, abs=1e-4)
    assert evaluate(torch_lstm, ids).perplexity == pytest.approx(evaluate(token_by_token, ids).perplexity, rel=1e-5)


def test_evaluation_is_deterministic() -> None:
    ids = to_ids(2, 3, 2, 2, 3, 1, 2, 3, 0, 1)
    for model in (Unigram(ids, VOCABULARY), KneserNey(ids, VOCABULARY, 3)):
        assert evaluate(model, ids) == evaluate(model, ids)


class TestConfidenceInterval:
    def test_the_interval_contains_the_perplexity_and_is_deterministic(self) -> None:
        log_probs = np.random.default_rng(0).normal(-4, 2, 2000)
        low, high = perplexity_confidence_interval(log_probs)
        assert low < perplexity(-log_probs.mean()) < high
        assert perplexity_confidence_interval(log_probs) == (low, high)
        assert perplexity_confidence_interval(log_probs, num_resamples=2000, seed=0) == (low, high)

    @pytest.mark.parametrize("length", [7, scoring.BOOTSTRAP_BLOCK_SIZE, 50])
    def test_the_interval_matches_a_circular_block_bootstrap_with_plain_slices(self, length: int) -> None:
        """Blocks start at any token and wrap around at the end of the text."""
        log_probs = np.random.default_rng(5).normal(-4, 2, length).tolist()
        size = min(scoring.BOOTSTRAP_BLOCK_SIZE, length)
        num_blocks = math.ceil(length / scoring.BOOTSTRAP_BLOCK_SIZE)
        resamples = np.random.default_rng(7).integers(0, length, (41, num_blocks)).tolist()
        blocks = [-math.fsum((log_probs + log_probs)[start : start + size]) / size for start in range(length)]
        means = sorted(math.fsum(blocks[start] for start in starts) / len(starts) for starts in resamples)
        expected = math.exp(means[1]), math.exp(means[39])  # 2.5 % of 41 values are outside on each side
        assert perplexity_confidence_interval(np.array(log_probs), 41, 7) == pytest.approx(expected)

    def test_equal_scores_give_an_interval_of_width_zero(self) -> None:
        assert perplexity_confidence_interval(np.full(100, -1.0)) == pytest.approx((math.e, math.e))

    def test_independent_tokens_give_the_width_of_a_normal_distribution(self) -> None:
        log_probs = np.random.default_rng(1).normal(-4, 2, 20_000)
        low, high = perplexity_confidence_interval(log_probs)
        half_width = 1.96 * log_probs.std() / math.sqrt(len(log_probs))
        assert math.log(high) - math.log(low) == pytest.approx(2 * half_width, rel=0.1)

    def test_correlated_neighbours_give_a_wider_interval(self) -> None:
        """Each score occurs scoring.BOOTSTRAP_BLOCK_SIZE times in a row, so there is that much less evidence."""
        log_probs = np.random.default_rng(2).normal(-4, 2, 1000)
        repeated = np.repeat(log_probs, scoring.BOOTSTRAP_BLOCK_SIZE)
        shuffled = np.random.default_rng(3).permutation(repeated)
        width = np.diff(np.log(perplexity_confidence_interval(repeated)))[0]
        shuffled_width = np.diff(np.log(perplexity_confidence_interval(shuffled)))[0]
        assert width > 3 * shuffled_width

    def test_the_interval_covers_the_true_perplexity_95_percent_of_the_time(self) -> None:
        rng = np.random.default_rng(4)
        num_covered = 0
        for _ in range(200):
            low, high = perplexity_confidence_interval(rng.normal(-3, 1.5, 400), num_resamples=300)
            num_covered += low <= math.exp(3) <= high
        assert 175 <= num_covered <= 198

    @pytest.mark.parametrize(
        "length",
        [1, 2, scoring.BOOTSTRAP_BLOCK_SIZE - 1, scoring.BOOTSTRAP_BLOCK_SIZE, scoring.BOOTSTRAP_BLOCK_SIZE + 1],
    )
    def test_short_texts_have_an_interval_within_their_scores(self, length: int) -> None:
        low, high = perplexity_confidence_interval(np.linspace(-2, -1, length))
        assert math.e - 1e-9 <= low <= high <= math.e**2 + 1e-9
