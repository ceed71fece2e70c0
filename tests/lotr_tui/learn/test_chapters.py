"""Table of chapters: names, numbers, lengths, and links to code that exists."""

import re

import pytest

from engine.errors import InvalidInputError
from lotr_tui.learn.chapters import CHAPTERS, Chapter, find_chapter
from lotr_tui.learn.source_code import read_source

MAX_TEXT_LENGTH, MAX_TASK_LENGTH = 400, 170
"""Characters that leave room for the figure in a terminal of 80 x 24."""
MAX_SOURCE_LINES = 150

chapters = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: str(chapter.name))


def count_sentences(text: str) -> int:
    """Return the number of sentences; a colon or a decimal point ends none."""
    return len(re.findall(r"[.!?](?=\s+[\"A-Z0-9<]|\s*$)", text))


def test_names_are_unique_and_no_numbers() -> None:
    names = [chapter.name for chapter in CHAPTERS]
    assert len(set(names)) == len(names) == 8
    assert all(name.isascii() and name.isalpha() and name.islower() for name in names)


def test_chapter_is_found_by_name_or_number() -> None:
    assert [find_chapter(chapter.name) for chapter in CHAPTERS] == [*range(8)]
    assert [find_chapter(str(number)) for number in range(1, 9)] == [*range(8)]


@pytest.mark.parametrize("name", ["0", "9", "-1", "1.0", "", "\u00b2", "chapter", pytest.param("1" * 5000, id="long")])
def test_unknown_chapter_is_refused_with_the_names(name: str) -> None:
    with pytest.raises(InvalidInputError, match="The chapters are 1 to 8, or tokens, counting, perplexity"):
        find_chapter(name)


def test_misspelled_chapter_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidInputError, match="there is no chapter 'perplexty'; did you mean perplexity"):
        find_chapter("perplexty")


@chapters
def test_text_has_three_to_six_sentences_and_fits(chapter: Chapter) -> None:
    assert 3 <= count_sentences(chapter.text) <= 6, count_sentences(chapter.text)
    assert len(chapter.text) <= MAX_TEXT_LENGTH, len(chapter.text)
    assert sum(map(len, chapter.task)) <= MAX_TASK_LENGTH, sum(map(len, chapter.task))
    assert 1 <= count_sentences(chapter.conclusion) <= 2


@chapters
def test_task_has_one_sentence_for_each_part(chapter: Chapter) -> None:
    assert chapter.task
    assert all(count_sentences(part) == 1 and part.endswith(".") for part in chapter.task)
    assert chapter.hint.endswith((".", "?"))


@chapters
def test_source_link_leads_to_a_definition_of_readable_length(chapter: Chapter) -> None:
    excerpt = read_source(chapter.source)
    name = chapter.source.symbol.rpartition(".")[2]
    assert re.search(rf"^\s*(async )?(def|class) {name}\b", excerpt.text, re.MULTILINE)
    assert len(excerpt.text.splitlines()) <= MAX_SOURCE_LINES
