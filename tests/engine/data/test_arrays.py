"""Arrays written piece by piece, and lines put in another order, held to what NumPy makes of them at once."""

from pathlib import Path

import numpy as np
import pytest

from engine.data import arrays
from engine.data.arrays import Growing, in_order, places_of


@pytest.mark.parametrize("in_a_file", [False, True])
@pytest.mark.parametrize("pieces", [[], [[]], [[3, 1, 4]], [[1], [], [5, 9], [2, 6, 5]]], ids=str)
def test_what_was_added_in_pieces_is_there_in_one(tmp_path: Path, in_a_file: bool, pieces: list[list[int]]) -> None:
    growing = Growing(np.int32, tmp_path / "words" if in_a_file else None)
    for piece in pieces:
        growing.add(np.array(piece, np.int64))
    whole = growing.array()
    assert whole.dtype == np.int32
    assert whole.tolist() == [number for piece in pieces for number in piece]
    assert growing.size == len(whole)


def test_places_by_hand() -> None:
    bounds = np.array([0, 2, 5, 5, 6])  # lines of 2, 3, 0 and 1 words
    assert places_of(bounds, np.array([3, 0, 2, 1])).tolist() == [5, 0, 1, 2, 3, 4]
    assert places_of(bounds, np.array([2])).tolist() == []


@pytest.mark.parametrize("first", [0, 2, 6, 7, 9, -1])
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_a_text_in_another_order_is_rolled_as_numpy_rolls_it(
    monkeypatch: pytest.MonkeyPatch, piece: int, first: int
) -> None:
    monkeypatch.setattr(arrays, "PIECE", piece)
    text, bounds, lines = np.arange(10, 17), np.array([0, 2, 5, 6]), np.array([2, 0, 1])
    put = [15, 10, 11, 12, 13, 14, 16]  # the last one stands behind all lines
    assert in_order(text, bounds, lines, first).tolist() == np.roll(put, first).tolist()
