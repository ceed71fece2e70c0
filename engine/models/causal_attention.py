"""Causal self-attention in numpy: rotary positions, and attention to keys and values in a cache or in whole windows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array, Int64Array
from engine.models.key_value_cache import CacheBuffer, Segments
from engine.models.transformer_layout import head_size, num_kv_heads, rotary_frequencies

MAX_STORED_POSITIONS = 1024
"""Positions whose rotation is computed only once."""
Factors = tuple[Float32Array, Float32Array]
"""Cosines, and sines with the signs of the rotation."""


class RotaryEmbedding:
    """Rotation of queries and keys by their positions, see `rotary_frequencies`.

    Queries are also divided by the root of the head size, so that their products with keys are the scores.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Prepare the frequencies of `config`."""
        self._num_heads = config.num_heads
        self._num_rotated = config.num_heads + num_kv_heads(config)
        self._frequencies = rotary_frequencies(config)
        self._factors: dict[int, Factors] = {}
        """Factors of single positions; threads that compute the same ones at once store equal arrays."""
        self._query_scale = np.float32(1 / math.sqrt(head_size(config)))

    def factors(self, positions: int | Sequence[int] | Int64Array) -> Factors:
        """Return the factors of `rotate` for one position or for `positions` `[rows]`; they must not be changed.

        The factors of each position are `[heads, 2, head size / 2]`: of query heads and then of key heads, both halves.
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
        factors = np.empty((2, *angles.shape[:-1], self._num_rotated, 2, angles.shape[-1]), np.float32)
        factors[0] = np.cos(angles)[..., None, None, :]
        factors[1, ..., 0, :] = -sine[..., None, :]
        factors[1, ..., 1, :] = sine[..., None, :]
        factors[..., : self._num_heads, :, :] *= self._query_scale
        return factors[0], factors[1]

    def rotate(self, vectors: Float32Array, factors: Factors) -> None:
        """Rotate heads of queries and keys `[..., heads, head size]` in place, each vector with its factors."""
        cosine, sine = factors
        pairs = vectors.reshape(cosine.shape)
        swapped = pairs[..., ::-1, :] * sine
        pairs *= cosine
        pairs += swapped


def attend_one(queries: Float32Array, layer: int, segments: Segments) -> Float32Array:
    """Return the attention output `[width]` of one token to all rows of a text.

    Args:
        queries: Queries `[key heads, queries per key head, head size]` of the token.
        layer: Index of the layer.
        segments: Rows of the text.
    """
    if len(segments) == 1:
        buffer, length = segments[0]
        keys, values = buffer.layers[layer]
        # One product per query: BLAS multiplies a matrix by a vector faster than by the few queries of a key head.
        weights = np.matmul(keys[:, None, :length], queries[..., None])[..., 0]
        totals = _exponentiate(weights)
        output: Float32Array = np.matmul(weights[..., None, :], values[:, None, :length])[..., 0, :]
    else:
        weights = _segment_scores(queries, layer, segments)
        totals = _exponentiate(weights)
        output = _weighted_values(weights, layer, segments)
    output /= totals
    return output.reshape(-1)


def _segment_scores(queries: Float32Array, layer: int, segments: Segments) -> Float32Array:
    """Return the scores `[key heads, queries, positions]` of queries `[key heads, queries, head size]`."""
    num_positions = sum(length for _, length in segments)
    scores, start = np.empty((*queries.shape[:2], num_positions), np.float32), 0
    for buffer, length in segments:
        keys = buffer.layers[layer][0, :, :length]
        np.matmul(queries, keys.swapaxes(1, 2), out=scores[:, :, start : start + length])
        start += length
    return scores


