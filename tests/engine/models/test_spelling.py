"""What words of a closed vocabulary do not say: the letters of unknown words, capitals and punctuation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models import ngram
from engine.models.ngram import OrthographyModel, SpellingModel

NUM_SYMBOLS = 257  # bytes, and the end of a word
WORDS = ["frodo", "gandalf", "gollum", "bilbo", "sam", "merry", "pippin", "the", "there", "other", "mother", "gather"]


def probs(model, words):
    return np.exp(model.log_probs(words))


def unknown_log_probs(model, words):
    return model.log_probs(words) - model.unknown_log_prob


def test_probability_matches_a_hand_calculation():
    """Bigrams of the word `ab`: end a, a b, b end; too short to estimate discounts, so each count of 1 loses a half."""
    model = SpellingModel(["ab"], order=2)
    # Continuation counts: a, b and the end follow one symbol each: discounted (1 - .5) / 3, and half of all is uniform.
    seen, unseen = 0.5 / 3 + 0.5 / NUM_SYMBOLS, 0.5 / NUM_SYMBOLS
    # After end, a and b: one symbol, once: half for it, half for the symbol without context.
    after = 0.5 + 0.5 * seen
    assert probs(model, ["ab", "b", "ba", "a"]) == pytest.approx(
        [after**3, 0.5 * seen * after, (0.5 * seen) ** 3, after * 0.5 * seen], rel=1e-5
    )
    # A symbol that was never seen is a context of its own: the symbols without context follow.
    assert probs(model, ["c"]) == pytest.approx([0.5 * unseen * seen], rel=1e-5)
    unknown = 1 - after**3
    assert np.exp(unknown_log_probs(model, ["b"])) == pytest.approx([0.5 * seen * after / unknown], rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=30), min_size=1, max_size=5))
def test_every_string_has_a_probability(words):
    """Strings of any code points, lone surrogates too; a word's probability does not depend on the words beside it."""
    model = SpellingModel(WORDS)
    together = unknown_log_probs(model, words)
    assert np.isfinite(together).all()
    assert (together[[bool(word) for word in words]] < 0).all()
    assert together == pytest.approx([unknown_log_probs(model, [word])[0] for word in words])


def test_a_word_of_300000_letters_is_scored():
    model = SpellingModel(WORDS)
    long, half = model.log_probs(["na" * 150_000, "na" * 75_000])
    assert long == pytest.approx(2 * half, rel=1e-4)
    assert math.isfinite(long)


def test_a_huge_vocabulary_is_read_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(ngram, "MAX_SPELLING_BYTES", len("frodo") + len("gandalf") + len("gollum") + 3 * 4 + 1)
    assert SpellingModel(WORDS).log_probs(["sam"]) == SpellingModel(WORDS[:3]).log_probs(["sam"])


LINES = ["The Ring, Mr. Frodo!", "the ring is mine.", "Where is the Ring?"]
BYTES = 257.0


def test_bits_equal_a_computation_by_hand():
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


def test_probabilities_of_all_seen_values_and_a_new_one_sum_to_one():
    model = OrthographyModel(LINES, "words")
    contexts = (("separator",), ("separator", False, False), ("before", "ring"), ("between", "the", "ring"))
    seen = {"", " ", ", ", ". ", "!", ".", "?"}
    # What is left for the strings that were never seen is what the byte symbols give them, through all contexts.
    rest = 1 - sum(BYTES ** -(len(value) + 1) for value in seen)
    unseen = model.prob("~", contexts) / BYTES**-2
    assert sum(model.prob(value, contexts) for value in seen) + unseen * rest == pytest.approx(1, rel=1e-12)


def test_tokenizer_of_white_space_has_only_spaces_to_say():
    model = OrthographyModel(["A b, c."] * 100, "whitespace")
    assert model.bits("A b, c.") < 0.2


@given(st.text())
def test_any_text_has_finite_bits(text):
    bits = OrthographyModel(LINES, "words").bits(text)
    assert math.isfinite(bits)
    assert bits > 0
