"""Limits for large texts and vocabularies change no result, and skipped computations are reported."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from engine.analysis.memorization import TrainingIndex
from engine.analysis.perplexity import evaluate
from engine.config import ModelConfig
from engine.data.dataset import Dataset
from engine.data.tokenizers.base import EOS_ID
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import CorpusError
from engine.events import Evaluated, Preparing, Started
from engine.models.lstm import LSTMModel
from engine.models.ngram import Unigram
from engine.models.numpy_lstm import LSTMState
from tests.support.training import events_of, run_training

WORDS = WordTokenizer(("<unk>", "<eos>", *(f"w{n}" for n in range(30))))


def make_model(punctuation: bool) -> LSTMModel:
    config = ModelConfig(embedding_size=6, hidden_size=6, punctuation=punctuation)
    return LSTMModel(config, len(WORDS), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("punctuation", [False, True])
def test_scores_do_not_depend_on_the_chunk_size_or_on_hidden_vectors(
    punctuation: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = make_model(punctuation), np.random.default_rng(0).integers(0, len(WORDS), 50).astype(np.int32)
    numpy_model = model.to_decoder(WORDS)
    expected = model.forward_sequence(ids).log_probs
    assert model.score_sequence(ids).tolist() == expected.tolist()
    assert numpy_model.score_sequence(ids).tolist() == numpy_model.forward_sequence(ids).log_probs.tolist()
    assert numpy_model.score_sequence(ids) == pytest.approx(expected, abs=1e-5)
    state, token, one_by_one = numpy_model.start(), EOS_ID, []
    for target in ids.tolist():
        log_probs, state = numpy_model.advance(state, token)
        one_by_one.append(log_probs[target])
        token = target
    assert expected == pytest.approx(one_by_one, abs=1e-5)
    for max_logits in (1, 300, 1000):
        monkeypatch.setattr("engine.models.lstm.MAX_SCORING_LOGITS", max_logits)
        assert model.score_sequence(ids) == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr("engine.models.numpy_lstm.SCORING_CHUNK", 7)
    assert numpy_model.score_sequence(ids) == pytest.approx(expected, abs=1e-5)


def test_numpy_model_predicts_the_same_without_its_input_gate_table(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = make_model(punctuation=True), np.arange(len(WORDS), dtype=np.int32)
    with_table = model.to_decoder(WORDS)
    monkeypatch.setattr("engine.models.input_gates.MAX_TABLE_SIZE", 10)
    without = model.to_decoder(WORDS)
    assert without.input_gates is not None
    assert without.input_gates.table is None
    assert without.score_sequence(ids) == pytest.approx(with_table.score_sequence(ids), abs=1e-6)
    states = LSTMState(
        tuple((np.zeros((3, 6), np.float32), np.zeros((3, 6), np.float32)) for _ in without.start().layers)
    )
    outputs = [each.advance_state(states, np.array([4, 5, 6]))[0][0] for each in (with_table, without)]
    assert outputs[1] == pytest.approx(outputs[0], abs=1e-6)


def test_max_eval_tokens_limits_the_scored_validation_text(dataset: Dataset) -> None:
    part = dataset.valid[:30]
    assert len(part) < len(dataset.valid)
    events = run_training(dataset, epochs=1, max_eval_tokens=30)
    (started,) = events_of(Started, events)
    assert started.valid_tokens == 30
    assert started.unigram_perplexity == evaluate(Unigram(dataset.train, dataset.tokenizer), part).perplexity
    for evaluated in events_of(Evaluated, events):
        assert evaluated.valid_perplexity == pytest.approx(evaluate(evaluated.model, part).perplexity, rel=1e-5)
    (unlimited,) = events_of(Started, run_training(dataset, epochs=1))
    assert unlimited.valid_tokens == len(dataset.valid)


def test_training_reports_that_kneser_ney_is_skipped_for_a_long_text(
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def baseline_messages(events: list[Any]) -> list[str]:
        return [event.message for event in events_of(Preparing, events) if "5-gram" in event.message]

    assert baseline_messages(run_training(dataset, epochs=1)) == ["computing the unigram and 5-gram baselines"]
    monkeypatch.setattr("engine.training.run.MAX_KNESER_NEY_TOKENS", len(dataset.train) - 1)
    events = run_training(dataset, epochs=1)
    assert math.isnan(events_of(Started, events)[0].kneser_ney_perplexity)
    (message,) = baseline_messages(events)
    assert f"no 5-grams beyond {len(dataset.train) - 1:,} tokens" in message


def test_a_text_too_long_for_the_training_index_is_refused(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    num_tokens = sum(map(len, dataset.train_lines))
    monkeypatch.setattr("engine.analysis.memorization.MAX_INDEXED_WORDS", num_tokens)
    TrainingIndex.from_dataset(dataset)
    monkeypatch.setattr("engine.analysis.memorization.MAX_INDEXED_WORDS", num_tokens - 1)
    with pytest.raises(CorpusError, match=f"has {num_tokens:,} words"):
        TrainingIndex.from_dataset(dataset)
