"""Line breaking of paragraphs, and comparison of branches."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.data.vocabulary import EOS
from engine.generation.generate import Done
from lotr_tui.session.conversation.entries import Exchange, token_index_at, token_span, wrap
from tests.support.sampling import make_token_event

WORDS = st.lists(st.text("abcdé漢字", min_size=1, max_size=12), min_size=1, max_size=30)


@given(WORDS, st.integers(2, 20))
def test_wrapped_lines_fit_and_contain_all_characters(words: list[str], width: int) -> None:
    text = " ".join(words)
    lines = wrap(text, width)
    assert all(cell_len(text[start:end]) <= width for start, end in lines)
    assert "".join(text[start:end] for start, end in lines).replace(" ", "") == "".join(words)


@given(WORDS, st.integers(12, 40))
def test_lines_are_filled_and_break_between_words(words: list[str], width: int) -> None:
    words = [word.replace("漢", "x").replace("字", "y") for word in words]
    lines = [" ".join(words)[start:end] for start, end in wrap(" ".join(words), width)]
    assert " ".join(lines).split() == words  # no word is wider than a line
    for line, following in pairwise(lines):
        assert len(f"{line} {following.split()[0]}") > width


@given(st.lists(st.text("abc", min_size=1, max_size=12), max_size=20), st.sampled_from(" \n"), st.integers(1, 20))
def test_ascii_and_other_text_break_in_the_same_places(words: list[str], divider: str, width: int) -> None:
    text = divider.join([" ".join(words), "é", " ".join(words), "b"])
    plain = text.replace("é", "e")  # ASCII text has a fast path
    assert wrap(plain, width) == wrap(text, width)


def test_newline_breaks_a_line_and_empty_text_has_one_line() -> None:
    assert wrap("ab cd\n\nef", 10) == [(0, 5), (6, 6), (7, 9)]
    assert wrap("", 10) == [(0, 0)]
    assert wrap("abcdef", 4) == [(0, 4), (4, 6)]


@given(WORDS)
def test_each_character_of_a_word_maps_to_the_word(words: list[str]) -> None:
    text = " ".join(words)
    for index, word in enumerate(words):
        start, end = token_span(words, index)
        assert text[start:end] == word
        assert {token_index_at(words, character) for character in range(start, end)} == {index}


def finished_exchange(*words: str) -> Exchange:
    exchange = Exchange("the lamp", (), 3, "greedy")
    exchange.add_events([make_token_event(index=i, text=word) for i, word in enumerate(words)])
    exchange.add_events([Done("eos", 3, len(words), 100.0)])
    return exchange


@given(st.integers(5, 12))
def test_mark_of_a_line_end_is_on_the_line_of_the_word_before_it(width: int) -> None:
    (block,) = [block for block in finished_exchange("a", "bc", EOS, "def", EOS, "g").blocks() if block.is_reply]
    lines = [block.text[start:end] for start, end in wrap(block.text, width)]
    assert [line.split()[-2:] for line in lines if "¶" in line] == [["bc", "¶"], ["def", "¶"]]
    assert lines[-1] == "g"


def test_compared_branches_are_shown_from_shortly_before_the_difference() -> None:
    exchange = finished_exchange("a", "b", "c", "d", "e", "f")
    exchange.other_branches = [("branch 2 of 3", ["a", "b", "c", "d", "X", "f"]), ("branch 3 of 3", ["Y"])]
    first, second = exchange.blocks()[-2:]
    assert first.text == "branch 2 of 3: … b c d X f"
    assert second.text == "branch 3 of 3: Y"
    marked = [b.text[s:e] for b in (first, second) for s, e, style in b.spans if style == "branch"]
    assert marked == ["X", "Y"]
