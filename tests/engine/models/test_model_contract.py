"""What every model promises: reading a text whole, in parts, in a batch or as a branch changes no prediction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID
from engine.models import base
from engine.models.combinations import CacheSettings, Mixture, NeuralCache
from engine.models.dialogue import DialogueModel
from engine.models.ngram import Unigram
from engine.models.numpy_lstm import NumpyLSTM
from engine.storage.tensor_file import quantize_rows
from tests.support.models import TokenByTokenModel, random_ids, random_lstm
from tests.support.networks import random_transformer
from tests.support.random_dialogues import CAST, KNESER_NEY, LSTM, TOKENIZER, TURN_MODEL


def assert_branches_are_independent(model, state, token, other_token):
    """Assert that a kept state and its results do not change when the model reads on from it, twice."""
    first, state_after = model.advance(state, token)
    second, _ = model.advance(state_after, other_token)
    kept = first.copy()
    model.advance(state, other_token)
    again, state_after_again = model.advance(state, token)
    assert np.array_equal(first, kept)
    assert np.array_equal(first, again)
    assert np.array_equal(second, model.advance(state_after_again, other_token)[0])


SIZE = len(TOKENIZER)
TRANSFORMER = random_transformer(TOKENIZER, context_size=12)
MOGRIFIER = ModelConfig(embedding_size=6, hidden_size=8, num_layers=2, mogrifier_rounds=3, mogrifier_rank=2)
INT8 = {name: quantize_rows(value) if value.ndim == 2 else value for name, value in LSTM.weights.items()}
MIXTURE = Mixture([LSTM, KNESER_NEY, TRANSFORMER], [0.5, 0.3, 0.2])
MODELS = {
    "unigram": Unigram(random_ids(100, SIZE), TOKENIZER),
    "Kneser-Ney": KNESER_NEY,
    "LSTM": LSTM,
    "LSTM in 8 bits": NumpyLSTM(LSTM.config, TOKENIZER, INT8),
    "mogrifier": random_lstm(MOGRIFIER, TOKENIZER),
    "punctuation": random_lstm(ModelConfig(embedding_size=6, hidden_size=6, punctuation=True), TOKENIZER),
    "transformer": TRANSFORMER,
    "transformer with grouped heads": random_transformer(TOKENIZER, "grouped heads", context_size=12),
    "mixture": MIXTURE,
    "cache": NeuralCache(LSTM, CacheSettings(window=5, theta=1.5, weight=0.3)),
    "cache of a mixture": NeuralCache(MIXTURE, CacheSettings(window=4)),
    "cache of Kneser-Ney": NeuralCache(KNESER_NEY, CacheSettings(window=5, weight=0.3)),
    "dialogue": DialogueModel(LSTM, CAST, TURN_MODEL),
}
EACH_MODEL = pytest.mark.parametrize("model", list(MODELS.values()), ids=list(MODELS))
TOKENS = st.integers(0, SIZE - 1)
TEXTS = st.lists(TOKENS, min_size=1, max_size=20)


def read(model, ids):
    """Return the log-probabilities after `<eos>` and after each token, and the states there, token by token."""
    state, rows, states = model.start(), [], []
    for token in (EOS_ID, *ids):
        log_probs, state = model.advance(state, token)
        rows.append(log_probs.copy())
        states.append(state)
    return np.stack(rows), states


@EACH_MODEL
@settings(max_examples=8, deadline=None)
@given(ids=TEXTS)
def test_a_whole_text_is_scored_as_token_by_token(model, ids):
    rows, states = read(model, ids)
    assert np.exp(rows.astype(np.float64)).sum(axis=1) == pytest.approx(1, abs=1e-5)
    array = np.array(ids, np.int32)
    expected = rows[np.arange(len(ids)), ids]
    tolerance = 0.02 if getattr(model, "has_int8_weights", False) else 1e-4
    assert base.score_sequence(model, array) == pytest.approx(expected, abs=tolerance)
    output = base.forward_sequence(model, array)
    assert output.log_probs == pytest.approx(expected, abs=tolerance)
    if isinstance(model, base.HiddenVectorModel):
        vectors = np.stack([model.hidden_vector(state) for state in states[:-1]])
        assert output.hidden_states == pytest.approx(vectors, abs=tolerance)
    assert base.score_sequence(TokenByTokenModel(model), array) == pytest.approx(expected, abs=1e-9)


@EACH_MODEL
@settings(max_examples=8, deadline=None)
@given(before=TEXTS, ids=TEXTS, last=TOKENS)
def test_several_tokens_are_read_as_one_by_one(model, before, ids, last):
    rows, states = read(model, [*before, *ids, last])
    log_probs, state = base.advance_tokens(model, states[len(before)], ids)
    assert log_probs == pytest.approx(rows[-2], abs=1e-4)
    assert model.advance(state, last)[0] == pytest.approx(rows[-1], abs=1e-4)
    several, state = base.predict_tokens(model, states[len(before)], ids)
    assert several == pytest.approx(rows[len(before) + 1 : -1], abs=1e-4)
    assert model.advance(state, last)[0] == pytest.approx(rows[-1], abs=1e-4)


@EACH_MODEL
@settings(max_examples=6, deadline=None)
@given(texts=st.lists(st.tuples(TEXTS, TOKENS, TOKENS), min_size=1, max_size=4))
def test_texts_advance_together_as_alone(model, texts):
    rows, states = zip(*(read(model, [*ids, *following]) for ids, *following in texts), strict=True)
    batch = [kept[-3] for kept in states]
    for step in (0, 1):
        outputs = base.advance_batch(model, batch, [following[step] for _, *following in texts])
        for (log_probs, _), expected in zip(outputs, rows, strict=True):
            tolerance = 0 if getattr(model, "has_int8_weights", False) else 2e-4
            assert log_probs == pytest.approx(expected[step - 2], abs=tolerance, rel=0)
        batch = [state for _, state in outputs]


@EACH_MODEL
@settings(max_examples=6, deadline=None)
@given(ids=TEXTS, token=TOKENS, other_token=TOKENS)
def test_a_kept_state_is_a_branch_point(model, ids, token, other_token):
    rows, states = read(model, ids)
    for state in states[::3]:
        assert_branches_are_independent(model, state, token, other_token)
    again, _ = model.advance(states[-2], ids[-1])
    assert again == pytest.approx(rows[-1], abs=1e-5)
