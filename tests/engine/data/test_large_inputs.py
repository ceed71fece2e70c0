"""Texts and vocabularies beyond the limits of one computation change no result, and what is skipped is reported."""

import math

import numpy as np
import pytest
import torch

from engine.analysis.evaluation import evaluate
from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID, WordTokenizer
from engine.events import Evaluated, Preparing, Started
from engine.models.base import forward_sequence, score_sequence
from engine.models.lstm import LSTMModel
from engine.models.ngram import Unigram
from engine.models.numpy_lstm import MAX_TABLE_SIZE
from tests.support.training import events_of, run_training


@pytest.mark.parametrize("punctuation", [False, True])
def test_scores_in_chunks_equal_those_of_token_by_token(punctuation):
    words = WordTokenizer(("<unk>", "<eos>", *(f"w{n}" for n in range(30))))
    config = ModelConfig(embedding_size=6, hidden_size=6, punctuation=punctuation)
    model = LSTMModel(config, len(words), torch.Generator().manual_seed(0))
    ids = np.random.default_rng(0).integers(0, len(words), 1100).astype(np.int32)
    numpy_model = model.to_decoder(words)
    state, token, one_by_one = numpy_model.start(), EOS_ID, []
    for target in ids.tolist():
        log_probs, state = numpy_model.advance(state, token)
        one_by_one.append(log_probs[target])
        token = target
    for scores in (
        score_sequence(model, ids),
        forward_sequence(model, ids).log_probs,
        score_sequence(numpy_model, ids),
        forward_sequence(numpy_model, ids).log_probs,
    ):
        assert scores == pytest.approx(one_by_one, abs=1e-5)


def test_a_vocabulary_too_large_for_a_table_of_input_gates_is_scored_the_same():
    words = WordTokenizer(("<unk>", "<eos>", *(f"w{n}" for n in range(18_000))))
    model = LSTMModel(ModelConfig(embedding_size=60, hidden_size=60), len(words), torch.Generator().manual_seed(0))
    ids = np.arange(0, 18_000, 600, dtype=np.int32)
    numpy_model = model.to_decoder(words)
    assert MAX_TABLE_SIZE < 18_000 * 4 * 60
    assert score_sequence(numpy_model, ids) == pytest.approx(score_sequence(model, ids), abs=1e-5)


def test_training_scores_only_max_eval_tokens_and_reports_skipped_5_grams(dataset, monkeypatch):
    monkeypatch.setattr("engine.models.ngram.MAX_KNESER_NEY_TOKENS", len(dataset.train) - 1)
    events = run_training(dataset, epochs=1, max_eval_tokens=30)
    (started,) = events_of(Started, events)
    assert math.isnan(started.kneser_ney_perplexity)
    (message,) = [event.message for event in events_of(Preparing, events) if "5-gram" in event.message]
    assert f"no 5-grams beyond {len(dataset.train) - 1:,} tokens" in message
    part = dataset.valid[:30]
    assert started.valid_tokens == 30 < len(dataset.valid)
    assert started.unigram_perplexity == evaluate(Unigram(dataset.train, dataset.tokenizer), part).perplexity
    for evaluated in events_of(Evaluated, events):
        assert evaluated.valid_perplexity == pytest.approx(evaluate(evaluated.model, part).perplexity, rel=1e-5)
