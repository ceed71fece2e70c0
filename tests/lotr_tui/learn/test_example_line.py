"""Tests of the line that a figure starts with."""

from engine.data.tokenizers.words import WordTokenizer
from lotr_tui.learn.example_line import find_line_start

TOKENIZER = WordTokenizer(("<unk>", "<eos>", "der", "alte", "ring", "liegt", "im", "see"))
LINES = ["Der Ring", "Der neue Ring liegt im See", "Der alte Ring liegt im See"]


def test_example_is_kept_if_its_words_are_known() -> None:
    assert find_line_start("Der Ring", TOKENIZER, LINES) == "Der Ring"


def test_first_long_line_whose_words_are_known_replaces_it() -> None:
    assert find_line_start("The ring", TOKENIZER, LINES) == "Der alte Ring liegt im"


def test_example_is_kept_if_no_line_fits() -> None:
    assert find_line_start("The ring", TOKENIZER, LINES[:2]) == "The ring"
