"""Tests of the line that a figure starts with."""

from engine.data.tokenizers.words import WordTokenizer
from lotr_tui.learn.example_line import find_example

TOKENIZER = WordTokenizer(("<unk>", "<eos>", "der", "alte", "ring", "liegt", "im", "see"))
LINES = ["Der Ring", "Der neue Ring liegt im See", "Der alte Ring liegt im See", "Im See liegt der alte Ring"]


def test_default_is_kept_if_its_words_are_known() -> None:
    assert find_example("Der Ring", LINES, TOKENIZER, start_words=5) == "Der Ring"
    assert find_example("Der Ring", LINES, TOKENIZER) == "Der Ring"


def test_first_longer_line_whose_words_are_known_replaces_it() -> None:
    assert find_example("The ring", LINES, TOKENIZER, start_words=5) == "Der alte Ring liegt im"
    assert find_example("The ring", LINES, TOKENIZER) == "Der alte Ring liegt im See"


def test_line_that_the_chapter_can_use_is_preferred() -> None:
    assert find_example("Der Ring", LINES, TOKENIZER, lambda line: line.startswith("Im")) == LINES[3]
    assert find_example("Der Ring", LINES, TOKENIZER, lambda line: False) == "Der Ring"
    assert find_example("The ring", LINES, TOKENIZER, lambda line: False) == LINES[2]


def test_line_of_the_corpus_with_unknown_words_is_better_than_the_default() -> None:
    assert find_example("The ring", LINES[:2], TOKENIZER) == LINES[1]
    assert find_example("The ring", LINES[:1], TOKENIZER) == "The ring"
