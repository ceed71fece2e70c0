"""Keys and values of the tokens that a Transformer has read, in buffers that states share.

A state lists segments, each the first rows of a buffer. A text that is continued appends to its last buffer in place. A
text that branches off earlier keeps the rows before the branch and appends to a new buffer.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import TokenIds

MIN_CAPACITY = 32
"""Minimum number of free rows of a new buffer, unless the context is smaller."""
MAX_COPIED_ROWS = 32
"""Rows that a branch copies rather than sharing them: products with short segments take longer than the copy saves."""
MAX_SEGMENTS = 4
"""Maximum number of segments of a state; a branch that would need more copies the rows of the last segment."""


class Claim(Enum):
    """Way to continue a text that uses the first rows of a buffer."""

    APPEND = auto()
    """In the next rows, which no other text uses."""
    FULL = auto()
    """In a larger buffer: this one has no room."""
    BRANCH = auto()
    """In another buffer: another text has continued these rows."""


@dataclass(frozen=True)
class CacheShape:
    """Sizes of the keys and values of a model."""

    num_layers: int
    num_kv_heads: int
    head_size: int
    context_size: int
    """Maximum number of positions of a state."""


@dataclass(eq=False)
class CacheBuffer:
    """Rows for tokens with their keys and values, written in order. States share a buffer, and threads may do so too.

    A row is claimed before it is written, and never changes once a state includes it.
    """

    layers: tuple[Float32Array, ...]
    """Keys and values of each layer, `[2, heads, capacity, head size]`: first keys, then values."""
    tokens: TokenIds
    """Tokens `[capacity]`."""
    num_claimed: int = 0
    """Number of rows that belong to a text already; more than all rows if a text has continued in a larger buffer."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @staticmethod
    def create(shape: CacheShape, capacity: int) -> "CacheBuffer":
        """Return an empty buffer for `capacity` tokens."""
        # One array, since numpy asks the system for huge pages from 4 MB on, which are read faster.
        rows = np.empty((shape.num_layers, 2, shape.num_kv_heads, capacity, shape.head_size), np.float32)
        return CacheBuffer(tuple(rows), np.empty(capacity, np.int32))

    def claim(self, start: int, count: int) -> Claim:
        """Reserve `count` rows from row `start` for the caller, unless another text has continued the rows before."""
        with self._lock:
            if start != self.num_claimed:
                return Claim.BRANCH
            if start + count > len(self.tokens):
                self.num_claimed = len(self.tokens) + 1  # the next text that continues these rows is a branch
                return Claim.FULL
            self.num_claimed += count
            return Claim.APPEND


class CacheSegment(NamedTuple):
    """First rows of a buffer."""

    buffer: CacheBuffer
    length: int
    """Number of rows."""


Segments = tuple[CacheSegment, ...]
"""Consecutive parts of a text, oldest first."""


def extend_segments(
    segments: Segments, num_positions: int, tokens: Sequence[int] | TokenIds, shape: CacheShape
) -> Segments:
    """Return segments with new last rows, for a text that continues with `tokens`.

    The caller writes the keys and values of these rows, which all are in the last segment. `segments` stay valid.

    Args:
        segments: Segments of the text so far.
        num_positions: Number of rows of `segments`.
        tokens: At least one token, and not more than fit into the context.
        shape: Sizes of the model.
    """
    count = len(tokens)
    copied: CacheBuffer | None = None
    shared, num_copied = segments, 0
    if segments:
        buffer, length = segments[-1]
        claim = buffer.claim(length, count)
        if claim is Claim.APPEND:
            buffer.tokens[length : length + count] = tokens
            return (*segments[:-1], CacheSegment(buffer, length + count))
        # A full buffer grows by a copy, so that a text without branches has one segment.
        if claim is Claim.FULL or length <= MAX_COPIED_ROWS or len(segments) == MAX_SEGMENTS:
            copied, num_copied, shared = buffer, length, segments[:-1]
    length = num_copied + count
    room = shape.context_size - num_positions + num_copied
    buffer = CacheBuffer.create(shape, min(room, length + max(MIN_CAPACITY, length // 2)))
    buffer.num_claimed = length
    if copied is not None:
        buffer.tokens[:num_copied] = copied.tokens[:num_copied]
        for rows, copied_rows in zip(buffer.layers, copied.layers, strict=True):
            rows[:, :, :num_copied] = copied_rows[:, :, :num_copied]
    buffer.tokens[num_copied:length] = tokens
    return (*shared, CacheSegment(buffer, length))


def segment_tokens(segments: Segments) -> TokenIds:
    """Return all tokens `[positions]` of a text."""
    parts = [buffer.tokens[:length] for buffer, length in segments]
    return np.concatenate(parts) if parts else np.empty(0, np.int32)
