"""Key-value caches as values: append-only buffers that the states of a text share."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.data.arrays import Int64Array

MIN_CAPACITY = 256
"""Positions of a new buffer. A buffer that is full is copied to one of twice the size."""


class KeyValueBuffer:
    """Append-only keys and values of texts that are read together, one row per text.

    The texts end at the same column; shorter texts start with padding. A state of a text is a row and a number of
    columns (`BufferSlot`), so following states share the buffer. Only the state with all columns can be continued in
    place; any other state is a branch, whose columns are copied to a new buffer.
    """

    def __init__(self, padding: Sequence[int], capacity: int) -> None:
        """Create an empty buffer.

        Args:
            padding: Number of columns before the first token of each text.
            capacity: Number of columns.
        """
        self.padding = tuple(padding)
        self.has_padding = any(padding)
        self.capacity = capacity
        self.tokens: Int64Array = np.zeros((len(self.padding), capacity), np.int64)
        """Tokens `[texts, columns]`."""
        self.layers: list[tuple[Tensor, Tensor] | None] = []
        """Keys and values of each layer, both `[texts, heads, columns, head size]`; None before a layer's first."""
        self._num_columns = max(padding)
        self._lock = threading.Lock()

    def reserve(self, num_columns: int, num_new: int) -> bool:
        """Reserve columns after the first `num_columns`. Return False if they are in use, or the buffer is full."""
        with self._lock:
            if self._num_columns != num_columns or num_columns + num_new > self.capacity:
                return False
            self._num_columns += num_new
            return True

    def claim(self, num_columns: int) -> None:
        """Mark the first `num_columns` columns of a new buffer as in use."""
        with self._lock:
            self._num_columns = num_columns

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values `[texts, heads, time, head size]` of a layer from column `start` on.

        Returns:
            The keys and values of all columns up to the last new one, as views.
        """
        while len(self.layers) <= layer:
            self.layers.append(None)
        stored = self.layers[layer]
        if stored is None:
            stored = self.layers[layer] = self._allocate(keys), self._allocate(values)
        stop = start + keys.shape[2]
        stored[0][:, :, start:stop] = keys
        stored[1][:, :, start:stop] = values
        return stored[0][:, :, :stop], stored[1][:, :, :stop]

    def _allocate(self, like: Tensor) -> Tensor:
        shape = (like.shape[0], like.shape[1], self.capacity, like.shape[3])
        # The padding is masked, but a mask does not hide NaN.
        return like.new_zeros(shape) if self.has_padding else like.new_empty(shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of the keys and values."""
        return sum(tensor.nbytes for layer in self.layers if layer is not None for tensor in layer)


@dataclass(frozen=True)
class BufferSlot:
    """The first columns of one text in a buffer: a state of that text."""

    buffer: KeyValueBuffer
    row: int
    num_columns: int

    @property
    def num_positions(self) -> int:
        """Number of tokens read."""
        return self.num_columns - self.buffer.padding[self.row]

    @property
    def tokens(self) -> list[int]:
        """Tokens read."""
        tokens: list[int] = self.buffer.tokens[self.row, self.buffer.padding[self.row] : self.num_columns].tolist()
        return tokens


def copy_slots(slots: Sequence[BufferSlot], num_new: int) -> KeyValueBuffer:
    """Return a new buffer with the columns of `slots`, which has room for `num_new` more and reserves them."""
    num_columns = max(slot.num_positions for slot in slots)
    capacity = MIN_CAPACITY
    while capacity < num_columns + num_new:
        capacity *= 2
    buffer = KeyValueBuffer([num_columns - slot.num_positions for slot in slots], capacity)
    buffer.claim(num_columns + num_new)
    sources = [(slot.buffer, slot.row, slice(slot.buffer.padding[slot.row], slot.num_columns)) for slot in slots]
    for row, (source, source_row, columns) in enumerate(sources):
        target = slice(buffer.padding[row], num_columns)
        buffer.tokens[row, target] = source.tokens[source_row, columns]
        if not slots[row].num_positions:
            continue
        for layer, tensors in enumerate(source.layers):
            if len(buffer.layers) <= layer:
                buffer.layers.append(None)
            if tensors is None:
                continue
            copies = buffer.layers[layer]
            if copies is None:
                likes = [tensor[:1].expand(len(slots), -1, -1, -1) for tensor in tensors]
                copies = buffer.layers[layer] = buffer._allocate(likes[0]), buffer._allocate(likes[1])
            for copied, tensor in zip(copies, tensors, strict=True):
                copied[row, :, target] = tensor[source_row, :, columns]
    return buffer


def buffer_positions(buffer: KeyValueBuffer, start: int, num_new: int, device: torch.device) -> Tensor:
    """Return the position `[texts, time]` of each of `num_new` columns from `start` on."""
    columns = torch.arange(start, start + num_new, device=device)
    return columns[None] - torch.tensor(buffer.padding, device=device)[:, None]


def buffer_mask(buffer: KeyValueBuffer, num_columns: int, device: torch.device) -> Tensor:
    """Return the mask `[texts, columns]` of a buffer: 0 for padding, and 1 for tokens."""
    columns = torch.arange(num_columns, device=device)
    return (columns[None] >= torch.tensor(buffer.padding, device=device)[:, None]).long()
