"""A text set out for the lens: its marks, and where its lines break."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.analysis.token_scores import split
from engine.data.vocabulary import EOS_ID, Vocabulary, tokenize
from lotr_tui.screens.text.layout import Page, break_lines, clean
from tests.lotr_tui.conftest import VOCABULARY

TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(list("aBz9' .!?\n\r\t\x1b\u2028İ文́\u200d"))), max_size=80)


@given(TEXTS, st.sampled_from(["words", "spaces"]))
def test_a_clean_text_is_printable_and_has_the_same_words(text: str, tokenizer: str) -> None:
    cleaned = clean(text)
    assert cleaned.replace("\n", "").isprintable()
    assert [tokenize(line, tokenizer) for line in cleaned.splitlines()] == [  # type: ignore[arg-type]
        tokenize(line, tokenizer)
        for line in text.splitlines()  # type: ignore[arg-type]
    ]


@given(TEXTS, st.sampled_from(["words", "spaces"]), st.booleans())
def test_on_a_page_words_stand_with_their_marks_and_all_else_as_it_was(
    text: str, tokenizer: str, line_ends: bool
) -> None:
    text = clean(text)
    words = split(text, Vocabulary(VOCABULARY.words, tokenizer), line_ends=line_ends)  # type: ignore[arg-type]
    page = Page.of(words)
    for index in range(len(words)):
        there = page.text[page.starts[index] : page.ends[index]]
        if words.ids[index] == EOS_ID:
            assert there == "¶"
        else:
            assert there == (f"‹{words[index]}›" if words.unknown[index] else words[index])
    if "‹" not in text and "›" not in text and "¶" not in text:
        assert page.text.translate({ord(mark): "" for mark in "‹›¶"}) == text


@given(TEXTS, st.integers(1, 30))
def test_lines_fit_and_nothing_but_white_space_is_lost(text: str, width: int) -> None:
    page = Page.of(split(clean(text), VOCABULARY, line_ends=True))
    starts, ends = break_lines(page, width)
    lines = [page.text[start:end] for start, end in zip(starts, ends, strict=True)]
    assert "".join("".join(lines).split()) == "".join(page.text.split())
    assert (starts[1:] >= ends[:-1]).all()
    for line in lines:
        assert "\n" not in line
        assert sum(cell_len(character) for character in line) <= width or len(line) == 1


def test_lines_break_at_spaces_and_keep_their_indentation() -> None:
    page = Page.without_words("the lamp was lit\n\n   in winter   \nabcdefghijkl")
    lines = [page.text[start:end] for start, end in zip(*break_lines(page, 9), strict=True)]
    assert lines == ["the lamp", "was lit", "", "   in", "winter   ", "abcdefghi", "jkl"]


def test_wide_and_combining_characters_are_counted_in_cells() -> None:
    page = Page.without_words("文文文文 é́é́")
    lines = [page.text[start:end] for start, end in zip(*break_lines(page, 4), strict=True)]
    assert lines == ["文文", "文文", "é́é́"]
