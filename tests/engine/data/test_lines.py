"""Lines of a corpus behave like a list of lines, and permuted lines like arrays of NumPy."""

import numpy as np
import pytest

from engine.data.arrays import CHUNK_SIZE, permute_lines
from engine.data.corpus import Line, make_lines

TEXTS, SPEAKERS = ["the green barrels", "", "seven lanterns, é", "his wet boots"], ["", "SAM", "FRODO", "SAM"]
PLAIN = [Line(text, speaker) for text, speaker in zip(TEXTS, SPEAKERS, strict=True)]


@pytest.mark.parametrize("part", [slice(None), slice(1, 3), slice(None, None, -1), slice(-1, 9), slice(3, 1)], ids=str)
def test_slices_equal_those_of_a_list(part):
    lines, order = make_lines(TEXTS, SPEAKERS), [3, 0, 2]
    assert [*lines[part]] == PLAIN[part]
    assert [*lines.take(np.array(order))[part]] == [PLAIN[number] for number in order][part]


@pytest.mark.parametrize("shift", [0, 7, 1_500_000, -1])
def test_permuted_lines_of_a_long_text_are_rolled_like_numpy_roll(shift):
    rng = np.random.default_rng(0)
    offsets = np.concatenate(([0], np.cumsum(rng.integers(0, 500, 6000))))
    text = np.arange(int(offsets[-1]) + 1)  # the last token is after all lines
    assert len(text) > CHUNK_SIZE
    order = rng.permutation(6000)
    permuted = np.concatenate([*(text[offsets[line] : offsets[line + 1]] for line in order), text[-1:]])
    assert np.array_equal(permute_lines(text, offsets, order, shift), np.roll(permuted, shift))
