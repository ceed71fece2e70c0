"""Tests of the layout of a text: sanitizing, marks and line breaks."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers import EOS_ID, WordTokenizer, skipped_spans, split_words
from lotr_tui.screens.inspect.text_view import Page, TextView, break_lines, sanitize_text
from tests.support.analysis import painted_lines
from tests.support.app import VOCABULARY

TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(list("aBz9' .!?\n\r\t\x1b\u2028İ文́\u200d"))), max_size=80)


@given(TEXTS, st.sampled_from(["words", "whitespace"]))
def test_a_sanitized_text_is_printable_and_has_the_same_words(text, name):
    sanitized = sanitize_text(text)
    assert sanitized.replace("\n", "").isprintable()
    expected = [split_words(line, name) for line in text.splitlines()]
    assert [split_words(line, name) for line in sanitized.splitlines()] == expected


@given(TEXTS, st.sampled_from(["words", "whitespace"]), st.booleans())
def test_a_page_adds_only_marks_around_tokens(text, name, eos_per_line):
    text = sanitize_text(text)
    tokens = tokenize_with_offsets(text, WordTokenizer(VOCABULARY.tokens, name), eos_per_line=eos_per_line)
    page = Page.from_tokens(tokens)
    for index in range(len(tokens)):
        shown = page.text[page.starts[index] : page.ends[index]]
        if tokens.ids[index] == EOS_ID:
            assert shown == "¶"
        else:
            assert shown == (f"‹{tokens[index]}›" if tokens.unknown_mask[index] else tokens[index])
    skipped = [f"‹{skipped}›" for _, _, skipped in skipped_spans(text, name)]
    assert [page.text[start:end] for start, end, _ in page.specials] == skipped
    if "‹" not in text and "›" not in text and "¶" not in text:
        assert page.text.translate({ord(mark): "" for mark in "‹›¶"}) == text


@given(TEXTS, st.integers(1, 30))
def test_broken_lines_fit_the_width_and_lose_only_white_space(text, width):
    page = Page.from_tokens(tokenize_with_offsets(sanitize_text(text), VOCABULARY, eos_per_line=True))
    starts, ends = break_lines(page, width)
    lines = [page.text[start:end] for start, end in zip(starts, ends, strict=True)]
    assert "".join("".join(lines).split()) == "".join(page.text.split())
    assert (starts[1:] >= ends[:-1]).all()
    for line in lines:
        assert "\n" not in line
        assert sum(cell_len(character) for character in line) <= width or len(line) == 1


def test_lines_break_at_spaces_and_keep_their_indentation():
    page = Page.plain("the lamp was lit\n\n   in winter   \nabcdefghijkl")
    lines = [page.text[start:end] for start, end in zip(*break_lines(page, 9), strict=True)]
    assert lines == ["the lamp", "was lit", "", "   in", "winter   ", "abcdefghi", "jkl"]


async def test_a_scroll_bar_that_appears_covers_no_letter(hosted):
    async with hosted((32, 8)) as (pilot, app):
        view = TextView("", "")
        view.styles.height = 3
        await app.screen.mount(view)
        view.show(Page.plain("one two three four five sixsix " * 6, [(0, 3)]))
        await pilot.pause()
        assert view.show_vertical_scrollbar
        assert max(map(cell_len, painted_lines(view))) <= view.scrollable_content_region.width
