"""Tests of the place of a cursor in a line."""

import pytest

from engine.data.tokenizers.words import WordTokenizer
from lotr_tui.learn.line_place import LinePlace, find_place

TOKENIZER = WordTokenizer(("<unk>", "<eos>", "the", "ring"))


@pytest.mark.parametrize(
    ("cursor", "place"),
    [
        (0, LinePlace((), 2, "The")),
        (2, LinePlace((), 2, "The")),
        (3, LinePlace((2,), 0, "old")),  # on the space after a word is the place of the next one
        (4, LinePlace((2,), 0, "old")),
        (9, LinePlace((2, 0), 3, "ring")),
        (13, LinePlace((2, 0, 3), None, "")),
    ],
)
def test_place_is_the_word_on_the_cursor_or_the_next_one(cursor: int, place: LinePlace) -> None:
    assert find_place(TOKENIZER, "The old, ring!", cursor) == place


def test_empty_line_has_one_place() -> None:
    assert find_place(TOKENIZER, "", 0) == LinePlace((), None, "")
