"""Attention of a Transformer on each token of a text: the record of the text, with names for its positions."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from lotr_tui.screens.text.layout import Page
from lotr_tui.screens.text.token_names import token_names

from engine.analysis.activations import attention_rollouts
from engine.analysis.tokenized_text import TokenizedText
from engine.data.arrays import Float32Array, Int64Array
from engine.data.tokenizers.base import Tokenizer
from engine.models.attention import AttentionModel, AttentionRecord
from lotr_tui.formatting import format_lone_token

MAX_RECORD_BYTES = 280_000_000
"""Memory for the attention weights of a text: 508 positions of a model of 30 layers with 9 heads."""
START_NAME = "start"
"""Name of position 0, the start of the text."""
_BYTES_PER_WEIGHT = 4


class HeadId(NamedTuple):
    """One head of one layer, or an average of several heads."""

    layer: int | None
    """Index of the layer; None for attention rollout over all layers."""
    head: int | None
    """Index of the head; None for the mean of the heads."""


ROLLOUT = HeadId(None, None)
"""Attention rollout over all layers."""


def layer_rows(layer: int, num_heads: int) -> tuple[HeadId, ...]:
    """Return the rows of the strips for a layer: attention rollout, the mean of the heads, and each head."""
    return (ROLLOUT, HeadId(layer, None), *(HeadId(layer, head) for head in range(num_heads)))


@dataclass(frozen=True)
class AttentionReading:
    """Attention of a model on a text. A token is predicted at the position before its own."""

    page: Page
    """The text; its items are the tokens."""
    record: AttentionRecord
    names: tuple[str, ...]
    """Name of each position `[positions]`: the start of the text, then tokens, with speakers' names."""
    token_positions: Int64Array
    """Position of each token of the text: `[tokens]`."""
    mean_weights: Float32Array
    """Mean of the heads of each layer: `[layers, positions, positions]`."""
    rollouts: Float32Array
    """Attention rollout of each position: `[positions, positions]`."""

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.record.weights)

    @property
    def num_heads(self) -> int:
        """Number of heads of a layer."""
        return int(self.record.weights.shape[1])

    def token_name(self, token: int) -> str:
        """Return the name of a token of the text."""
        return self.names[int(self.token_positions[token])]

    def query_position(self, token: int) -> int:
        """Return the position that predicted a token of the text: the last one that the model had read."""
        return int(self.token_positions[token]) - 1

    def weights(self, head_id: HeadId) -> Float32Array:
        """Return the weights `[positions, positions]` of a head, of the mean of the heads, or of attention rollout."""
        layer, head = head_id
        if layer is None:
            return self.rollouts
        weights: Float32Array = self.mean_weights[layer] if head is None else self.record.weights[layer, head]
        return weights

    def attended(self, head_id: HeadId, token: int, *, without_start: bool = False) -> Float32Array:
        """Return the weights of the positions that predicted a token: `[positions before the token]`.

        `without_start` leaves out the start of the text: its weight is 0, and the others sum to 1.
        """
        query = self.query_position(token)
        weights = self.weights(head_id)[query, : query + 1]
        if not without_start:
            return weights
        rest = float(weights[1:].sum())
        others: Float32Array = weights / max(rest, 1e-9)
        others[0] = 0.0
        return others


def max_recorded_tokens(model: AttentionModel) -> int:
    """Return how many tokens can be recorded after the start of a text, given the memory and the model's context."""
    num_layers, num_heads, *_ = model.record_attention(np.empty(0, np.int32)).weights.shape
    max_positions = math.isqrt(MAX_RECORD_BYTES // (_BYTES_PER_WEIGHT * num_layers * num_heads))
    return max(1, min(max_positions, model.context_size) - 1)


def read_attention(model: AttentionModel, tokenizer: Tokenizer, tokens: TokenizedText) -> AttentionReading:
    """Record the attention of a model on the start of a text and its tokens.

    Raises:
        InvalidInputError: If the text does not fit into the model's context.
    """
    read_ids, positions = tokens.read_ids()
    ids, token_positions = np.array(read_ids, np.int32), np.array(positions, np.int64) + 1  # position 0 is the start
    page = Page.from_tokens(tokens)
    names = [START_NAME, *(format_lone_token(tokenizer.tokens[id]) for id in ids.tolist())]  # stay for heads only
    for position, name in zip(token_positions.tolist(), token_names(page, tokenizer), strict=True):
        names[position] = name
    record = model.record_attention(ids)
    return AttentionReading(
        page,
        record,
        tuple(names),
        token_positions,
        record.weights.mean(axis=1),
        attention_rollouts(record.weights),
    )
