"""Arrays that may be larger than memory: written piece by piece, and mapped from a file instead of read."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=np.generic)

PIECE = 1_000_000
"""Elements worked on at once where an array may be larger than memory."""
LARGEST_IN_MEMORY = 2**28
"""Bytes; a larger array that is only worked with for a while is a file without a name."""


class Growing(Generic[T]):
    """An array `[time]` that is written piece by piece: in memory, or in a file."""

    def __init__(self, kind: type[T], path: Path | None = None) -> None:
        """Write to `path`; None: keep it in memory.

        Raises:
            OSError: it cannot be written; so too when something is added.
        """
        self._kind = np.dtype(kind)
        self._path = path
        self._file = path.open("wb") if path else None
        self._pieces: list[npt.NDArray[T]] = []
        self.size = 0

    def add(self, values: npt.NDArray[T]) -> None:
        """Put `values` behind what is there."""
        values = np.ascontiguousarray(values, self._kind)
        self.size += len(values)
        if self._file is None:
            self._pieces.append(values)
        else:
            self._file.write(values.data)

    def array(self) -> npt.NDArray[T]:
        """All that was added so far."""
        if self._file is None or self._path is None:
            return np.concatenate(self._pieces) if self._pieces else np.empty(0, self._kind)
        self._file.flush()
        return mapped(self._path, self._kind)


def mapped(path: Path, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """A file as an array `[time]` that is read where it is looked at. Writing to it changes no file.

    Raises:
        OSError: there is no such file.
        ValueError: its size is no whole number of elements.
    """
    if path.stat().st_size == 0:  # which cannot be mapped
        return np.empty(0, kind)
    return np.asarray(np.memmap(path, kind, mode="c"))


def room(size: int, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array `[size]` to be filled, in memory or, if that is much, in a file that goes when the array does."""
    if size * np.dtype(kind).itemsize <= LARGEST_IN_MEMORY:
        return np.empty(size, kind)
    with tempfile.TemporaryFile() as file:
        return np.asarray(np.memmap(file, kind, mode="w+", shape=(size,)))


def pieces(size: int, piece: int | None = None) -> Iterator[slice]:
    """The slices, one after the other, of an array of this size, each of `piece` elements, or of `PIECE`."""
    piece = piece or PIECE
    for begin in range(0, size, piece):
        yield slice(begin, min(begin + piece, size))


def count(ids: npt.NDArray[Any], size: int) -> npt.NDArray[np.int64]:
    """How often each of the ids 0 to `size` - 1 is there: `[size]`."""
    counts = np.zeros(size, np.int64)
    for piece in pieces(len(ids)):
        counts += np.bincount(ids[piece], minlength=size)
    return counts


def places_of(bounds: npt.NDArray[np.int64], lines: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where all that is of `lines` stands, line after line: line i from `bounds[i]` up to `bounds[i + 1]`."""
    starts = bounds[lines]
    lengths = bounds[lines + 1] - starts
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def lines_in_pieces(bounds: npt.NDArray[np.int64], lines: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """The numbers `lines` cut where about `PIECE` elements are full."""
    for part in pieces(len(lines)):
        some = lines[part]
        full = np.cumsum(bounds[some + 1] - bounds[some]) // PIECE
        yield from np.split(some, np.flatnonzero(full[1:] > full[:-1]) + 1)


def in_order(
    text: npt.NDArray[T], bounds: npt.NDArray[np.int64], lines: npt.NDArray[Any], first: int
) -> npt.NDArray[T]:
    """A text `[time]` with its lines in another order, then moved on by `first` places, its end to its beginning.

    Args:
        text: all of it; what stands behind the last line stays there.
        bounds: where each line begins, and the last one ends: `[lines + 1]`.
        lines: all their numbers, in the order wanted.
        first: as `numpy.roll` has it.
    """
    size = len(text)
    moved, place = room(size, text.dtype), first % max(1, size)

    def put(values: npt.NDArray[T]) -> None:
        nonlocal place
        until_end = min(len(values), size - place)
        moved[place : place + until_end] = values[:until_end]
        moved[: len(values) - until_end] = values[until_end:]
        place = (place + len(values)) % size

    for some in lines_in_pieces(bounds, lines):
        put(text[places_of(bounds, some)])
    put(text[int(bounds[-1]) :])
    return moved
