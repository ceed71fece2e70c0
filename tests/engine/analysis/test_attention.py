"""Attention rollout and logit lens against their definitions, and the Transformer inside other models."""

import numpy as np
import pytest

from engine.analysis.attention import attention_rollout, attention_rollouts, logit_lens
from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from tests.support.models import make_tokenizer, random_ids
from tests.support.numpy_transformer import random_transformer

VOCABULARY = make_tokenizer(23)
TRANSFORMER = random_transformer(VOCABULARY, num_layers=3, context_size=16)


@pytest.mark.parametrize("position", [0, 1, 6, 9])
def test_rollout_multiplies_the_layers_with_half_of_the_identity(position):
    weights = TRANSFORMER.record_attention(random_ids(9, len(VOCABULARY))).weights
    expected = np.eye(10)
    for layer in weights.astype(np.float64):
        mixed = np.mean(layer, axis=0) + np.eye(10)
        expected = (mixed / mixed.sum(axis=1, keepdims=True)) @ expected
    rollout = attention_rollout(weights, position)
    assert rollout == pytest.approx(expected[position], abs=1e-6)
    assert rollout.sum() == pytest.approx(1, abs=1e-5)
    assert not rollout[position + 1 :].any()
    assert attention_rollouts(weights) == pytest.approx(expected, abs=1e-6)


def test_the_last_layer_predicts_what_the_model_predicts():
    ids = random_ids(12, len(VOCABULARY))
    record = TRANSFORMER.record_attention(ids)
    log_probs, state = TRANSFORMER.advance(TRANSFORMER.start(), EOS_ID)
    for position, target in enumerate(ids.tolist()):
        predictions = logit_lens(TRANSFORMER, record, position, target, top_n=5)
        assert [prediction.layer for prediction in predictions] == [0, 1, 2, 3]
        last, probs = predictions[-1], np.exp(log_probs.astype(np.float64))
        order = np.argsort(-probs)[:5]
        assert [text for text, _ in last.top_tokens] == [VOCABULARY.tokens[id] for id in order]
        assert [prob for _, prob in last.top_tokens] == pytest.approx(probs[order], abs=1e-4)
        assert last.target_prob == pytest.approx(probs[target], abs=1e-4)
        assert last.target_rank == 1 + np.count_nonzero(probs > probs[target])
        assert last.entropy_bits == pytest.approx(-(probs * np.log2(probs)).sum(), abs=1e-3)
        log_probs, state = TRANSFORMER.advance(state, target)


def test_positions_and_tokens_that_do_not_exist_are_refused():
    record = TRANSFORMER.record_attention(random_ids(4, len(VOCABULARY)))
    for position in (-1, 5):
        with pytest.raises(InvalidInputError, match=f"position {position} .*0 to 4"):
            attention_rollout(record.weights, position)
        with pytest.raises(InvalidInputError, match=f"position {position} .*0 to 4"):
            logit_lens(TRANSFORMER, record, position, 2, 3)
    with pytest.raises(InvalidInputError, match=r"token 23 .*0 to 22"):
        logit_lens(TRANSFORMER, record, 0, 23, 3)
