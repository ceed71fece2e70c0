"""Count-based models against an implementation with plain dictionaries."""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.perplexity import evaluate
from engine.config import DataConfig
from engine.data.arrays import iter_slices
from engine.data.dataset import Dataset, load_dataset
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import CorpusError
from engine.models.ngram import KneserNey, Unigram
from tests.support.kneser_ney import ReferenceKneserNey
from tests.support.models import distributions, make_tokenizer


def to_ids(*tokens: int) -> TokenIds:
    return np.array(tokens, dtype=np.int32)


def assert_matches_reference(train: list[int], text: list[int], size: int, order: int) -> None:
    model = KneserNey(to_ids(*train), make_tokenizer(size), order)
    reference = ReferenceKneserNey(train, size, order)
    for position, probs in enumerate(distributions(model, text)):
        expected = reference.distribution([EOS_ID, *text[:position]])
        assert probs == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert probs.sum() == pytest.approx(1, abs=1e-5)
        assert probs.min() > 0
    expected_probs = [reference.distribution([EOS_ID, *text[:position]])[token] for position, token in enumerate(text)]
    assert np.exp(model.forward_sequence(to_ids(*text)).log_probs) == pytest.approx(expected_probs, rel=1e-5, abs=1e-9)


SIZE = 6
TEXT = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=60)


@settings(max_examples=120, deadline=None)
@given(train=TEXT, text=st.lists(st.integers(0, SIZE - 1), max_size=12), order=st.integers(1, 5))
def test_kneser_ney_matches_the_reference(train: list[int], text: list[int], order: int) -> None:
    assert_matches_reference(train, text, SIZE, order)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(100, 300))
def test_kneser_ney_with_estimated_discounts_matches_the_reference(seed: int, length: int) -> None:
    """In long skewed texts, the discounts are estimated from counts of counts."""
    rng = np.random.default_rng(seed)
    size = 25
    weights = 1 / np.arange(1, size + 1)
    train = rng.choice(size, length, p=weights / weights.sum()).tolist()
    text = rng.choice(size, 5, p=weights / weights.sum()).tolist()
    assert_matches_reference(train, text, size, 3)


@pytest.mark.parametrize("train", [[], [2], [2, 3], [2, 2, 3], [1, 1, 1, 1]])
def test_a_training_text_shorter_than_the_order_is_valid(train: list[int]) -> None:
    assert_matches_reference(train, [2, 3, 2, 2, 3, 1, 0], SIZE, 5)


def test_estimated_discounts_are_used() -> None:
    rng = np.random.default_rng(1)
    weights = 1 / np.arange(1, 26)
    train = rng.choice(25, 300, p=weights / weights.sum()).tolist()
    assert all(d != (0.5, 1.0, 1.5) for d in (ReferenceKneserNey(train, 25, 3).discounts[n] for n in (2, 3)))
    assert_matches_reference(train, train[:20], 25, 3)


def test_kneser_ney_matches_a_hand_calculation() -> None:
    """Text `<eos> a b a b <eos>`, order 2; too short for estimates, so the discounts are .5, 1, 1.5."""
    a, b = 2, 3
    model = KneserNey(to_ids(a, b, a, b, EOS_ID), make_tokenizer(4), order=2)
    # Continuation counts: a after {<eos>, b}, b after {a}, <eos> after {b}; discounted (1+.5+.5)/4 = .5.
    # Unigrams: <unk> .5/4, <eos> .5/4+.125, a 1/4+.125, b .5/4+.125.
    # After a: b twice, 1 of 2 discounted. After b: a once, <eos> once, .5+.5 of 2 discounted.
    after_eos, after_a, after_b = distributions(model, [a, b])
    assert after_a == pytest.approx([0.0625, 0.125, 0.1875, 0.625], abs=1e-6)
    assert after_b == pytest.approx([0.0625, 0.375, 0.4375, 0.125], abs=1e-6)
    assert after_eos == pytest.approx([0.0625, 0.125, 0.5 + 0.1875, 0.125], abs=1e-6)
    # <unk> as context was never seen: the unigrams alone.
    assert distributions(model, [0])[1] == pytest.approx([0.125, 0.25, 0.375, 0.25], abs=1e-6)


