"""The spelling of unknown words: probabilities by hand, by enumeration, and of strange words."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.arrays import Float64Array
from engine.data.tokenizers.words import WordTokenizer
from engine.models import spelling
from engine.models.spelling import SpellingModel, spelling_model

NUM_SYMBOLS = 257
"""Bytes, and the end of a word."""
WORDS = ["frodo", "gandalf", "gollum", "bilbo", "sam", "merry", "pippin", "the", "there", "other", "mother", "gather"]


def probs(model: SpellingModel, words: list[str]) -> Float64Array:
    return np.exp(model.log_probs(words))


def test_probability_matches_a_hand_calculation() -> None:
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
    assert np.exp(model.unknown_log_probs(["b"])) == pytest.approx([0.5 * seen * after / unknown], rel=1e-5)


def test_probabilities_of_all_words_sum_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With four symbols in all, every word of up to nine of the three bytes is enumerated."""

    class FewSymbols:
        def __init__(self, characters: list[str]) -> None:
            self.size = 4

        def __len__(self) -> int:
            return self.size

    monkeypatch.setattr(spelling, "CharacterTokenizer", FewSymbols)
    letters = "\x00\x01\x02"  # bytes that become the ids 0, 2 and 3; 1 is the end of a word
    model = SpellingModel(["\x00\x01", "\x01", "\x02\x00", "\x01\x00"], order=3)
    words = ["".join(word) for length in range(10) for word in product(letters, repeat=length)]
    total = probs(model, words).sum()
    assert 0.98 < total < 1
    longer = ["".join(word) for word in product(letters, repeat=10)]
    assert total < total + probs(model, longer).sum() < 1
    known = {"\x00\x01", "\x01", "\x02\x00", "\x01\x00"}
    unknown = [word for word in words if word not in known]
    assert 0.96 < np.exp(model.unknown_log_probs(unknown)).sum() < 1


def test_known_words_and_words_like_them_are_likelier_than_random_ones() -> None:
    model = SpellingModel(WORDS)
    rng = np.random.default_rng(0)
    for word in WORDS:
        random_word = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), len(word)))
        similar = word[::-1]  # the same letters
        known_prob, similar_prob, random_prob = model.log_probs([word, similar, random_word])
        assert known_prob > similar_prob > random_prob
    assert model.log_probs(["brother"])[0] > model.log_probs(["rbtoher"])[0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=30), min_size=1, max_size=5))
def test_every_string_has_a_probability(words: list[str]) -> None:
    """Strings of any code points, lone surrogates too; a word's probability does not depend on the words beside it."""
    model = SpellingModel(WORDS)
    together = model.unknown_log_probs(words)
    assert np.isfinite(together).all()
    assert (together[[bool(word) for word in words]] < 0).all()
    assert together == pytest.approx([model.unknown_log_probs([word])[0] for word in words])


def test_the_model_depends_on_the_words_alone() -> None:
    tokenizers = [WordTokenizer(("<unk>", "<eos>", *words)) for words in (WORDS, WORDS, WORDS[:6])]
    first, second, other = (spelling_model(tokenizer).log_probs(["gothmog"])[0] for tokenizer in tokenizers)
    assert first == second != other
    assert spelling_model(tokenizers[0]) is spelling_model(tokenizers[0])
    assert SpellingModel(WORDS).log_probs(["gothmog"])[0] == first
    assert SpellingModel(reversed(WORDS)).log_probs(["gothmog"])[0] == pytest.approx(first)


def test_a_vocabulary_without_words_spells_uniformly() -> None:
    model = SpellingModel([])
    assert model.log_probs(["abc", "é"]) == pytest.approx(
        [model.log_probs(["xyz"])[0], model.log_probs(["ab"])[0]], rel=1e-6
    )
    assert model.unknown_log_probs(["abc"])[0] == pytest.approx(model.log_probs(["abc"])[0])


def test_a_word_of_300000_letters_is_scored() -> None:
    model = SpellingModel(WORDS)
    long, half = model.log_probs(["na" * 150_000, "na" * 75_000])
    assert long == pytest.approx(2 * half, rel=1e-4)
    assert math.isfinite(long)


def test_a_huge_vocabulary_is_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spelling, "MAX_TRAINING_BYTES", len("frodo") + len("gandalf") + len("gollum") + 3 * 4 + 1)
    assert SpellingModel(WORDS).log_probs(["sam"]) == SpellingModel(WORDS[:3]).log_probs(["sam"])
