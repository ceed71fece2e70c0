"""Models and helpers for tests of the attention screen."""

import zlib

import numpy as np

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.errors import InvalidInputError
from engine.models.numpy_transformer import AttentionRecord
from lotr_tui.screens.inspect.attention import AttentionScreen
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import ACTIVATIONS_TEXT, LENS_TEXT, heat_strips, open_inspector, painted_lines
from tests.support.app import VOCABULARY

WIDTH = 8
TOKENS = ["Bilbo", "Baggins", "is", "a", "friend", "the", "‹wizard›", "was", "lit", "¶", "we", "walked", "all", "night"]
"""Names of the tokens of `ACTIVATIONS_TEXT`."""
NAMES = ["start", *TOKENS]  # names of the positions of `ACTIVATIONS_TEXT`


class RandomAttentionModel:
    """A model with random attention and random layer outputs, which depend only on the text.

    The first head of each layer attends to the start of the text, as in real models, and the last to the token before.
    """

    def __init__(self, tokenizer, *, num_layers=3, num_heads=4, context_size=1024):
        self.tokenizer = tokenizer
        self.context_size = context_size
        self._num_layers, self._num_heads = num_layers, num_heads
        self._output = np.random.default_rng(0).normal(0, 1, (WIDTH, len(tokenizer))).astype(np.float32)

    def start(self):
        return ()

    def advance(self, state, token):
        state = (*state, token)
        outputs = self.record_attention(np.array(state[1:], np.int32)).layer_outputs
        return self.layer_log_probs(outputs[-1, -1:])[0], state

    def record_attention(self, ids):
        num_positions = len(ids) + 1
        if num_positions > self.context_size:
            raise InvalidInputError(f"{num_positions} positions do not fit into {self.context_size}")
        rng = np.random.default_rng(zlib.crc32(ids.tobytes()))
        shape = (self._num_layers, self._num_heads, num_positions, num_positions)
        scores = rng.normal(0, 2, shape)
        scores[:, 0, :, 0] += 6
        scores[:, -1, range(num_positions), range(num_positions)] += 6
        scores[..., np.triu(np.ones((num_positions, num_positions), bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        outputs = rng.normal(0, 1, (self._num_layers + 1, num_positions, WIDTH))
        return AttentionRecord(weights.astype(np.float32), outputs.astype(np.float32))

    def layer_log_probs(self, layer_outputs):
        logits = layer_outputs @ self._output
        logits -= logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def attention_session_model(tokenizer, **settings):
    return SessionModel("gpt", "Transformer, random weights", RandomAttentionModel(tokenizer, **settings))


async def open_attention(pilot, session_model, text=LENS_TEXT):
    return await open_inspector(pilot, AttentionScreen(session_model, text))


def expected_record(model, text=ACTIVATIONS_TEXT):
    assert isinstance(model.model, RandomAttentionModel)
    return model.model.record_attention(tokenize_with_offsets(text, VOCABULARY, eos_per_line=True).ids)


def strip_lines(app):
    return painted_lines(heat_strips(app))


def list_lines(app, selector):
    return painted_lines(app.screen.query_one(selector))