def test_negative_discount_estimates_leave_no_token_impossible() -> None:
    """Many n-grams with count 3 and few with count 2 make 2 - 3 y n3/n2 negative."""
    text: list[int] = []
    for word in range(2, 26):  # unigram counts: 14 once, 1 twice, 8 three times, 1 four times
        text += [word] * (1 if word < 16 else 2 if word < 17 else 3 if word < 25 else 4)
    tokenizer = make_tokenizer(40)
    for order in (1, 2, 3):
        probs = distributions(KneserNey(to_ids(*text), tokenizer, order), text)
        assert min(p.min() for p in probs) > 0
        assert_matches_reference(text, text[:20], 40, order)


def test_zero_discount_estimates_leave_no_token_impossible() -> None:
    """4 bigrams occur once, and one each twice, 3 and 4 times, so 2 - 3 y n3/n2 is 0; only 3 follows 2."""
    text = [3, 4, 2, 3, 3, 4, 4, 2, 3, 4, 3, 4, 2]
    assert Counter(Counter(pairwise([EOS_ID, *text])).values()) == {1: 4, 2: 1, 3: 1, 4: 1}
    assert_matches_reference(text, [2, 4, 0, 2, 5], SIZE, 2)


def test_states_are_immutable_branch_points() -> None:
    train = [2, 3, 4, 2, 3, 5, 2, 4, 3, 2, 3, 4, 1]
    model = KneserNey(to_ids(*train), make_tokenizer(SIZE), order=3)
    _, root = model.advance(model.start(), EOS_ID)
    first, left = model.advance(root, 2)
    other, _ = model.advance(root, 3)
    again, left_again = model.advance(root, 2)
    assert np.array_equal(first, again)
    assert left == left_again
    assert not np.array_equal(first, other)
    hash(left)  # immutable values are hashable


def test_the_state_is_the_last_order_minus_one_tokens() -> None:
    train = [2, 3, 4, 2, 3, 5, 2, 4, 3, 2, 3, 4, 1]
    model = KneserNey(to_ids(*train), make_tokenizer(SIZE), order=3)
    after_long_text = distributions(model, [5, 5, 4, 2, 3])[-1]
    state = model.start()
    for token in (2, 3):
        log_probs, state = model.advance(state, token)
    assert np.exp(log_probs) == pytest.approx(after_long_text, rel=1e-6)
    assert state == (2, 3)


@given(train=TEXT)
@settings(max_examples=50, deadline=None)
def test_unigram_is_relative_frequency_with_one_token_spread(train: list[int]) -> None:
    counts = Counter(train)
    expected = [(counts[token] + 1 / SIZE) / (len(train) + 1) for token in range(SIZE)]
    model = Unigram(to_ids(*train), make_tokenizer(SIZE))
    for probs in distributions(model, [0, 3]):
        assert probs == pytest.approx(expected, rel=1e-5)
        assert probs.sum() == pytest.approx(1, abs=1e-5)


def test_unigram_perplexity_matches_a_hand_calculation() -> None:
    model = Unigram(to_ids(2, 2, 3), make_tokenizer(4))
    expected = math.exp(-(math.log(2.25 / 4) + math.log(0.25 / 4)) / 2)
    assert evaluate(model, to_ids(2, 1)).perplexity == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def dialogues(lotr_csv: Path) -> Dataset:
    return load_dataset(DataConfig(corpus=str(lotr_csv), mode="stream", split_seed=1234))


