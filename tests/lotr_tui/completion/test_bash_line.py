"""Words of a line in bash: quotes, backslashes, and the part that readline replaces."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotr_tui.completion.bash_line import parse_line, quote_text, replaced_start

WORD_BREAKS = " \t\n\"'@><=;|&(:"
WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6), max_size=5)


@given(WORDS)
def test_quoted_words_are_read_as_a_shell_reads_them(words):
    line = parse_line(" ".join(["lotr-tui", *map(shlex.quote, words)]) + " ")
    assert line.words == ("lotr-tui", *words)
    assert line.current.value == ""


@given(st.text(st.sampled_from("ab \\\"'=:"), max_size=12))
def test_any_line_is_read_without_an_error_and_words_agree_with_shlex(text):
    line = parse_line(text)
    try:
        expected = shlex.split(text)
    except ValueError:  # an open quotation mark, or a backslash at the end
        return
    assert [*line.words, *([line.current.value] if text[line.current.start :] else [])] == expected


@given(st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), min_size=1, max_size=10))
@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_a_quoted_text_has_its_value(quote, text):
    typed = parse_line("x " + quote + quote_text(text, quote, at_start=True) + quote)
    assert typed.current.value == text
    assert typed.current.quote == ""


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("lotr-tui attach run", "run"),
        ("lotr-tui attach ", ""),
        ("lotr-tui train --set optimizer=ad", "ad"),
        ('lotr-tui train --set "optimizer=ad', "optimizer=ad"),
        ("lotr-tui eval gguf:dir/f", "dir/f"),
        ("lotr-tui eval a\\:b", "a\\:b"),
        ("lotr-tui eval 'a b'c", "'a b'c"),
    ],
)
def test_readline_replaces_the_text_behind_the_last_break(text, replaced):
    assert text[replaced_start(parse_line(text), WORD_BREAKS) :] == replaced


@pytest.mark.parametrize(
    ("text", "has_expansion"),
    [("x $HOME/a", True), ('x "$HOME/a', True), ("x '$HOME/a", False), ("x $HOME b", False), ("x `pwd`", True)],
)
def test_variables_are_left_to_the_shell(text, has_expansion):
    assert parse_line(text).has_expansion is has_expansion
