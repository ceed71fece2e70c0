"""Types of arrays, and operations on long arrays that keep their temporary arrays small."""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

T = TypeVar("T", bound=np.generic)

CHUNK_SIZE = 1_000_000  # number of elements that are processed at once
LINE_BLOCK = 4_096  # number of lines that are processed at once


def chunked_bincount(ids: npt.NDArray[Any], minlength: int) -> Int64Array:
    """Count each of the ids 0 to `minlength` - 1, as `np.bincount` does, which converts all ids to 64 bits."""
    counts = np.zeros(minlength, np.int64)
    for start in range(0, len(ids), CHUNK_SIZE):
        counts += np.bincount(ids[start : start + CHUNK_SIZE], minlength=minlength)
    return counts


def permute_lines(array: npt.NDArray[T], offsets: Int64Array, order: npt.NDArray[Any], shift: int) -> npt.NDArray[T]:
    """Reorder the lines of a text `[time]`, which start and end at `offsets` `[lines + 1]`, then roll it by `shift`."""
    order, offsets = np.append(order, len(offsets) - 1), np.append(offsets, len(array))
    starts, lengths = offsets[order], offsets[order + 1] - offsets[order]
    permuted, end = np.empty_like(array), 0
    for first in range(0, len(order), LINE_BLOCK):
        part = slice(first, first + LINE_BLOCK)
        num_before = np.cumsum(lengths[part]) - lengths[part]
        places = np.repeat(starts[part] - num_before, lengths[part]) + np.arange(int(lengths[part].sum()))
        begin, end = end, end + len(places)
        permuted[(np.arange(begin, end) + shift) % len(array)] = array[places]
    return permuted
