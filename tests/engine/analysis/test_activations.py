"""Activations, attention and the logit lens against plain computations, and the models inside other models."""

import numpy as np
import pytest

from engine.analysis import activations
from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID
from engine.models.combinations import CacheSettings, Mixture, NeuralCache
from engine.models.dialogue import DialogueModel
from engine.models.ngram import KneserNey
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from tests.support.models import make_tokenizer, random_ids, random_lstm
from tests.support.networks import random_transformer
from tests.support.open_models import bpe_tokenizer
from tests.support.references import plain_cells

SIZE = 23
VOCABULARY = make_tokenizer(SIZE)
CONFIGS = {
    "one layer, tied": ModelConfig(embedding_size=7, hidden_size=7),
    "two layers of 10 and 6": ModelConfig(embedding_size=6, hidden_size=10, num_layers=2),
    "mogrifier": ModelConfig(embedding_size=6, hidden_size=10, num_layers=2, mogrifier_rounds=5, mogrifier_rank=3),
}


def make_lstm(name, seed=0):
    """Return a model with weights large enough for the gates to leave their linear range."""
    return random_lstm(CONFIGS[name], VOCABULARY, seed, scale=0.8)


def plain_activation(lstm, ids, layer, name):
    """Return the values `[time, hidden]` after each token of a text."""
    return np.array([row[layer][name] for row in plain_cells(lstm, [EOS_ID, *ids])[1:]])


@pytest.mark.parametrize("name", CONFIGS)
def test_activations_match_a_plain_cell(name):
    lstm, ids = make_lstm(name), random_ids(30, SIZE)
    layers = activations.record_activations(lstm, ids)
    assert len(layers) == lstm.config.num_layers
    for index, layer in enumerate(layers):
        for each in activations.ACTIVATION_NAMES:
            assert layer.get(each) == pytest.approx(plain_activation(lstm, ids, index, each), abs=2e-5), each
        assert len(layer.mogrifier) == lstm.config.mogrifier_rounds
        for index_of_round, factors in enumerate(layer.mogrifier):
            expected = plain_activation(lstm, ids, index, str(index_of_round))
            assert factors == pytest.approx(expected, abs=2e-5), index_of_round


def test_steps_of_the_bundled_model_match_its_dequantized_weights():
    """The products are computed in 8 bits, so they differ a little from those of the dequantized weights."""
    lstm = load_model(assets_dir() / "class" / "lstm").model
    tokens = [EOS_ID, *lstm.tokenizer.encode("they are taking the hobbits to").tolist()]
    for step, rows in zip(activations.read_steps(lstm, tokens), plain_cells(lstm, tokens), strict=True):
        for unit in range(0, 200, 7):
            values = step.unit(0, unit)
            for name in activations.UnitStep._fields:
                assert getattr(values, name) == pytest.approx(rows[0][name][unit], abs=0.05), name
            cell = values.forget * values.cell_before + values.input * values.candidate
            assert values.cell == pytest.approx(cell, abs=1e-5)


def test_known_steps_are_reused_up_to_the_first_other_token():
    lstm = make_lstm("two layers of 10 and 6")
    known = activations.read_steps(lstm, [1, 4, 5, 6])
    steps = activations.read_steps(lstm, [1, 4, 7, 6], known)
    assert steps[:2] == known[:2]
    assert [step.token for step in steps] == [1, 4, 7, 6]
    for layer, row in enumerate(plain_cells(lstm, [1, 4, 7, 6])[-1]):
        assert steps[-1].unit(layer, 3).cell == pytest.approx(row["cell"][3], abs=1e-5)
    assert [step.token for step in activations.read_steps(lstm, [1], known)] == [1]


LSTM, OTHER = make_lstm("one layer, tied"), make_lstm("two layers of 10 and 6", 1)
TRANSFORMER = random_transformer(VOCABULARY, num_layers=3, context_size=16)
SPEAKING = random_transformer(bpe_tokenizer())
KNESER_NEY = KneserNey(random_ids(200, SIZE), VOCABULARY, order=3)


@pytest.mark.parametrize(
    ("model", "lstm", "transformer"),
    [
        (Mixture([OTHER, LSTM], [0.5, 0.5]), OTHER, None),
        (NeuralCache(Mixture([KNESER_NEY, LSTM], [0.6, 0.4]), CacheSettings()), LSTM, None),
        (Mixture([LSTM, NeuralCache(TRANSFORMER, CacheSettings())], [0.5, 0.5]), LSTM, TRANSFORMER),
        (DialogueModel(SPEAKING, ["SAM", "FRODO"]), None, SPEAKING),
        (NeuralCache(Mixture([KNESER_NEY, KNESER_NEY], [0.5, 0.5]), CacheSettings()), None, None),
    ],
)
def test_the_lstm_and_the_transformer_are_found_inside_other_models(model, lstm, transformer):
    assert (activations.find_lstm(model), activations.find_attention_model(model)) == (lstm, transformer)


def test_rollout_multiplies_the_layers_with_half_of_the_identity():
    weights = TRANSFORMER.record_attention(random_ids(9, len(VOCABULARY))).weights
    expected = np.eye(10)
    for layer in weights.astype(np.float64):
        mixed = np.mean(layer, axis=0) + np.eye(10)
        expected = (mixed / mixed.sum(axis=1, keepdims=True)) @ expected
    rollouts = activations.attention_rollouts(weights)
    assert rollouts == pytest.approx(expected, abs=1e-6)
    assert not np.triu(rollouts, 1).any()


def test_the_last_layer_predicts_what_the_model_predicts():
    ids = random_ids(12, len(VOCABULARY))
    record = TRANSFORMER.record_attention(ids)
    log_probs, state = TRANSFORMER.advance(TRANSFORMER.start(), EOS_ID)
    for position, target in enumerate(ids.tolist()):
        predictions = activations.logit_lens(TRANSFORMER, record, position, target, top_n=5)
        assert [prediction.layer for prediction in predictions] == [0, 1, 2, 3]
        last, probs = predictions[-1], np.exp(log_probs.astype(np.float64))
        order = np.argsort(-probs)[:5]
        assert [text for text, _ in last.top_tokens] == [VOCABULARY.tokens[id] for id in order]
        assert [prob for _, prob in last.top_tokens] == pytest.approx(probs[order], abs=1e-4)
        assert last.target_prob == pytest.approx(probs[target], abs=1e-4)
        assert last.target_rank == 1 + np.count_nonzero(probs > probs[target])
        assert last.entropy_bits == pytest.approx(-(probs * np.log2(probs)).sum(), abs=1e-3)
        log_probs, state = TRANSFORMER.advance(state, target)
