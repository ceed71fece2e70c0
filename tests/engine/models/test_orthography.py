"""Tests of the model of capitals and punctuation: a naive computation, and probabilities that sum to one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.models.orthography import OrthographyModel

LINES = ["The Ring, Mr. Frodo!", "the ring is mine.", "Where is the Ring?"]
BYTES = 257.0


def test_bits_equal_a_computation_by_hand() -> None:
    model = OrthographyModel(["Go on.", "go"], "words")
    # Separators: "" before go (twice), " " before on, "." and "" at the ends. Forms: Capital, lower (on), lower (go).
    new = {"": 1 / BYTES, "Capital": BYTES**-8, "lower": BYTES**-6}
    separator = (3 + 3 * new[""]) / (5 + 3)  # all separators
    at_start = (2 + separator) / (2 + 1)
    before_go = (2 + at_start) / (2 + 1)
    after_start = (2 + before_go) / (2 + 1)
    first = (2 + after_start) / (2 + 1)
    at_end = (1 + 2 * separator) / (2 + 2)
    before_end = (1 + 2 * at_end) / (2 + 2)
    after_go = (1 + before_end) / (1 + 1)
    last = (1 + after_go) / (1 + 1)
    form = (2 + 2 * new["lower"]) / (3 + 2)
    sentence = (1 + 2 * form) / (2 + 2)
    word = (1 + 2 * sentence) / (2 + 2)
    assert model.bits("go") == pytest.approx(-math.log2(first * word * last), rel=1e-12)


def test_probabilities_of_all_seen_values_and_a_new_one_sum_to_one() -> None:
    model = OrthographyModel(LINES, "words")
    contexts = (("separator",), ("separator", False, False), ("before", "ring"), ("between", "the", "ring"))
    seen = {"", " ", ", ", ". ", "!", ".", "?"}
    # What is left for the strings that were never seen is what the byte symbols give them, through all contexts.
    rest = 1 - sum(BYTES ** -(len(value) + 1) for value in seen)
    unseen = model.prob("~", contexts) / BYTES**-2
    assert sum(model.prob(value, contexts) for value in seen) + unseen * rest == pytest.approx(1, rel=1e-12)


def test_writing_that_was_seen_is_cheaper() -> None:
    model = OrthographyModel(LINES, "words")
    assert model.bits("Where is the Ring?") < model.bits("Where is the RING?") < model.bits("wHere is the rINg ;;")


def test_tokenizer_of_white_space_has_only_spaces_to_say() -> None:
    model = OrthographyModel(["A b, c."] * 100, "whitespace")
    assert model.bits("A b, c.") < 0.2


@given(st.text())
def test_any_text_has_finite_bits(text: str) -> None:
    bits = OrthographyModel(LINES, "words").bits(text)
    assert math.isfinite(bits)
    assert bits > 0
