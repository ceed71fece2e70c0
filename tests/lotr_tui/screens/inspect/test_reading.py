"""Tests of the record of a text and of the names of its positions."""

import math

import numpy as np
import pytest

from engine.analysis.activations import attention_rollouts
from engine.analysis.tokenized_text import tokenize_with_offsets
from lotr_tui.screens.inspect.attention import (
    MAX_RECORD_BYTES,
    ROLLOUT,
    HeadId,
    max_recorded_tokens,
    read_attention,
)
from lotr_tui.screens.inspect.layers import keep_last_tokens
from tests.support.app import VOCABULARY
from tests.support.attention import RandomAttentionModel
from tests.support.open_models import bpe_tokenizer, character_tokenizer

TEXT = "Bilbo Baggins is a friend\nthe wizard was lit"
SCRIPT = "GANDALF: we walked all night\nFRODO: the lamp was lit"


def test_a_token_is_predicted_by_the_position_before_it():
    model = RandomAttentionModel(VOCABULARY)
    tokens = tokenize_with_offsets(TEXT, VOCABULARY, eos_per_line=True)
    reading = read_attention(model, VOCABULARY, tokens)
    weights = model.record_attention(tokens.ids).weights
    assert reading.names == ("start", "Bilbo", "Baggins", "is", "a", "friend", "¶", "the", "‹wizard›", "was", "lit")
    for token in range(len(tokens)):
        attended = reading.attended(HeadId(1, 2), token)
        np.testing.assert_array_equal(attended, weights[1, 2, token, : token + 1])
        assert attended.sum() == pytest.approx(1, abs=1e-5)
        mean = reading.attended(HeadId(1, None), token)
        np.testing.assert_allclose(mean, weights[1, :, token, : token + 1].mean(0), atol=1e-6)
        rollout = attention_rollouts(weights)[token]
        np.testing.assert_allclose(reading.attended(ROLLOUT, token), rollout[: token + 1], atol=1e-5)


def test_without_the_start_the_other_weights_sum_to_one():
    tokens = tokenize_with_offsets(TEXT, VOCABULARY, eos_per_line=True)
    reading = read_attention(RandomAttentionModel(VOCABULARY), VOCABULARY, tokens)
    all_weights = reading.attended(HeadId(0, 0), 5)
    others = reading.attended(HeadId(0, 0), 5, without_start=True)
    assert others[0] == 0
    assert others.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(others[1:] / others[1], all_weights[1:] / all_weights[1], rtol=1e-4)
    assert reading.attended(HeadId(0, 0), 0, without_start=True).tolist() == [0]


def test_names_of_speakers_are_positions_of_their_own():
    tokenizer = bpe_tokenizer()
    tokens = tokenize_with_offsets(SCRIPT, tokenizer, cast=("GANDALF", "FRODO"))
    reading = read_attention(RandomAttentionModel(tokenizer), tokenizer, tokens)
    written = "".join(reading.names[1:]).replace("·", " ")
    assert written == "Gandalf: we walked all night¶Frodo: the lamp was lit"
    first_of_frodo = next(start for start, speaker in tokens.speakers.items() if speaker == "FRODO")
    assert reading.names[reading.query_position(first_of_frodo)] == ":"
    assert reading.token_name(first_of_frodo) == "·the"


def test_the_record_is_bounded_by_memory_and_by_the_context():
    assert max_recorded_tokens(RandomAttentionModel(VOCABULARY, context_size=64)) == 63
    model = RandomAttentionModel(VOCABULARY, num_layers=30, num_heads=9, context_size=2048)
    assert 500 <= max_recorded_tokens(model) < math.isqrt(MAX_RECORD_BYTES // (4 * 30 * 9))


@pytest.mark.parametrize(
    "tokenizer", [VOCABULARY, bpe_tokenizer(), character_tokenizer()], ids=["words", "bpe", "characters"]
)
@pytest.mark.parametrize("max_tokens", [1, 5, 40])
def test_the_end_of_a_long_text_is_kept(tokenizer, max_tokens):
    def tokenize(text):
        return tokenize_with_offsets(text, tokenizer, eos_per_line=True)

    text = "the lamp was lit 😀 and we walked\n" * 20 + "all night"
    kept = keep_last_tokens(tokenize(text), max_tokens, tokenize)
    assert 1 <= len(kept) <= max_tokens
    assert text.endswith(kept.text)
    if max_tokens == 40:
        assert text[: -len(kept.text)][-1].isspace()
        assert len(kept) > 25
    short = tokenize("the lamp")
    assert keep_last_tokens(short, len(short), tokenize) is short
