"""Appendable arrays and reordered lines, compared with NumPy."""

from pathlib import Path

import numpy as np
import pytest

from engine.data import arrays
from engine.data.arrays import AppendableArray, line_positions, permute_lines


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("chunks", [[], [[]], [[3, 1, 4]], [[1], [], [5, 9], [2, 6, 5]]], ids=str)
def test_appended_chunks_are_one_array(tmp_path: Path, on_disk: bool, chunks: list[list[int]]) -> None:
    array = AppendableArray(np.int32, tmp_path / "words" if on_disk else None)
    for chunk in chunks:
        array.extend(np.array(chunk, np.int64))
    result = array.to_array()
    assert result.dtype == np.int32
    assert result.tolist() == [number for chunk in chunks for number in chunk]
    assert array.size == len(result)


def test_line_positions_follow_the_order_of_the_lines() -> None:
    offsets = np.array([0, 2, 5, 5, 6])  # lines of 2, 3, 0 and 1 tokens
    assert line_positions(offsets, np.array([3, 0, 2, 1])).tolist() == [5, 0, 1, 2, 3, 4]
    assert line_positions(offsets, np.array([2])).tolist() == []


@pytest.mark.parametrize("shift", [0, 2, 6, 7, 9, -1])
@pytest.mark.parametrize("chunk_size", [1, 3, 1000])
def test_permuted_lines_are_rolled_like_numpy_roll(
    monkeypatch: pytest.MonkeyPatch, chunk_size: int, shift: int
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_SIZE", chunk_size)
    text, offsets, line_order = np.arange(10, 17), np.array([0, 2, 5, 6]), np.array([2, 0, 1])
    permuted = [15, 10, 11, 12, 13, 14, 16]  # the last token is after all lines
    assert permute_lines(text, offsets, line_order, shift).tolist() == np.roll(permuted, shift).tolist()