def _weighted_values(weights: Float32Array, layer: int, segments: Segments) -> Float32Array:
    """Return the sums `[key heads, queries, head size]` of values, by weights `[key heads, queries, positions]`."""
    total, start = np.float32(0), 0
    for buffer, length in segments:
        values = buffer.layers[layer][1, :, :length]
        total = total + np.matmul(weights[:, :, start : start + length], values)
        start += length
    return np.asarray(total)


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
        self._padding = np.where(is_padding, np.float32(-np.inf), np.float32(0))[:, None, None]  # [texts, 1, 1, keys]

    def attend(self, queries: Float32Array, layer: int) -> Float32Array:
        """Return the attention output `[texts, width]` of one token per text.

        `queries` are `[texts, key heads, queries per key head, head size]`.
        """
        weights = np.empty((*queries.shape[:3], self._padding.shape[-1]), np.float32)
        weights[:] = self._padding
        for buffer, start, end, texts in self._rows:
            keys = buffer.layers[layer][0, :, : end - start].swapaxes(1, 2)
            if len(texts) == 1:
                np.matmul(queries[texts[0]], keys, out=weights[texts[0], :, :, start:end])
            else:
                weights[texts, :, :, start:end] = _apart(np.matmul(_together(queries[texts]), keys), len(texts))
        weights /= _exponentiate(weights)
        output = np.zeros_like(queries, order="C")
        for buffer, start, end, texts in self._rows:
            values = buffer.layers[layer][1, :, : end - start]
            if len(texts) == 1:
                output[texts[0]] += np.matmul(weights[texts[0], :, :, start:end], values)
            else:
                output[texts] += _apart(np.matmul(_together(weights[texts, :, :, start:end]), values), len(texts))
        return output.reshape(len(output), -1)


def _together(rows: Float32Array) -> Float32Array:
    """Return `[texts, key heads, queries, n]` as `[key heads, texts * queries, n]`."""
    num_texts, num_kv_heads, group, size = rows.shape
    return rows.swapaxes(0, 1).reshape(num_kv_heads, num_texts * group, size)


def _apart(rows: Float32Array, num_texts: int) -> Float32Array:
    """Return `[key heads, texts * queries, n]` as `[texts, key heads, queries, n]`."""
    return rows.reshape(len(rows), num_texts, -1, rows.shape[-1]).swapaxes(0, 1)


def attend_segments(queries: Float32Array, layer: int, segments: Segments) -> Float32Array:
    """Return the attention of the last tokens of a text to all its rows, in the shape of `queries`.

    Args:
        queries: Queries `[key heads, queries per key head, tokens, head size]` of the last tokens, whose rows are
            included in `segments`.
        layer: Index of the layer.
        segments: Rows of the text.
    """
    num_kv_heads, group, num_tokens, size = queries.shape
    weights = _segment_scores(queries.reshape(num_kv_heads, group * num_tokens, size), layer, segments)
    _mask_and_normalize(weights.reshape(num_kv_heads, group, num_tokens, -1))
    return _weighted_values(weights, layer, segments).reshape(queries.shape)


def attend_windows(
    queries: Float32Array, keys: Float32Array, values: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Return the attention of whole windows, each to itself.

    Args:
        queries: `[..., key heads, queries per key head, time, head size]`.
        keys: `[..., key heads, time, head size]`.
        values: As `keys`.

    Returns:
        The output, in the shape of `queries`, and the weights `[..., key heads, queries per key head, time, time]`.
    """
    rows = queries.reshape(*keys.shape[:-2], -1, keys.shape[-1])
    weights = np.matmul(rows, keys.swapaxes(-1, -2))
    by_query = weights.reshape(*queries.shape[:-1], -1)
    _mask_and_normalize(by_query)
    return np.matmul(weights, values).reshape(queries.shape), by_query


def _mask_and_normalize(scores: Float32Array) -> None:
    """Replace the scores `[..., tokens, positions]` of the last tokens by weights, which are 0 for later positions."""
    num_tokens, num_positions = scores.shape[-2:]
    last = scores[..., num_positions - num_tokens :]
    last[..., np.triu(np.ones((num_tokens, num_tokens), bool), 1)] = -np.inf
    scores /= _exponentiate(scores)