def test_unigram_perplexity_on_the_real_dialogues(dialogues: Dataset) -> None:
    model = Unigram(dialogues.train, dialogues.tokenizer)
    assert evaluate(model, dialogues.valid).perplexity == pytest.approx(151, abs=1)
    assert evaluate(model, dialogues.test).perplexity == pytest.approx(164, abs=1)


def test_kneser_ney_perplexity_on_the_real_dialogues(dialogues: Dataset) -> None:
    model = KneserNey(dialogues.train, dialogues.tokenizer)
    assert evaluate(model, dialogues.valid).perplexity == pytest.approx(90.8, abs=0.1)
    assert evaluate(model, dialogues.test).perplexity == pytest.approx(87.0, abs=0.1)


def test_kneser_ney_on_the_real_dialogues_matches_the_reference(dialogues: Dataset) -> None:
    """The start of the validation split uses all five orders and estimated discounts."""
    train, text = dialogues.train.tolist(), dialogues.valid[:12].tolist()
    reference = ReferenceKneserNey(train, len(dialogues.tokenizer), 5)
    model = KneserNey(dialogues.train, dialogues.tokenizer)
    log_probs, state = model.advance(model.start(), EOS_ID)
    for position, token in enumerate(text):
        context = tuple([EOS_ID, *text[:position]][-4:])
        assert math.exp(log_probs[token]) == pytest.approx(reference.prob(token, context), rel=1e-5)
        log_probs, state = model.advance(state, token)


def test_scores_of_a_text_match_token_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text has seen and unseen contexts, and is also read in chunks of 7 tokens."""
    rng = np.random.default_rng(0)
    tokenizer = WordTokenizer(("<unk>", "<eos>", *(f"w{n}" for n in range(10))))
    training, text = (np.minimum(rng.zipf(1.5, size), 12).astype(np.int32) - 1 for size in (400, 300))
    for order in (1, 2, 5):
        model = KneserNey(training, tokenizer, order)
        scores, state = [], model.start()
        log_probs, state = model.advance(state, EOS_ID)
        for token in text.tolist():
            scores.append(float(log_probs[token]))
            log_probs, state = model.advance(state, token)
        assert model.forward_sequence(text).log_probs.tolist() == scores
        monkeypatch.setattr("engine.models.ngram.iter_slices", lambda size: iter_slices(size, 7))
        assert model.forward_sequence(text).log_probs.tolist() == scores
        monkeypatch.undo()
    unigram = Unigram(training, tokenizer)
    assert unigram.forward_sequence(text).log_probs.tolist() == [
        float(unigram.advance(None, 0)[0][token]) for token in text
    ]


@pytest.mark.parametrize("length", [0, 1, 7])
def test_hidden_vectors_are_empty(length: int) -> None:
    """The hidden states have one row per token, because a cache needs one vector per token."""
    text = np.arange(length, dtype=np.int32) % SIZE
    for model in (Unigram(to_ids(2, 3), make_tokenizer(SIZE)), KneserNey(to_ids(2, 3), make_tokenizer(SIZE))):
        assert model.tokenizer == make_tokenizer(SIZE)
        assert model.advance(model.start(), EOS_ID)[0].dtype == np.float32
        output = model.forward_sequence(text)
        assert (output.hidden_states.shape, output.hidden_states.dtype) == ((length, 0), np.float32)
        assert (output.log_probs.shape, output.log_probs.dtype) == ((length,), np.float64)


def test_too_long_training_texts_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.models.ngram.MAX_KNESER_NEY_TOKENS", 5)
    tokenizer = WordTokenizer(("<unk>", "<eos>", "a"))
    assert KneserNey(np.zeros(5, np.int32), tokenizer).order == 5
    monkeypatch.setattr("engine.models.ngram.MAX_KNESER_NEY_TOKENS", 5000)
    with pytest.raises(CorpusError) as caught:
        KneserNey(np.zeros(5001, np.int32), tokenizer)
    expected = "the training text has 5,001 tokens; Kneser-Ney counts at most 5,000, so leave it out"
    assert str(caught.value) == expected
