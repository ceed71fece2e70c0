"""Keys and values of the texts that a Transformer in numpy reads, and attention to them.

A state lists segments of keys and values, each the first rows of a buffer. A text that is continued appends to its last
buffer in place. A text that branches off earlier keeps the rows before the branch and appends to a new buffer.
"""

import threading
from collections.abc import Sequence

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array, Int64Array
from engine.data.tokenizers import TokenIds
from engine.models import weights as layout

MIN_CAPACITY = 32  # free rows of a new buffer, unless the context is smaller
MAX_COPIED_ROWS = 32  # a branch shares longer segments: products with short ones take longer than a copy
MAX_SEGMENTS = 4  # of a state; a branch that would need more copies the rows of the last segment
MIN_SUM, MAX_SUM = 1e-30, 1e30  # sums of exponentials that single precision represents well


class CacheBuffer:
    # Rows for tokens with their keys and values, written in order. States and threads share a buffer: a row is claimed
    # before it is written, and never changes once a state includes it.
    def __init__(self, config: ModelConfig, capacity: int) -> None:
        # One array, since numpy asks the system for huge pages from 4 MB on, which are read faster.
        shape = (config.num_layers, 2, layout.num_kv_heads(config), capacity, layout.head_size(config))
        self.layers = tuple(np.empty(shape, np.float32))  # each [keys or values, heads, capacity, head size]
        self.tokens: TokenIds = np.empty(capacity, np.int32)
        self.num_claimed = 0  # more than all rows once a text has continued in a larger buffer
        self.lock = threading.Lock()


# Consecutive parts of a text, oldest first: each the first rows of a buffer, and their number.
Segments = tuple[tuple[CacheBuffer, int], ...]


def extend_segments(
    config: ModelConfig, segments: Segments, num_positions: int, tokens: Sequence[int] | TokenIds
) -> Segments:
    """Return segments that continue a text with rows for `tokens`, all in the last segment; `segments` stay valid."""
    count, num_copied, shared = len(tokens), 0, segments
    if segments:
        buffer, length = segments[-1]
        with buffer.lock:
            is_newest, is_full = length == buffer.num_claimed, length + count > len(buffer.tokens)
            if is_newest:  # after a move to a larger buffer, the next text that continues these rows is a branch
                buffer.num_claimed = len(buffer.tokens) + 1 if is_full else length + count
        if is_newest and not is_full:
            buffer.tokens[length : length + count] = tokens
            return (*segments[:-1], (buffer, length + count))
        # A full buffer grows by a copy, so that a text without branches has one segment.
        if is_newest or length <= MAX_COPIED_ROWS or len(segments) == MAX_SEGMENTS:
            num_copied, shared = length, segments[:-1]
    length = num_copied + count
    room = config.context_size - num_positions + num_copied
    new = CacheBuffer(config, min(room, length + max(MIN_CAPACITY, length // 2)))
    new.num_claimed = length
    if num_copied:
        new.tokens[:num_copied] = buffer.tokens[:num_copied]
        for rows, copied_rows in zip(new.layers, buffer.layers, strict=True):
            rows[:, :, :num_copied] = copied_rows[:, :, :num_copied]
    new.tokens[num_copied:length] = tokens
    return (*shared, (new, length))


def segment_tokens(segments: Segments) -> TokenIds:
    return np.concatenate([np.empty(0, np.int32), *(buffer.tokens[:length] for buffer, length in segments)])


def attend_one(queries: Float32Array, layer: int, segments: Segments) -> Float32Array:
    """Return the attention `[units]` of one token; `queries` are `[key heads, queries per key head, head size, 1]`."""
    num_kv_heads, group, size, _ = queries.shape
    # One product per query: BLAS multiplies a matrix by a vector faster than by the few queries of a key head.
    parts = [np.matmul(buffer.layers[layer][0][:, None, :length], queries) for buffer, length in segments]
    scores = (parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)).reshape(num_kv_heads * group, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        weights = np.exp(scores)
        sums = np.add.reduce(weights, axis=1)
    if not MIN_SUM < sums.min() <= sums.max() < MAX_SUM:  # NaN fails the comparison
        weights = np.exp(scores - np.maximum.reduce(scores, axis=1, keepdims=True))
        sums = np.add.reduce(weights, axis=1)
    weights, start, parts = weights.reshape(num_kv_heads, group, 1, -1), 0, []
    for buffer, length in segments:
        parts.append(np.matmul(weights[..., start : start + length], buffer.layers[layer][1][:, None, :length]))
        start += length
    output: Float32Array = (parts[0] if len(parts) == 1 else np.add.reduce(parts)).reshape(num_kv_heads * group, size)
    output /= sums[:, None]
    return output.reshape(-1)


class BatchAttention:
    """Attention of the last tokens of several texts; rows that consecutive texts share are read once for them."""

    def __init__(self, texts: Sequence[Segments], counts: Sequence[int]) -> None:
        # Each of `texts` includes the rows of its last `counts` tokens.
        spans: dict[tuple[int, int, int], tuple[CacheBuffer, int, int, slice]] = {}
        positions, row = list[Int64Array](), 0
        for segments, count in zip(texts, counts, strict=True):
            start = 0
            for buffer, length in segments:
                key, first = (id(buffer), start, length), row
                if key in spans and spans[key][3].stop == row:
                    first = spans[key][3].start
                elif key in spans:
                    key = (id(buffer), start, -row)  # texts in between do not share the rows
                spans[key] = buffer, start, length, slice(first, row + count)
                start += length
            positions.append(np.arange(start - count, start))
            row += count
        self.positions = np.concatenate(positions)  # [rows]
        self._spans, self._all = list(spans.values()), slice(0, row)
        self._first_hidden = int(self.positions.min()) + 1
        self._num_positions = int(self.positions.max()) + 1
        self._is_hidden = np.arange(self._first_hidden, self._num_positions) > self.positions[:, None]

    def attend(self, heads: Float32Array, layer: int, record: Float32Array | None = None) -> Float32Array:
        # Queries are `[rows, key heads, queries per key head, head size]`; `record` `[heads, rows, positions]` gets the
        # weights.
        num_rows, num_kv_heads, group, _ = heads.shape
        queries = np.ascontiguousarray(heads.transpose(1, 2, 0, 3))
        weights = np.empty((num_kv_heads, group, num_rows, self._num_positions), np.float32)
        output = np.zeros_like(queries)

        def of_texts(rows: slice, array: Float32Array) -> Float32Array:
            # A view [key heads, 1 or queries, rows, n]: if the texts share all rows, a key head needs one product.
            return array.reshape(num_kv_heads, 1, group * num_rows, -1) if rows == self._all else array[:, :, rows]

        for buffer, start, length, rows in self._spans:
            keys = buffer.layers[layer][0, :, None, :length].swapaxes(-1, -2)
            np.matmul(of_texts(rows, queries), keys, out=of_texts(rows, weights)[..., start : start + length])
        np.copyto(weights[..., self._first_hidden :], -np.inf, where=self._is_hidden)
        weights -= np.maximum.reduce(weights, axis=-1, keepdims=True)
        np.exp(weights, out=weights)
        sums: Float32Array = np.add.reduce(weights, axis=-1, keepdims=True)
        for buffer, start, length, rows in self._spans:
            values, own = buffer.layers[layer][1, :, None, :length], of_texts(rows, output)
            own += np.matmul(of_texts(rows, weights)[..., start : start + length], values)
        output /= sums
        if record is not None:
            np.divide(weights, sums, out=record.reshape(weights.shape))
        return output.transpose(2, 0, 1, 3).reshape(num_rows, -1)
