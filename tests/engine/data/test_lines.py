"""`Lines` behaves like a list of lines."""

import numpy as np
import pytest

from engine.data.lines import Line, Lines, LineStore

TEXTS, SPEAKERS = ["the green barrels", "", "seven lanterns, é", "his wet boots"], ["", "SAM", "FRODO", "SAM"]
PLAIN = [Line(text, speaker) for text, speaker in zip(TEXTS, SPEAKERS, strict=True)]


@pytest.fixture
def lines() -> Lines:
    store = LineStore()
    store.add(TEXTS[:1])
    store.add(TEXTS[1:], SPEAKERS[1:])
    return store.lines()


@pytest.mark.parametrize("part", [slice(None), slice(1, 3), slice(None, None, -1), slice(-1, 9), slice(3, 1)], ids=str)
def test_slices_equal_those_of_a_list(lines: Lines, part: slice) -> None:
    order = [3, 0, 2]
    assert list(lines[part]) == PLAIN[part]
    assert list(lines.take(np.array(order))[part]) == [PLAIN[number] for number in order][part]


def test_indices_work_like_those_of_a_list(lines: Lines) -> None:
    assert [lines[index] for index in range(-4, 4)] == PLAIN + PLAIN
    for index in (4, -5):
        with pytest.raises(IndexError):
            lines[index]


def test_sequences_of_the_same_lines_are_equal(lines: Lines) -> None:
    assert lines == PLAIN
    assert lines == tuple(PLAIN)
    assert lines == lines.take(np.arange(4))
    for other in (PLAIN[:3], [*PLAIN[:3], Line("his wet boots", "PIPPIN")], lines[::-1], "lines", 4, None):
        assert lines != other
