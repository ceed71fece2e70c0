"""Perplexity: the tokens a model reads and is scored on, and hand calculations."""

import math
import sys

import numpy as np
import pytest
import torch

from engine.analysis.evaluation import evaluate, perplexity, summarize_log_probs
from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID, UNK_ID, WordTokenizer
from engine.errors import CorpusError
from engine.models.base import score_sequence
from engine.models.lstm import LSTMModel
from tests.support.models import make_tokenizer, random_ids

VOCABULARY = WordTokenizer(("<unk>", "<eos>", "a", "b"))


class FunctionModel:
    """A model that computes its distribution with a function of all tokens read, and records its inputs."""

    def __init__(self, probs):
        self.tokenizer = VOCABULARY
        self.probs = probs
        self.inputs = []

    def start(self):
        return ()

    def advance(self, state, token):
        self.inputs.append((state, token))
        with np.errstate(divide="ignore"):
            return np.log(np.array(self.probs((*state, token)), dtype=np.float32)), (*state, token)


def to_ids(*tokens):
    return np.array(tokens, dtype=np.int32)


def test_evaluation_matches_a_hand_calculation():
    table = {(1,): [0.1, 0.2, 0.5, 0.2], (1, 2): [0.25, 0.25, 0.25, 0.25], (1, 2, 3): [0.5, 0.125, 0.125, 0.25]}
    model = FunctionModel(lambda read: table.get(read, [0.25] * 4))
    evaluation = evaluate(model, to_ids(2, 3, 1))
    assert score_sequence(model, to_ids(2, 3, 1)) == pytest.approx(np.log([0.5, 0.25, 0.125]), rel=1e-6)
    assert evaluation.tokens == 3
    assert evaluation.perplexity == pytest.approx(4)  # (1/2 * 1/4 * 1/8) ** (-1/3)
    assert evaluation.bits_per_token == pytest.approx(2)
    assert evaluation.unk_rate == 0


def test_every_token_is_read_once_with_the_state_carried():
    model = FunctionModel(lambda read: [0.25] * 4)
    tokens = [2, 3, 0, 1, 2, 2]
    evaluate(model, to_ids(*tokens))
    inputs = [EOS_ID, *tokens]
    expected = [(tuple(inputs[:i]), token) for i, token in enumerate(inputs)]
    assert model.inputs[: len(tokens)] == expected[: len(tokens)]  # the last token is scored, but need not be read
    assert model.inputs == expected[: len(model.inputs)]


def test_unk_counts_like_any_token_and_its_rate_is_reported():
    evaluation = evaluate(FunctionModel(lambda read: [0.7, 0.1, 0.1, 0.1]), to_ids(UNK_ID, UNK_ID, 2, EOS_ID))
    assert evaluation.unk_rate == 0.5
    assert summarize_log_probs(np.log([0.5, 0.5]), to_ids(UNK_ID, 2), unk_id=None).unk_rate == 0
    assert evaluation.perplexity == pytest.approx(math.exp(-(2 * math.log(0.7) + 2 * math.log(0.1)) / 4), rel=1e-6)


def test_an_empty_text_is_an_error():
    with pytest.raises(CorpusError) as caught:
        evaluate(FunctionModel(lambda read: [0.25] * 4), to_ids())
    assert str(caught.value) == "the text has no token to score; use a longer text"


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("length", [1, 1023, 1024, 1025])
@torch.no_grad()
def test_perplexity_matches_a_loop_over_every_token(length):
    """Of the PyTorch LSTM, which scores a text in chunks, and of the numpy LSTM."""
    config = ModelConfig(embedding_size=8, hidden_size=8, num_layers=2)
    single = LSTMModel(config, 40, torch.Generator().manual_seed(0))
    decoder, model = single.to_decoder(make_tokenizer(40)), single.double()
    ids, total, previous, states = random_ids(length, 40, seed=1), 0.0, EOS_ID, model.initial_state(1)
    for token in ids.tolist():
        logits, states, _, _ = model(torch.tensor([[previous]]), states)
        total += math.log(math.fsum(math.exp(logit) for logit in logits[0, 0].tolist())) - float(logits[0, 0, token])
        previous = token
    assert evaluate(model, ids).perplexity == pytest.approx(math.exp(total / length), rel=1e-9)
    assert evaluate(decoder, ids).perplexity == pytest.approx(math.exp(total / length), rel=1e-5)


def test_perplexity_is_infinite_only_if_a_float_overflows():
    """NaN, the loss of a model with NaN weights, also gives infinity."""
    for exponent in (0.0, 699.5, 700.0, 709.7):
        assert perplexity(exponent) == math.exp(exponent)
    assert perplexity(math.log(sys.float_info.max)) == pytest.approx(sys.float_info.max)
    assert evaluate(FunctionModel(lambda read: [0.5, 0.5, 0, 0]), to_ids(0, 2)).perplexity == math.inf
    assert [perplexity(exponent) for exponent in (709.79, 710.0, 1e6, math.inf, math.nan)] == [math.inf] * 5
