"""Array types, and arrays larger than memory: appended in chunks and memory-mapped."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

T = TypeVar("T", bound=np.generic)

CHUNK_SIZE = 1_000_000
"""Number of elements processed at once in arrays that may be larger than memory."""
MAX_IN_MEMORY_BYTES = 2**28
"""Maximum size of a temporary array in memory; a larger one is a memory-mapped temporary file."""


class AppendableArray(Generic[T]):
    """A growing array `[time]`, in memory or in a file."""

    def __init__(self, dtype: type[T], path: Path | None = None) -> None:
        """Create an empty array in the file `path`, or in memory if `path` is None.

        Raises:
            OSError: If the file cannot be written; `extend` and `to_array` raise it too.
        """
        self._dtype = np.dtype(dtype)
        self._path = path
        self._file = path.open("wb") if path else None
        self._chunks: list[npt.NDArray[T]] = []
        self.size = 0

    def extend(self, values: npt.NDArray[T]) -> None:
        """Append `values` `[any]`."""
        values = np.ascontiguousarray(values, self._dtype)
        self.size += len(values)
        if self._file is None:
            self._chunks.append(values)
        else:
            self._file.write(values.data)

    def to_array(self) -> npt.NDArray[T]:
        """Return all elements appended so far `[time]`; memory-mapped if the array is in a file."""
        if self._file is None or self._path is None:
            return np.concatenate(self._chunks) if self._chunks else np.empty(0, self._dtype)
        self._file.flush()
        return memory_map(self._path, self._dtype)


def memory_map(path: Path, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Map a file as an array `[time]`. Writing to the array does not change the file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file size is not a multiple of the element size.
    """
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="c"))


def empty_array(size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an uninitialized array `[size]`, in memory or, if it is large, in a temporary file."""
    if size * np.dtype(dtype).itemsize <= MAX_IN_MEMORY_BYTES:
        return np.empty(size, dtype)
    with tempfile.TemporaryFile() as file:
        return np.asarray(np.memmap(file, dtype, mode="w+", shape=(size,)))


def iter_slices(size: int, chunk_size: int | None = None) -> Iterator[slice]:
    """Yield consecutive slices of `chunk_size` elements (by default `CHUNK_SIZE`) that cover `size` elements."""
    chunk_size = chunk_size or CHUNK_SIZE
    for begin in range(0, size, chunk_size):
        yield slice(begin, min(begin + chunk_size, size))


def chunked_bincount(ids: npt.NDArray[Any], minlength: int) -> Int64Array:
    """Count each of the ids 0 to `minlength` - 1, as `np.bincount` does, in constant memory."""
    counts = np.zeros(minlength, np.int64)
    for chunk in iter_slices(len(ids)):
        counts += np.bincount(ids[chunk], minlength=minlength)
    return counts


def line_positions(offsets: Int64Array, line_indices: npt.NDArray[Any]) -> Int64Array:
    """Return the positions of all elements of some lines, line after line.

    `offsets` `[lines + 1]` has the start of each line and the end of the last one.
    """
    starts = offsets[line_indices]
    lengths = offsets[line_indices + 1] - starts
    lengths_before = np.cumsum(lengths) - lengths
    return np.repeat(starts - lengths_before, lengths) + np.arange(int(lengths.sum()))


def iter_line_chunks(offsets: Int64Array, line_indices: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Split `line_indices` into chunks of lines with about `CHUNK_SIZE` elements; `offsets` as in `line_positions`."""
    for part in iter_slices(len(line_indices)):
        indices = line_indices[part]
        num_full_chunks = np.cumsum(offsets[indices + 1] - offsets[indices]) // CHUNK_SIZE
        yield from np.split(indices, np.flatnonzero(num_full_chunks[1:] > num_full_chunks[:-1]) + 1)


def permute_lines(
    array: npt.NDArray[T], offsets: Int64Array, line_order: npt.NDArray[Any], shift: int
) -> npt.NDArray[T]:
    """Reorder the lines of a text `[time]`, then roll it by `shift` positions as `np.roll` does.

    `offsets` is explained in `line_positions`. Elements after the last line stay at the end.
    """
    size = len(array)
    permuted, position = empty_array(size, array.dtype), shift % max(1, size)

    def put(values: npt.NDArray[T]) -> None:
        nonlocal position
        num_before_end = min(len(values), size - position)
        permuted[position : position + num_before_end] = values[:num_before_end]
        permuted[: len(values) - num_before_end] = values[num_before_end:]
        position = (position + len(values)) % size

    for indices in iter_line_chunks(offsets, line_order):
        put(array[line_positions(offsets, indices)])
    put(array[int(offsets[-1]) :])
    return permuted
