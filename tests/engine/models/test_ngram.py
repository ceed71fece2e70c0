"""Counting models against a plain-dictionary implementation of the same definitions."""

import math
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.perplexity import evaluate
from engine.config import DataConfig
from engine.data.arrays import pieces
from engine.data.dataset import Dataset, prepare
from engine.data.vocabulary import EOS_ID, Ids, Vocabulary
from engine.errors import CorpusError
from engine.models.ngram import KneserNey, Unigram


def vocabulary_of(size: int) -> Vocabulary:
    return Vocabulary(("<unk>", "<eos>", *(f"w{i}" for i in range(size - 2))))


def ids_of(*tokens: int) -> Ids:
    return np.array(tokens, dtype=np.int32)


class Reference:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1999) with nothing but dictionaries and recursion."""

    def __init__(self, ids: list[int], size: int, order: int) -> None:
        self.size, self.order = size, order
        text = [EOS_ID, *ids]
        grams = {n: Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for n in range(1, order + 1)}
        self.counts: dict[int, dict[tuple[int, ...], int]] = {order: dict(grams[order])}
        for n in range(1, order):
            before: dict[tuple[int, ...], set[int]] = defaultdict(set)
            for gram in grams[n + 1]:
                before[gram[1:]].add(gram[0])
            self.counts[n] = {gram: len(words) for gram, words in before.items()}
        self.discounts = {n: self._discounts(counts) for n, counts in self.counts.items()}

    @staticmethod
    def _discounts(counts: dict[tuple[int, ...], int]) -> tuple[float, float, float]:
        how_many = Counter(counts.values())
        n1, n2, n3, n4 = (how_many[k] for k in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return 0.5, 1.0, 1.5
        y = n1 / (n1 + 2 * n2)
        estimates = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        return estimates if min(estimates) > 0 else (0.5, 1.0, 1.5)

    def prob(self, word: int, context: tuple[int, ...]) -> float:
        lower = self.prob(word, context[1:]) if context else 1 / self.size
        n = len(context) + 1
        following = {gram[-1]: c for gram, c in self.counts[n].items() if gram[:-1] == context}
        total = sum(following.values())
        if not total:
            return lower
        freed = sum(self._discount(n, c) for c in following.values())
        count = following.get(word, 0)
        return (count - self._discount(n, count)) / total + freed / total * lower

    def _discount(self, n: int, count: int) -> float:
        return self.discounts[n][min(count, 3) - 1] if count else 0.0

    def distribution(self, history: list[int]) -> list[float]:
        context = tuple(history[len(history) - min(len(history), self.order - 1) :])
        return [self.prob(word, context) for word in range(self.size)]


def distributions(model: KneserNey | Unigram, text: list[int]) -> list[np.ndarray]:
    """What the model says after `<eos>` and after each word of `text`."""
    log_probs, state = model.advance(model.start(), EOS_ID)
    found = [np.exp(log_probs.astype(np.float64))]
    for token in text:
        log_probs, state = model.advance(state, token)
        found.append(np.exp(log_probs.astype(np.float64)))
    return found


def assert_equals_reference(train: list[int], heard: list[int], size: int, order: int) -> None:
    model = KneserNey(ids_of(*train), vocabulary_of(size), order)
    reference = Reference(train, size, order)
    for position, probs in enumerate(distributions(model, heard)):
        expected = reference.distribution([EOS_ID, *heard[:position]])
        assert probs == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert probs.sum() == pytest.approx(1, abs=1e-5)
        assert probs.min() > 0
    scores = [reference.distribution([EOS_ID, *heard[:position]])[word] for position, word in enumerate(heard)]
    assert np.exp(model.trace(ids_of(*heard)).scores) == pytest.approx(scores, rel=1e-5, abs=1e-9)


SIZE = 6
TEXT = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=60)


@settings(max_examples=120, deadline=None)
@given(train=TEXT, heard=st.lists(st.integers(0, SIZE - 1), max_size=12), order=st.integers(1, 5))
def test_kneser_ney_is_that_of_plain_dictionaries(train: list[int], heard: list[int], order: int) -> None:
    assert_equals_reference(train, heard, SIZE, order)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(100, 300))
def test_kneser_ney_with_estimated_discounts(seed: int, length: int) -> None:
    """Long skewed texts, so that the discounts come from count-of-counts and not from the fallback."""
    chance = np.random.default_rng(seed)
    size = 25
    weights = 1 / np.arange(1, size + 1)
    train = chance.choice(size, length, p=weights / weights.sum()).tolist()
    heard = chance.choice(size, 5, p=weights / weights.sum()).tolist()
    assert_equals_reference(train, heard, size, 3)


@pytest.mark.parametrize("train", [[], [2], [2, 3], [2, 2, 3], [1, 1, 1, 1]])
def test_a_training_text_shorter_than_an_n_gram(train: list[int]) -> None:
    assert_equals_reference(train, [2, 3, 2, 2, 3, 1, 0], SIZE, 5)


def test_the_estimated_discounts_are_used() -> None:
    chance = np.random.default_rng(1)
    weights = 1 / np.arange(1, 26)
    train = chance.choice(25, 300, p=weights / weights.sum()).tolist()
    assert all(d != (0.5, 1.0, 1.5) for d in (Reference(train, 25, 3).discounts[n] for n in (2, 3)))
    assert_equals_reference(train, train[:20], 25, 3)


def test_kneser_ney_by_hand() -> None:
    """Text `<eos> a b a b <eos>`, order 2; too short for estimates, so the discounts are .5, 1, 1.5."""
    a, b = 2, 3
    model = KneserNey(ids_of(a, b, a, b, EOS_ID), vocabulary_of(4), order=2)
    # Continuation counts: a after {<eos>, b}, b after {a}, <eos> after {b}; freed (1+.5+.5)/4 = .5.
    # Unigrams: <unk> .5/4, <eos> .5/4+.125, a 1/4+.125, b .5/4+.125.
    # After a: b twice, 1 of 2 freed. After b: a once, <eos> once, .5+.5 of 2 freed.
    after_eos, after_a, after_b = distributions(model, [a, b])
    assert after_a == pytest.approx([0.0625, 0.125, 0.1875, 0.625], abs=1e-6)
    assert after_b == pytest.approx([0.0625, 0.375, 0.4375, 0.125], abs=1e-6)
    assert after_eos == pytest.approx([0.0625, 0.125, 0.5 + 0.1875, 0.125], abs=1e-6)
    # <unk> as context was never seen: the unigrams alone.
    assert distributions(model, [0])[1] == pytest.approx([0.125, 0.25, 0.375, 0.25], abs=1e-6)


def test_a_text_where_an_estimated_discount_is_negative_leaves_no_word_impossible() -> None:
    """Many n-grams seen three times and hardly any seen twice make 2 - 3 y n3/n2 negative."""
    text: list[int] = []
    for word in range(2, 26):  # unigram counts: 14 once, 1 twice, 8 three times, 1 four times
        text += [word] * (1 if word < 16 else 2 if word < 17 else 3 if word < 25 else 4)
    vocabulary = vocabulary_of(40)
    for order in (1, 2, 3):
        probs = distributions(KneserNey(ids_of(*text), vocabulary, order), text)
        assert min(p.min() for p in probs) > 0
        assert_equals_reference(text, text[:20], 40, order)


def test_a_text_where_an_estimated_discount_is_nothing_leaves_no_word_impossible() -> None:
    """Bigrams: 4 once, 1 each twice, three and four times, so that 2 - 3 y n3/n2 is 0; and 3 alone stands behind 2."""
    text = [3, 4, 2, 3, 3, 4, 4, 2, 3, 4, 3, 4, 2]
    assert Counter(Counter(pairwise([EOS_ID, *text])).values()) == {1: 4, 2: 1, 3: 1, 4: 1}
    assert_equals_reference(text, [2, 4, 0, 2, 5], SIZE, 2)


def test_states_are_values_to_branch_from() -> None:
    train = [2, 3, 4, 2, 3, 5, 2, 4, 3, 2, 3, 4, 1]
    model = KneserNey(ids_of(*train), vocabulary_of(SIZE), order=3)
    _, root = model.advance(model.start(), EOS_ID)
    first, left = model.advance(root, 2)
    other, _ = model.advance(root, 3)
    again, left_again = model.advance(root, 2)
    assert np.array_equal(first, again)
    assert left == left_again
    assert not np.array_equal(first, other)
    hash(left)  # a plain immutable value


def test_only_the_last_words_are_remembered() -> None:
    train = [2, 3, 4, 2, 3, 5, 2, 4, 3, 2, 3, 4, 1]
    model = KneserNey(ids_of(*train), vocabulary_of(SIZE), order=3)
    long, state = distributions(model, [5, 5, 4, 2, 3]), None
    state = model.start()
    for token in (2, 3):
        log_probs, state = model.advance(state, token)
    assert np.exp(log_probs) == pytest.approx(long[-1], rel=1e-6)
    assert state == (2, 3)


@given(train=TEXT)
@settings(max_examples=50, deadline=None)
def test_unigram_is_relative_frequency_with_one_token_shared(train: list[int]) -> None:
    counts = Counter(train)
    expected = [(counts[word] + 1 / SIZE) / (len(train) + 1) for word in range(SIZE)]
    model = Unigram(ids_of(*train), vocabulary_of(SIZE))
    for probs in distributions(model, [0, 3]):
        assert probs == pytest.approx(expected, rel=1e-5)
        assert probs.sum() == pytest.approx(1, abs=1e-5)


def test_unigram_perplexity_by_hand() -> None:
    model = Unigram(ids_of(2, 2, 3), vocabulary_of(4))
    expected = math.exp(-(math.log(2.25 / 4) + math.log(0.25 / 4)) / 2)
    assert evaluate(model, ids_of(2, 1)).perplexity == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def dialogues(lotr_csv: Path) -> Dataset:
    return prepare(DataConfig(corpus=str(lotr_csv), mode="stream", split_seed=1234))


def test_unigram_on_the_real_dialogues(dialogues: Dataset) -> None:
    model = Unigram(dialogues.train, dialogues.vocabulary)
    assert evaluate(model, dialogues.valid).perplexity == pytest.approx(151, abs=1)
    assert evaluate(model, dialogues.test).perplexity == pytest.approx(164, abs=1)


def test_kneser_ney_on_the_real_dialogues(dialogues: Dataset) -> None:
    model = KneserNey(dialogues.train, dialogues.vocabulary)
    assert evaluate(model, dialogues.valid).perplexity == pytest.approx(90.8, abs=0.1)
    assert evaluate(model, dialogues.test).perplexity == pytest.approx(87.0, abs=0.1)


def test_kneser_ney_on_the_real_dialogues_is_that_of_plain_dictionaries(dialogues: Dataset) -> None:
    """A stretch of the validation split scored by both, all five orders and estimated discounts in play."""
    train, heard = dialogues.train.tolist(), dialogues.valid[:12].tolist()
    reference = Reference(train, len(dialogues.vocabulary), 5)
    model = KneserNey(dialogues.train, dialogues.vocabulary)
    log_probs, state = model.advance(model.start(), EOS_ID)
    for position, word in enumerate(heard):
        context = tuple([EOS_ID, *heard[:position]][-4:])
        assert math.exp(log_probs[word]) == pytest.approx(reference.prob(word, context), rel=1e-5)
        log_probs, state = model.advance(state, word)


def test_a_whole_text_at_once_has_the_scores_of_word_after_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of known and unknown contexts; also where it is read in pieces of a few words."""
    chance = np.random.default_rng(0)
    vocabulary = Vocabulary(("<unk>", "<eos>", *(f"w{n}" for n in range(10))))
    training, text = (np.minimum(chance.zipf(1.5, size), 12).astype(np.int32) - 1 for size in (400, 300))
    for order in (1, 2, 5):
        model = KneserNey(training, vocabulary, order)
        scores, state = [], model.start()
        log_probs, state = model.advance(state, EOS_ID)
        for token in text.tolist():
            scores.append(float(log_probs[token]))
            log_probs, state = model.advance(state, token)
        assert model.trace(text).scores.tolist() == scores
        monkeypatch.setattr("engine.models.ngram.pieces", lambda size: pieces(size, 7))
        assert model.trace(text).scores.tolist() == scores
        monkeypatch.undo()
    unigram = Unigram(training, vocabulary)
    assert unigram.trace(text).scores.tolist() == [float(unigram.advance(None, 0)[0][token]) for token in text]


