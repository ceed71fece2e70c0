"""What keeps a large text and a large vocabulary within bounds changes no figure, and what is left out is told."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from engine.analysis.memorization import TrainingIndex
from engine.analysis.perplexity import evaluate
from engine.config import ModelConfig
from engine.data.dataset import Dataset
from engine.data.vocabulary import EOS_ID, Vocabulary
from engine.errors import CorpusError
from engine.events import Evaluated, Preparing, Started
from engine.models.lstm import Network
from engine.models.ngram import Unigram
from tests.support.training import of, run

WORDS = Vocabulary(("<unk>", "<eos>", *(f"w{n}" for n in range(30))))


def network_of(pauses: bool) -> Network:
    config = ModelConfig(embedding_size=6, hidden_size=6, pauses=pauses)
    return Network(config, len(WORDS), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pauses", [False, True])
def test_scores_alone_are_those_with_hidden_vectors_in_chunks_of_any_size(
    pauses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, ids = network_of(pauses), np.random.default_rng(0).integers(0, len(WORDS), 50).astype(np.int32)
    decoder = network.decoder(WORDS)
    whole = network.trace(ids).scores
    assert network.score(ids).tolist() == whole.tolist()
    assert decoder.score(ids).tolist() == decoder.trace(ids).scores.tolist()
    assert decoder.score(ids) == pytest.approx(whole, abs=1e-5)
    state, token, one_by_one = decoder.start(), EOS_ID, []
    for target in ids.tolist():
        log_probs, state = decoder.advance(state, token)
        one_by_one.append(log_probs[target])
        token = target
    assert whole == pytest.approx(one_by_one, abs=1e-5)
    for most in (1, 300, 1000):  # numbers made at once: chunks of 1 word, 9, and so on
        monkeypatch.setattr("engine.models.lstm.SCORING_LOGITS", most)
        assert network.score(ids) == pytest.approx(whole, abs=1e-6)
    monkeypatch.setattr("engine.models.numpy_lstm.SCORING_CHUNK", 7)
    assert decoder.score(ids) == pytest.approx(whole, abs=1e-5)


def test_without_a_table_of_all_words_the_decoder_plays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = network_of(True), np.arange(len(WORDS), dtype=np.int32)
    with_table = network.decoder(WORDS)
    monkeypatch.setattr("engine.models.numpy_lstm.LARGEST_TABLE", 10)
    without = network.decoder(WORDS)
    assert without._table is None
    assert without.score(ids) == pytest.approx(with_table.score(ids), abs=1e-6)
    states = tuple((np.zeros((3, 6), np.float32), np.zeros((3, 6), np.float32)) for _ in without.start())
    together = [model.read(states, np.array([4, 5, 6]))[0][0] for model in (with_table, without)]  # side by side
    assert together[1] == pytest.approx(together[0], abs=1e-6)


def test_a_part_of_the_validation_split_is_scored_where_that_is_asked_for(dataset: Dataset) -> None:
    part = dataset.valid[:30]
    assert len(part) < len(dataset.valid)
    events = run(dataset, epochs=1, evaluate_tokens=30)
    (started,) = of(Started, events)
    assert started.valid_tokens == 30
    assert started.unigram_perplexity == evaluate(Unigram(dataset.train, dataset.vocabulary), part).perplexity
    for evaluated in of(Evaluated, events):
        assert evaluated.valid_perplexity == pytest.approx(evaluate(evaluated.model, part).perplexity, rel=1e-5)
    (all_of_it,) = of(Started, run(dataset, epochs=1))
    assert all_of_it.valid_tokens == len(dataset.valid)


def test_a_training_on_a_text_too_long_for_kneser_ney_says_that_it_is_left_out(
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(events: list[Any]) -> list[str]:
        return [event.what for event in of(Preparing, events) if "5-grams" in event.what]

    assert told(run(dataset, epochs=1)) == ["counting words and 5-grams, the lines to beat"]
    monkeypatch.setattr("engine.training.run.MOST_TOKENS", len(dataset.train) - 1)
    events = run(dataset, epochs=1)
    assert math.isnan(of(Started, events)[0].kneser_ney_perplexity)
    (said,) = told(events)
    assert f"no 5-grams, for the text has over {len(dataset.train) - 1:,} words" in said


def test_a_text_too_long_to_be_sorted_is_refused(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    words = sum(map(len, dataset.train_lines))
    monkeypatch.setattr("engine.analysis.memorization.MOST_WORDS", words)
    TrainingIndex.of(dataset)
    monkeypatch.setattr("engine.analysis.memorization.MOST_WORDS", words - 1)
    with pytest.raises(CorpusError, match=f"and these are {words:,}"):
        TrainingIndex.of(dataset)
