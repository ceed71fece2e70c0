import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import (
    MOST_SAID,
    ConfigError,
    CorpusError,
    LotrError,
    PromptError,
    RunError,
    TrainingError,
    UnusableInput,
    nearest,
    printable,
    reason_of,
)

ANY_TEXT = st.text(st.characters())  # lone surrogates and controls too


@given(ANY_TEXT)
def test_printable_is_one_line_that_no_terminal_obeys(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
    shown.encode("utf-8")


@given(ANY_TEXT)
def test_printable_changes_nothing_twice(text):
    assert printable(printable(text)) == printable(text)


def test_printable_keeps_words_and_letters():
    assert printable("  Théoden \n\t said: “no” <unk> [b]") == "Théoden said: “no” <unk> [b]"


def test_printable_shows_escape_sequences_as_harmless():
    assert "\x1b" not in printable("\x1b[2J\x1b]0;title\x07")
    assert printable("a\u202eb") == "a\ufffdb"


@given(ANY_TEXT)
def test_every_error_is_printable(text):
    assert str(LotrError(text)) == printable(text)


@pytest.mark.parametrize("size", [1_990, 2_000, 2_001, 1_000_000])
def test_of_a_very_long_error_the_beginning_and_the_end_are_said(size):
    """A configuration with a value of a megabyte filled the terminal."""
    text = f"mode={'x' * (size - 19)} is none of it"
    assert len(text) == size
    said = str(LotrError(text))
    assert len(said) <= MOST_SAID
    assert (said == text) == (size <= MOST_SAID)
    assert said.startswith("mode=xxx")
    assert said.endswith("xxx is none of it")


@pytest.mark.parametrize("kind", [UnusableInput, CorpusError, ConfigError, PromptError, RunError])
def test_unusable_input_exits_with_2(kind):
    assert kind("x").exit_code == 2
    assert isinstance(kind("x"), LotrError)


def test_failures_while_running_exit_with_1():
    assert LotrError("x").exit_code == 1
    assert TrainingError("x").exit_code == 1


def test_why_something_broke():
    assert reason_of(TrainingError("no\x1b room")) == "no\ufffd room"
    assert reason_of(ValueError("a\x07\nb")) == "ValueError: a\ufffd b"


@pytest.mark.parametrize(
    ("name", "ending"),
    [("defualt", "; did you mean default?"), ("tinny", "; did you mean tiny?"), ("zzz", "."), ("", ".")],
)
def test_nearest_names_the_closest_or_ends_the_sentence(name, ending):
    assert nearest(name, ["default", "tiny", "notebook"]) == ending
