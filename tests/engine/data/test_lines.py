"""Lines are a sequence like any other."""

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
def test_a_slice_is_that_of_a_list(lines: Lines, part: slice) -> None:
    order = [3, 0, 2]
    assert list(lines[part]) == PLAIN[part]
    assert list(lines.take(np.array(order))[part]) == [PLAIN[number] for number in order][part]


def test_places_are_those_of_a_list(lines: Lines) -> None:
    assert [lines[place] for place in range(-4, 4)] == PLAIN + PLAIN
    for place in (4, -5):
        with pytest.raises(IndexError):
            lines[place]


def test_what_has_the_same_lines_is_equal_and_nothing_else_is(lines: Lines) -> None:
    assert lines == PLAIN
    assert lines == tuple(PLAIN)
    assert lines == lines.take(np.arange(4))
    for other in (PLAIN[:3], [*PLAIN[:3], Line("his wet boots", "PIPPIN")], lines[::-1], "lines", 4, None):
        assert lines != other
