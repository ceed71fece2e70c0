"""Key-value caches of the Transformer: what branches share and copy, and branches against texts read from the start."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.key_value_cache import MIN_CAPACITY, CacheShape, extend_segments, segment_tokens
from tests.support.models import make_tokenizer
from tests.support.numpy_transformer import random_transformer

SHAPE = CacheShape(num_layers=2, num_heads=2, head_size=4, context_size=400)
VOCABULARY_SIZE = 11


def num_positions(segments):
    return sum(length for _, length in segments)


def append(segments, tokens):
    """Append tokens whose keys and values are the token and the position."""
    start = num_positions(segments)
    extended = extend_segments(segments, start, tokens, SHAPE)
    buffer, length = extended[-1]
    for offset, token in enumerate(tokens):
        row = length - len(tokens) + offset
        for layer, rows in enumerate(buffer.layers):
            rows[0, :, row], rows[1, :, row] = token + layer, start + offset
    return extended


def append_one_by_one(segments, tokens):
    for token in tokens:
        segments = append(segments, [token])
    return segments


def check_content(segments, tokens):
    assert segment_tokens(segments).tolist() == tokens
    for layer in range(SHAPE.num_layers):
        rows = [buffer.layers[layer][:, :, :length] for buffer, length in segments]
        keys, values = np.concatenate(rows, axis=2)
        assert np.array_equal(keys[0, :, 0], np.array(tokens) + layer)
        assert np.array_equal(values[1, :, 3], np.arange(len(tokens)))


def test_a_text_without_branches_stays_in_one_buffer():
    segments, buffers = (), set()
    for token in range(300):
        segments = append(segments, [token])
        assert len(segments) == 1
        buffers.add(id(segments[0].buffer))
    check_content(segments, list(range(300)))
    assert len(buffers) < 10  # the buffer grows by half its size


def test_a_branch_shares_the_rows_before_it():
    trunk = append_one_by_one((), list(range(200)))
    first = append(trunk, [500])
    second = append(trunk, [501])
    assert second[0].buffer is trunk[0].buffer
    assert len(second) == 2
    assert second[1].length == 1
    assert len(second[1].buffer.tokens) <= MIN_CAPACITY + 1
    check_content(first, [*range(200), 500])
    check_content(second, [*range(200), 501])
    check_content(trunk, list(range(200)))


def test_buffers_never_exceed_the_context():
    segments = append((), list(range(390)))
    append(segments, [1])
    for kept in (segments, append(segments, [2])):
        full = append_one_by_one(kept, list(range(400 - num_positions(kept))))
        assert num_positions(full) == 400
        assert sum(len(buffer.tokens) for buffer, _ in full) <= 400 + MIN_CAPACITY


MODEL = random_transformer(make_tokenizer(VOCABULARY_SIZE), context_size=90)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.lists(st.integers(0, VOCABULARY_SIZE - 1), min_size=1, max_size=45)),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_random_branches_equal_texts_read_from_the_start(branches, read_together):
    texts = [([], MODEL.start())]
    for choice, tokens in branches:
        history, state = texts[choice % len(texts)]
        if read_together:
            log_probs, state = MODEL.advance_tokens(state, tokens)
            texts.append((history + tokens, state))
        else:
            for token in tokens:
                log_probs, state = MODEL.advance(state, token)
                history = [*history, token]
                texts.append((history, state))
        expected, _ = MODEL.advance_tokens(MODEL.start(), texts[-1][0])
        assert log_probs == pytest.approx(expected, abs=1e-4)
    for history, state in texts[1:]:
        again, _ = MODEL.advance(state, 2)
        assert again == pytest.approx(MODEL.advance_tokens(MODEL.start(), [*history, 2])[0], abs=1e-4)
