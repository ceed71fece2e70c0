"""Keys and values of the texts that a Transformer in numpy reads, and attention to them.

A state lists segments of keys and values, each the first rows of a buffer. A text that is continued appends to its last
buffer in place. A text that branches off earlier keeps the rows before the branch and appends to a new buffer.
"""

import threading
from collections.abc import Sequence

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers import TokenIds
from engine.models import weights as layout

MIN_CAPACITY = 32  # free rows of a new buffer, unless the context is smaller
BLOCK_ROWS = 128  # summed together, whatever segments a text has: each but the last segment has whole blocks
MAX_SEGMENTS = 4  # of a state; a branch that would need more copies the rows of the last segment


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
        is_copied = is_newest or len(segments) == MAX_SEGMENTS
        num_shared = 0 if is_copied else length - length % BLOCK_ROWS
        num_copied = length - num_shared
        shared = (*segments[:-1], (buffer, num_shared)) if num_shared else segments[:-1]
    length = num_copied + count
    room = config.context_size - num_positions + num_copied
    new = CacheBuffer(config, min(room, length + max(MIN_CAPACITY, length // 2)))
    new.num_claimed = length
    if num_copied:
        new.tokens[:num_copied] = buffer.tokens[num_shared : num_shared + num_copied]
        for rows, copied_rows in zip(new.layers, buffer.layers, strict=True):
            rows[:, :, :num_copied] = copied_rows[:, :, num_shared : num_shared + num_copied]
    new.tokens[num_copied:length] = tokens
    return (*shared, (new, length))


def segment_tokens(segments: Segments) -> TokenIds:
    return np.concatenate([np.empty(0, np.int32), *(buffer.tokens[:length] for buffer, length in segments)])


class RowAttention:
    """Attention of the last token of each of several texts; rows that consecutive texts share are read once for them.

    A text's result depends neither on the other texts nor on the segments that its rows are in.
    """

    def __init__(self, texts: Sequence[Segments]) -> None:
        # Rows of a buffer, the position of the first one, and the texts that have them.
        self._spans = list[tuple[CacheBuffer, slice, int, slice]]()
        lengths = list[int]()
        latest = dict[tuple[int, int, int], int]()  # index of the last span of the same rows
        for index, segments in enumerate(texts):
            position = 0
            for buffer, length in segments:
                for start in range(0, length, BLOCK_ROWS):
                    rows = slice(start, min(start + BLOCK_ROWS, length))
                    key = id(buffer), start, rows.stop
                    sharing = slice(index, index + 1)
                    found = latest.get(key)
                    if found is not None and self._spans[found][3].stop == index:
                        sharing = slice(self._spans[found][3].start, index + 1)
                        self._spans[found] = buffer, rows, position, sharing
                    else:
                        latest[key] = len(self._spans)
                        self._spans.append((buffer, rows, position, sharing))
                    position += rows.stop - start
            lengths.append(position)
        self._num_positions = max(lengths)
        self._is_padded = min(lengths) < self._num_positions

    def attend(self, queries: Float32Array, layer: int) -> Float32Array:
        """Return `[texts, units]`; `queries` are `[texts, key heads, queries per key head, head size]`."""
        weights = np.empty((*queries.shape[:3], self._num_positions), np.float32)
        if self._is_padded:
            weights.fill(-np.inf)
        # One product per query: BLAS multiplies a matrix by a vector faster than by the few queries of a key head.
        for buffer, rows, start, texts in self._spans:
            keys = buffer.layers[layer][0, :, None, rows]
            scores = weights[texts, :, :, start : start + rows.stop - rows.start, None]
            np.matmul(keys, queries[texts, ..., None], out=scores)
        weights -= np.maximum.reduce(weights, axis=-1, keepdims=True)
        np.exp(weights, out=weights)
        output = np.zeros_like(queries)
        sums = np.zeros((*queries.shape[:3], 1), np.float32)
        for buffer, rows, start, texts in self._spans:
            values = buffer.layers[layer][1, :, None, rows]
            own = weights[texts, :, :, None, start : start + rows.stop - rows.start]
            output[texts] += np.matmul(own, values)[..., 0, :]
            sums[texts] += np.add.reduce(own, axis=-1)
        output /= sums
        return output.reshape(len(queries), -1)


def attend_chunk(
    heads: Float32Array, layer: int, segments: Segments, record: Float32Array | None = None
) -> Float32Array:
    """Return the attention `[tokens, units]` of the last tokens of a text.

    Queries are `[tokens, key heads, queries per key head, head size]`; `record` `[heads, tokens, positions]` gets the
    weights.
    """
    num_tokens, num_kv_heads, group, size = heads.shape
    # A text in one piece has the same sums as one in several segments.
    parts = [buffer.layers[layer][:, :, :length] for buffer, length in segments]
    keys, values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
    num_positions = keys.shape[1]
    queries = heads.transpose(1, 2, 0, 3).reshape(num_kv_heads, -1, size)
    products = np.matmul(queries, keys.swapaxes(-1, -2))
    weights = products.reshape(num_kv_heads, group, num_tokens, num_positions)
    first_hidden = num_positions - num_tokens + 1
    is_hidden = np.tri(num_tokens, num_tokens - 1, -1, dtype=bool)
    np.copyto(weights[..., first_hidden:], -np.inf, where=~is_hidden)
    weights -= np.maximum.reduce(weights, axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    sums: Float32Array = np.add.reduce(weights, axis=-1, keepdims=True)
    output: Float32Array = np.matmul(products, values).reshape(num_kv_heads, group, num_tokens, size)
    output /= sums
    if record is not None:
        np.divide(weights, sums, out=record.reshape(weights.shape))
    return output.transpose(2, 0, 1, 3).reshape(num_tokens, -1)
