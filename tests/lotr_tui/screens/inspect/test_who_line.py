"""Line of a script whose speaker the lens guesses, and the evidence of its words."""

import math

import numpy as np
import pytest

from engine.analysis.speakers import explain_guess
from engine.data.scripts import Turn
from lotr_tui.screens.inspect.who import (
    MAX_CONTEXT_LINES,
    MAX_WORDS,
    LineEvidence,
    UnknownLine,
    cut_words,
    line_at,
)
from tests.support.dialogues import CAST

SCRIPT = "FRODO: hello\n\nGANDALF: where is it\nno name\nGOLLUM: we wants it"


def place(part):
    return SCRIPT.index(part)


def test_the_line_at_the_cursor_has_the_lines_of_its_scene_as_context():
    context = (Turn("GANDALF", "where is it"), Turn("SOMEONE", "no name"))
    assert line_at(SCRIPT, CAST, len(SCRIPT)) == UnknownLine("we wants it", "GOLLUM", context)
    assert line_at(SCRIPT, CAST, place("no")) == UnknownLine("no name", "", context[:1], is_complete=True)
    assert line_at(SCRIPT, CAST, place("GANDALF")) == UnknownLine("where is it", "GANDALF", (), is_complete=True)
    assert line_at(SCRIPT, CAST, 0) == UnknownLine("hello", "FRODO", (), is_complete=True)
    assert line_at(SCRIPT, CAST, place("GANDALF") - 1).speaker == "FRODO"  # on the empty line


def test_a_text_without_names_is_one_line():
    assert line_at("we wants it,\n my  precious\n", CAST, 3) == UnknownLine("we wants it, my precious")
    assert line_at("", CAST, 0) == UnknownLine()


def test_long_lines_and_scenes_are_cut():
    words = " ".join(f"w{number}" for number in range(MAX_WORDS + 5))
    assert cut_words(words).split() == words.split()[:MAX_WORDS]
    lines = [f"FRODO: line {number}" for number in range(MAX_CONTEXT_LINES + 5)]
    context = line_at("\n".join([*lines, "SAM"]), CAST, 10**6).context
    assert [turn.text for turn in context] == [f"line {number}" for number in range(5, MAX_CONTEXT_LINES + 5)]


def make_guess(evidence, prior=(0.2,) * 5):
    """Return the guess for the words "w0", "w1" and so on with the natural-log evidence of each for each speaker."""
    joint = np.log(prior) + np.cumsum([np.zeros(len(CAST)), *evidence], axis=0)
    return explain_guess(CAST, [f"w{i}" for i in range(len(evidence))], joint)


def summary_text(evidence):
    return " | ".join("".join(text for text, _ in metric) for metric in evidence.summary())


def test_the_word_with_the_highest_gain_gave_the_speaker_away():
    # GANDALF, FRODO, GOLLUM, STRANGER, SOMEONE
    guess = make_guess([[0, 0, math.log(2), 0, 0], [0, 0, math.log(8), 0, 0], [math.log(2), 0, 0, 0, 0]])
    evidence = LineEvidence(UnknownLine("w0 w1 w2", "FRODO", (Turn("FRODO", "x"),)), guess)
    assert evidence.giveaway == 1
    # The odds of Gollum are 1/4, then 2/4, 16/4, and 16/5 after the last word.
    assert summary_text(evidence) == (
        "Gollum 76 % | given away by “w1” +3.0 bits | written as Frodo: no. 3, 4.8 % | after 1 line"
    )
    np.testing.assert_allclose(evidence.word_bits, [1, 3, math.log2(16 / 5 / 4)])
    assert [each.name for each in evidence.ranking(0)] == list(CAST)
    assert evidence.ranking(1)[0].name == "GOLLUM"
    assert evidence.ranking(1)[0].prob == pytest.approx(2 / 6)


def test_a_line_without_words_or_evidence():
    assert summary_text(LineEvidence(UnknownLine(), make_guess([]))) == "type a line below | prior: frequencies"
    even = LineEvidence(UnknownLine("w0"), make_guess([[0.0] * 5]))
    assert "no word gives a speaker away" in summary_text(even)
    assert even.giveaway is None
