"""Causal self-attention in numpy: rotary positions, and attention to keys and values in a cache or in whole windows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.data.arrays import Float32Array, Int64Array
from engine.models.key_value_cache import CacheBuffer, Segments
from engine.models.transformer_layout import ROPE_BASE

MAX_STORED_POSITIONS = 1024
"""Positions whose rotation is computed only once."""
Factors = tuple[Float32Array, Float32Array]
"""Cosines, and sines with the signs of the rotation."""


class RotaryEmbedding:
    """Rotation of queries and keys by their positions (Su et al. 2021, arXiv 2104.09864).

    The first half of a head's units pairs with the second half, as in the weights of Hugging Face. Queries are also
    divided by the root of the head size, so that their products with keys are the scores.
    """

    def __init__(self, num_heads: int, head_size: int) -> None:
        """Prepare the frequencies of `head_size` / 2 pairs of units."""
        self._num_heads = num_heads
        self._frequencies = ROPE_BASE ** (-np.arange(0, head_size, 2) / head_size)
        self._half = head_size // 2
        self._factors: dict[int, Factors] = {}
        """Factors of single positions; threads that compute the same ones at once store equal arrays."""
        self._query_scale = np.float32(1 / math.sqrt(head_size))

    def factors(self, positions: int | Sequence[int] | Int64Array) -> Factors:
        """Return the factors of `rotate` for one position or for `positions` `[rows]`; they must not be changed.

        The factors of each position are `[2, heads, 2, head size / 2]`: of queries and keys, of both halves.
        """
        if not isinstance(positions, int):
            return self._compute_factors(positions)
        factors = self._factors.get(positions)
        if factors is None:
            factors = self._compute_factors(positions)
            if positions < MAX_STORED_POSITIONS:
                self._factors[positions] = factors
        return factors

    def _compute_factors(self, positions: int | Sequence[int] | Int64Array) -> Factors:
        angles = np.multiply.outer(positions, self._frequencies)
        sine = np.sin(angles)
        factors = np.empty((2, *angles.shape[:-1], 2, self._num_heads, 2, self._half), np.float32)
        factors[0] = np.cos(angles)[..., None, None, None, :]
        factors[1, ..., 0, :] = -sine[..., None, None, :]
        factors[1, ..., 1, :] = sine[..., None, None, :]
        factors[..., 0, :, :, :] *= self._query_scale
        return factors[0], factors[1]

    def rotate(self, vectors: Float32Array, factors: Factors) -> None:
        """Rotate queries and keys `[..., 2 width]` in place, each vector with its factors."""
        cosine, sine = factors
        pairs = vectors.reshape(cosine.shape)
        swapped = pairs[..., ::-1, :] * sine
        pairs *= cosine
        pairs += swapped


def attend_one(query: Float32Array, layer: int, segments: Segments) -> Float32Array:
    """Return the attention output `[width]` of one query `[heads, head size, 1]` to all rows of a text."""
    if len(segments) == 1:
        buffer, length = segments[0]
        keys, values = buffer.layers[layer]
        weights = np.matmul(keys[:, :length], query)[:, :, 0]
        totals = _exponentiate(weights)
        output: Float32Array = np.matmul(weights[:, None], values[:, :length])[:, 0]
    else:
        lengths = [length for _, length in segments]
        weights = np.empty((len(query), sum(lengths)), np.float32)
        output, start = np.zeros((len(query), query.shape[1]), np.float32), 0
        for buffer, length in segments:
            np.matmul(buffer.layers[layer][0, :, :length], query, out=weights[:, start : start + length, None])
            start += length
        totals, start = _exponentiate(weights), 0
        for buffer, length in segments:
            values = buffer.layers[layer][1, :, :length]
            output += np.matmul(weights[:, None, start : start + length], values)[:, 0]
            start += length
    output /= totals
    return output.reshape(-1)


def _exponentiate(scores: Float32Array) -> Float32Array:
    """Replace scores `[..., keys]` by their exponentials, up to a factor of each row; return the sums `[..., 1]`."""
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    sums: Float32Array = np.add.reduce(scores, axis=-1, keepdims=True)
    return sums


class _SharedRows(NamedTuple):
    """Rows of a buffer that are at the same positions of some texts."""

    buffer: CacheBuffer
    start: int
    """Position of the first row in the texts."""
    end: int
    texts: list[int]
    """Indices of the texts."""


class BatchAttention:
    """Attention of several texts to their own rows; rows that texts share are read once for all of them."""

    def __init__(self, texts: Sequence[Segments]) -> None:
        """Find out which texts share rows; each of `texts` includes the row of its query."""
        shared: dict[tuple[int, int, int], _SharedRows] = {}
        lengths = []
        for index, segments in enumerate(texts):
            start = 0
            for buffer, length in segments:
                rows = _SharedRows(buffer, start, start + length, [])
                shared.setdefault((id(buffer), start, length), rows).texts.append(index)
                start += length
            lengths.append(start)
        self._rows = list(shared.values())
        is_padding = np.arange(max(lengths)) >= np.array(lengths)[:, None]
        self._padding = np.where(is_padding, np.float32(-np.inf), np.float32(0))[:, None]  # [texts, 1, keys]

    def attend(self, queries: Float32Array, layer: int) -> Float32Array:
        """Return the attention output `[texts, width]` of one query per text, `[texts, heads, head size]`."""
        num_texts, num_heads, head_size = queries.shape
        weights = np.empty((num_texts, num_heads, self._padding.shape[-1]), np.float32)
        weights[:] = self._padding
        for buffer, start, end, texts in self._rows:
            keys = buffer.layers[layer][0, :, : end - start]
            if len(texts) == 1:
                np.matmul(keys, queries[texts[0], :, :, None], out=weights[texts[0], :, start:end, None])
            else:
                scores = np.matmul(queries[texts].transpose(1, 0, 2), keys.transpose(0, 2, 1))
                weights[texts, :, start:end] = scores.transpose(1, 0, 2)
        weights /= _exponentiate(weights)
        output = np.zeros((num_texts, num_heads, head_size), np.float32)
        for buffer, start, end, texts in self._rows:
            values = buffer.layers[layer][1, :, : end - start]
            if len(texts) == 1:
                output[texts[0]] += np.matmul(weights[texts[0], :, None, start:end], values)[:, 0]
            else:
                output[texts] += np.matmul(weights[texts, :, start:end].transpose(1, 0, 2), values).transpose(1, 0, 2)
        return output.reshape(num_texts, -1)


def attend_segments(queries: Float32Array, layer: int, segments: Segments) -> tuple[Float32Array, Float32Array]:
    """Return the attention of the last tokens of a text to all its rows.

    Args:
        queries: Queries `[heads, tokens, head size]` of the last tokens, whose rows are included in `segments`.
        layer: Index of the layer.
        segments: Rows of the text.

    Returns:
        The output `[heads, tokens, head size]`, and the weights `[heads, tokens, positions]`.
    """
    num_heads, num_tokens, _ = queries.shape
    num_positions = sum(length for _, length in segments)
    weights, start = np.empty((num_heads, num_tokens, num_positions), np.float32), 0
    for buffer, length in segments:
        keys = buffer.layers[layer][0, :, :length]
        np.matmul(queries, keys.transpose(0, 2, 1), out=weights[:, :, start : start + length])
        start += length
    _mask_and_normalize(weights)
    output, start = np.zeros_like(queries, order="C"), 0
    for buffer, length in segments:
        output += np.matmul(weights[:, :, start : start + length], buffer.layers[layer][1, :, :length])
        start += length
    return output, weights


def attend_windows(
    queries: Float32Array, keys: Float32Array, values: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Return the attention of whole windows, each to itself, of arrays `[..., heads, time, head size]`.

    Returns:
        The output `[..., heads, time, head size]`, and the weights `[..., heads, time, time]`.
    """
    weights = np.matmul(queries, keys.swapaxes(-1, -2))
    _mask_and_normalize(weights)
    return np.matmul(weights, values), weights


def _mask_and_normalize(scores: Float32Array) -> None:
    """Replace the scores `[..., tokens, positions]` of the last tokens by weights, which are 0 for later positions."""
    num_tokens, num_positions = scores.shape[-2:]
    last = scores[..., num_positions - num_tokens :]
    last[..., np.triu(np.ones((num_tokens, num_tokens), bool), 1)] = -np.inf
    scores /= _exponentiate(scores)
