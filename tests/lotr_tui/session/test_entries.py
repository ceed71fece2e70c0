"""Paragraphs and how they break into lines."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.generation.generate import Done, TokenEvent
from lotr_tui.session.entries import Exchange, word_at, word_place, wrap

WORDS = st.lists(st.text("abcdé漢字", min_size=1, max_size=12), min_size=1, max_size=30)


@given(WORDS, st.integers(2, 20))
def test_lines_fit_and_nothing_is_lost(words: list[str], width: int) -> None:
    text = " ".join(words)
    lines = wrap(text, width)
    assert all(cell_len(text[start:end]) <= width for start, end in lines)
    assert "".join(text[start:end] for start, end in lines).replace(" ", "") == "".join(words)


@given(WORDS, st.integers(12, 40))
def test_lines_are_as_long_as_they_can_be_and_break_between_words(words: list[str], width: int) -> None:
    words = [word.replace("漢", "x").replace("字", "y") for word in words]
    lines = [" ".join(words)[start:end] for start, end in wrap(" ".join(words), width)]
    assert " ".join(lines).split() == words  # none is broken, for none is wider
    for line, following in pairwise(lines):
        assert len(f"{line} {following.split()[0]}") > width


@given(st.lists(st.text("abc", min_size=1, max_size=12), max_size=20), st.sampled_from(" \n"), st.integers(1, 20))
def test_plain_text_breaks_as_any_text_does(words: list[str], divider: str, width: int) -> None:
    text = divider.join([" ".join(words), "é", " ".join(words), "b"])
    plain = text.replace("é", "e")  # the one character takes the other way
    assert wrap(plain, width) == wrap(text, width)


def test_a_line_end_breaks_a_line_and_an_empty_text_has_one() -> None:
    assert wrap("ab cd\n\nef", 10) == [(0, 5), (6, 6), (7, 9)]
    assert wrap("", 10) == [(0, 0)]
    assert wrap("abcdef", 4) == [(0, 4), (4, 6)]


@given(WORDS)
def test_a_word_is_found_at_each_of_its_characters(words: list[str]) -> None:
    text = " ".join(words)
    for index, word in enumerate(words):
        start, end = word_place(words, index)
        assert text[start:end] == word
        assert {word_at(words, character) for character in range(start, end)} == {index}


def an_exchange(*words: str) -> Exchange:
    exchange = Exchange("the lamp", (), 3, "greedy")
    exchange.add([TokenEvent(i, 5, word, -2.0, 0.1, 3, 5.0, 9, (), 0.1) for i, word in enumerate(words)])
    exchange.add([Done("eos", 3, len(words), 100.0)])
    return exchange


def test_branches_are_compared_from_where_they_differ() -> None:
    exchange = an_exchange("a", "b", "c", "d", "e", "f")
    exchange.others = [("branch 2 of 3", ["a", "b", "c", "d", "X", "f"]), ("branch 3 of 3", ["Y"])]
    first, second = exchange.blocks()[-2:]
    assert first.plain == "branch 2 of 3: … b c d X f"
    assert second.plain == "branch 3 of 3: Y"
    marked = [b.plain[s:e] for b in (first, second) for s, e, style in b.spans if style == "branch"]
    assert marked == ["X", "Y"]
