"""Causal self-attention in numpy: rotary positions, and attention to keys and values in a cache or in whole windows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.arrays import Float32Array, Int64Array
from engine.models.key_value_cache import CacheBuffer, Segments
from engine.models.transformer_layout import head_size, num_kv_heads, rotary_frequencies

MIN_POSITIONS = 256
"""Positions whose rotations are computed at once, at least."""
Rotations = npt.NDArray[np.complex64]


class RotaryEmbedding:
    """Rotation of queries and keys by their positions, see `rotary_frequencies`.

    The units of a pair are neighbours, see `pair_units`, so that a rotation is a product of complex numbers. Queries
    are also divided by the root of the head size, so that their products with keys are the scores.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Prepare the frequencies of `config`."""
        self._num_heads = np.array([config.num_heads, num_kv_heads(config)])
        self._frequencies = rotary_frequencies(config)
        self._query_scale = 1 / math.sqrt(head_size(config))
        self._table = self._compute_table(0)

    def _compute_table(self, num_positions: int) -> Rotations:
        """Return the rotations `[positions, 2, head size / 2]` of queries and of keys."""
        rotations = np.exp(1j * np.multiply.outer(np.arange(num_positions), self._frequencies))
        return np.stack([rotations * self._query_scale, rotations], axis=1).astype(np.complex64)

    def rotations(self, positions: int | Sequence[int] | Int64Array) -> Rotations:
        """Return the rotations `[..., heads, head size / 2]`, first of query heads, then of key heads, for `rotate`."""
        num_positions = 1 + (positions if isinstance(positions, int) else max(positions))
        if num_positions > len(table := self._table):
            # Threads may do so at the same time: they store equal tables.
            self._table = table = self._compute_table(max(MIN_POSITIONS, num_positions * 3 // 2))
        return table[positions].repeat(self._num_heads, axis=-2)

    def rotate(self, heads: Float32Array, rotations: Rotations) -> None:
        """Rotate heads `[..., heads, head size]` of queries and keys in place."""
        pairs = heads.view(np.complex64)
        pairs *= rotations


def attend_one(queries: Float32Array, layer: int, segments: Segments, sums: Float32Array | None) -> Float32Array:
    """Return the attention output `[width]` of one token to all rows of a text.

    Args:
        queries: Queries `[key heads, queries per key head, head size, 1]` of the token.
        layer: Index of the layer.
        segments: Rows of the text.
        sums: Array `[heads]` that receives the sums of the exponentials of the scores. The caller has to check that
            they are neither too large nor too small for single precision. Without it, the largest score is first
            subtracted from all, which prevents both but takes longer.
    """
    num_kv_heads, group, size, _ = queries.shape
    # One product per query: BLAS multiplies a matrix by a vector faster than by the few queries of a key head.
    parts = [np.matmul(buffer.layers[layer][0][:, None, :length], queries) for buffer, length in segments]
    scores = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
    weights = scores.reshape(num_kv_heads * group, -1)
    if sums is None:
        weights -= np.maximum.reduce(weights, axis=1, keepdims=True)
    np.exp(weights, out=weights)
    sums = np.add.reduce(weights, axis=1, out=sums)
    weights, start, parts = weights.reshape(num_kv_heads, group, 1, -1), 0, []
    for buffer, length in segments:
        parts.append(np.matmul(weights[..., start : start + length], buffer.layers[layer][1][:, None, :length]))
        start += length
    output: Float32Array = (parts[0] if len(parts) == 1 else np.add.reduce(parts)).reshape(num_kv_heads * group, size)
    output /= sums[:, None]
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
        self._padding = np.where(is_padding, np.float32(-np.inf), np.float32(0))[:, None, None]  # [texts, 1, 1, keys]

    def attend(self, queries: Float32Array, layer: int) -> Float32Array:
        """Return the attention output `[texts, width]` of one token per text.

        `queries` are `[texts, key heads, queries per key head, head size]`.
        """
        weights = np.empty((*queries.shape[:3], self._padding.shape[-1]), np.float32)
        weights[:] = self._padding
        for buffer, start, end, texts in self._rows:
            keys = buffer.layers[layer][0, :, : end - start]
            if len(texts) == 1:
                scores = np.matmul(keys[:, None], queries[texts[0], ..., None])
                weights[texts[0], :, :, start:end] = scores[..., 0]
            else:
                scores = np.matmul(_together(queries[texts]), keys.swapaxes(1, 2))
                weights[texts, :, :, start:end] = _apart(scores, len(texts))
        weights /= _exponentiate(weights)
        output = np.zeros_like(queries, order="C")
        for buffer, start, end, texts in self._rows:
            values = buffer.layers[layer][1, :, : end - start]
            if len(texts) == 1:
                output[texts[0]] += np.matmul(weights[texts[0], :, :, None, start:end], values[:, None])[..., 0, :]
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
    rows = queries.reshape(num_kv_heads, group * num_tokens, size)
    num_positions = sum(length for _, length in segments)
    weights, start = np.empty((num_kv_heads, group * num_tokens, num_positions), np.float32), 0
    for buffer, length in segments:
        keys = buffer.layers[layer][0, :, :length]
        np.matmul(rows, keys.swapaxes(1, 2), out=weights[:, :, start : start + length])
        start += length
    _mask(weights.reshape(num_kv_heads, group, num_tokens, num_positions))
    totals = _exponentiate(weights)
    output, start = np.zeros(rows.shape, np.float32), 0
    for buffer, length in segments:
        output += np.matmul(weights[:, :, start : start + length], buffer.layers[layer][1, :, :length])
        start += length
    output /= totals
    return output.reshape(queries.shape)


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
    _mask(by_query)
    weights /= _exponentiate(weights)
    return np.matmul(weights, values).reshape(queries.shape), by_query


def _mask(scores: Float32Array) -> None:
    """Set the scores `[..., tokens, positions]` of the last tokens to -inf for later positions."""
    num_tokens, num_positions = scores.shape[-2:]
    last = scores[..., num_positions - num_tokens :]
    np.copyto(last, -np.inf, where=np.triu(np.ones((num_tokens, num_tokens), bool), 1))
