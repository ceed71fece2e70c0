"""The cache that transformers writes to: a view of a `KeyValueBuffer`. This module imports transformers."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache

from engine.models.pretrained.cache import KeyValueBuffer


class BufferedCache(DynamicCache):
    """A cache of transformers for one forward pass, which writes to a buffer from a column on."""

    def __init__(self, buffer: KeyValueBuffer, start: int) -> None:
        """Create a cache of the first `start` columns of `buffer`."""
        super().__init__()
        self._buffer = buffer
        self._start = start
        self._num_columns: dict[int, int] = {}
        """Number of columns of each layer that this pass has updated."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values `[texts, heads, time, head size]` of a layer; return all keys and values."""
        start = self._num_columns.get(layer_idx, self._start)
        self._num_columns[layer_idx] = start + key_states.shape[2]
        return self._buffer.write(layer_idx, start, key_states, value_states)

    def get_seq_length(self, layer_idx: int = 0, *args: Any, **options: Any) -> int:
        """Return the number of columns of a layer."""
        return self._num_columns.get(layer_idx, self._start)

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
        """Return the number of columns after a pass over `query_length` new ones, and the first column, 0."""
        num_new = query_length if isinstance(query_length, int) else len(query_length)  # transformers 4: positions
        return self.get_seq_length(layer_idx) + num_new, 0