@pytest.mark.parametrize("length", [0, 1, 7])
def test_models_that_count_predict_from_no_vector(length: int) -> None:
    """A cache needs some; theirs have no size, one for each word all the same."""
    text = np.arange(length, dtype=np.int32) % SIZE
    for model in (Unigram(ids_of(2, 3), vocabulary_of(SIZE)), KneserNey(ids_of(2, 3), vocabulary_of(SIZE))):
        assert model.vocabulary == vocabulary_of(SIZE)
        assert model.advance(model.start(), EOS_ID)[0].dtype == np.float32
        found = model.trace(text)
        assert (found.hidden.shape, found.hidden.dtype) == ((length, 0), np.float32)
        assert (found.scores.shape, found.scores.dtype) == ((length,), np.float64)


def test_a_text_that_would_take_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.models.ngram.MOST_TOKENS", 5)
    vocabulary = Vocabulary(("<unk>", "<eos>", "a"))
    assert KneserNey(np.zeros(5, np.int32), vocabulary).order == 5
    monkeypatch.setattr("engine.models.ngram.MOST_TOKENS", 5000)
    with pytest.raises(CorpusError) as caught:
        KneserNey(np.zeros(5001, np.int32), vocabulary)
    most = "Kneser-Ney is counted on 5,000 tokens of training text at most"
    assert str(caught.value) == f"{most}, and these are 5,001; do without it"
