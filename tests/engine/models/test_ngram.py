"""Count-based models against plain dictionaries and counts; letters, capitals and marks that words do not say."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.evaluation import evaluate
from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers import EOS_ID
from engine.errors import CorpusError
from engine.models import ngram
from engine.models.base import forward_sequence
from engine.models.ngram import KneserNey, OrthographyModel, SpellingModel, Unigram
from tests.support.models import distributions, make_tokenizer
from tests.support.references import ReferenceKneserNey


def to_ids(*tokens):
    return np.array(tokens, dtype=np.int32)


def assert_matches_reference(train, text, size, order):
    model = KneserNey(to_ids(*train), make_tokenizer(size), order)
    reference = ReferenceKneserNey(train, size, order)
    for position, probs in enumerate(distributions(model, text)):
        expected = reference.distribution([EOS_ID, *text[:position]])
        assert probs == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert probs.sum() == pytest.approx(1, abs=1e-5)
        assert probs.min() > 0
    expected_probs = [reference.distribution([EOS_ID, *text[:position]])[token] for position, token in enumerate(text)]
    assert np.exp(forward_sequence(model, to_ids(*text)).log_probs) == pytest.approx(expected_probs, rel=1e-5, abs=1e-9)


SIZE = 6
TEXT = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(train=TEXT | st.just([]), text=st.lists(st.integers(0, SIZE - 1), max_size=12), order=st.integers(1, 5))
def test_kneser_ney_matches_the_reference(train, text, order):
    assert_matches_reference(train, text, SIZE, order)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(100, 300))
def test_kneser_ney_with_estimated_discounts_matches_the_reference(seed, length):
    """In long skewed texts, the discounts are estimated from counts of counts."""
    rng = np.random.default_rng(seed)
    size = 25
    weights = 1 / np.arange(1, size + 1)
    train = rng.choice(size, length, p=weights / weights.sum()).tolist()
    text = rng.choice(size, 5, p=weights / weights.sum()).tolist()
    assert_matches_reference(train, text, size, 3)


def test_kneser_ney_matches_a_hand_calculation():
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


def test_negative_discount_estimates_leave_no_token_impossible():
    """Many n-grams with count 3 and few with count 2 make 2 - 3 y n3/n2 negative."""
    text = []
    for word in range(2, 26):  # unigram counts: 14 once, 1 twice, 8 three times, 1 four times
        text += [word] * (1 if word < 16 else 2 if word < 17 else 3 if word < 25 else 4)
    for order in (1, 2, 3):
        assert_matches_reference(text, text[:20], 40, order)


@given(train=TEXT)
@settings(max_examples=50, deadline=None)
def test_unigram_is_relative_frequency_with_one_token_spread(train):
    counts = Counter(train)
    expected = [(counts[token] + 1 / SIZE) / (len(train) + 1) for token in range(SIZE)]
    model = Unigram(to_ids(*train), make_tokenizer(SIZE))
    for probs in distributions(model, [0, 3]):
        assert probs == pytest.approx(expected, rel=1e-5)
    scores = forward_sequence(model, to_ids(*train)).log_probs
    assert np.exp(scores) == pytest.approx([expected[token] for token in train], rel=1e-5)


def test_kneser_ney_on_the_real_dialogues_matches_the_reference(lotr_csv):
    """The start of the validation split uses all five orders and estimated discounts."""
    dialogues = load_dataset(DataConfig(corpus=str(lotr_csv), mode="stream", split_seed=1234))
    train, text = dialogues.train.tolist(), dialogues.valid[:12].tolist()
    reference = ReferenceKneserNey(train, len(dialogues.tokenizer), 5)
    model = KneserNey(dialogues.train, dialogues.tokenizer)
    log_probs, state = model.advance(model.start(), EOS_ID)
    for position, token in enumerate(text):
        context = tuple([EOS_ID, *text[:position]][-4:])
        assert math.exp(log_probs[token]) == pytest.approx(reference.prob(token, context), rel=1e-5)
        log_probs, state = model.advance(state, token)
    assert evaluate(model, dialogues.valid).perplexity == pytest.approx(90.8, abs=0.1)


def test_scores_of_a_long_text_do_not_depend_on_the_chunks_it_is_read_in(monkeypatch):
    rng = np.random.default_rng(0)
    training, text = (np.minimum(rng.zipf(1.5, size), 12).astype(np.int32) - 1 for size in (400, 300))
    for order in (1, 2, 5):
        model = KneserNey(training, make_tokenizer(12), order)
        log_probs, state = model.advance(model.start(), EOS_ID)
        scores = []
        for token in text.tolist():
            scores.append(float(log_probs[token]))
            log_probs, state = model.advance(state, token)
        assert forward_sequence(model, text).log_probs.tolist() == scores
        with monkeypatch.context() as context:
            context.setattr("engine.models.ngram.CHUNK_SIZE", 7)
            assert forward_sequence(model, text).log_probs.tolist() == scores


def test_too_long_training_texts_are_rejected(monkeypatch):
    monkeypatch.setattr("engine.models.ngram.MAX_KNESER_NEY_TOKENS", 5000)
    assert KneserNey(np.zeros(5000, np.int32), make_tokenizer(3)).order == 5
    with pytest.raises(CorpusError) as caught:
        KneserNey(np.zeros(5001, np.int32), make_tokenizer(3))
    expected = "the training text has 5,001 tokens; Kneser-Ney counts at most 5,000, so leave it out"
    assert str(caught.value) == expected


def occurrences(text, ngram):
    """Count an n-gram in a text, position by position."""
    return sum(tuple(text[i : i + len(ngram)]) == ngram for i in range(len(text)))


def tokens_before(text, ngram):
    return len({text[i - 1] for i in range(1, len(text)) if tuple(text[i : i + len(ngram)]) == ngram})


@settings(max_examples=60, deadline=None)
@given(train=TEXT, text=st.lists(st.integers(0, SIZE - 1), max_size=6), order=st.integers(1, 5))
def test_counts_are_those_of_the_training_text(train, text, order):
    model = KneserNey(np.array(train, np.int32), make_tokenizer(SIZE), order)
    padded = [EOS_ID, *train]
    state = model.start()
    for token in (EOS_ID, *text):
        log_probs, state = model.advance(state, token)
        for target in range(SIZE):
            *levels, uniform = model.explain_backoff(state, target)
            assert [level.context for level in levels] == [state[i:] for i in range(len(state) + 1)]
            for level in levels:
                is_highest = len(level.context) == order - 1
                count = occurrences if is_highest else tokens_before
                counts = [count(padded, (*level.context, each)) for each in range(SIZE)]
                assert level.count == counts[target]
                assert level.context_count == sum(counts)
                assert level.count > 0 or level.discounted_prob == 0
                assert level.context_count > 0 or level.backoff_weight == 1
            parts = [level.part for level in (*levels, uniform)]
            assert sum(parts) == pytest.approx(math.exp(log_probs[target]), rel=1e-5)


def test_parts_match_a_hand_calculation():
    """The text and the counts of `test_kneser_ney_matches_a_hand_calculation`."""
    a, b = 2, 3
    model = KneserNey(to_ids(a, b, a, b, EOS_ID), make_tokenizer(4), order=2)
    after_a, anywhere, uniform = model.explain_backoff((a,), b)
    # b follows a twice in two occurrences, minus a discount of 1; the half that remains goes to the unigrams.
    assert (after_a.context_count, after_a.count) == (2, 2)
    assert (after_a.discounted_prob, after_a.backoff_weight) == (0.5, 0.5)
    # The n-grams with different tokens before: a has two, b and <eos> one each; b keeps 1 - .5 of 4.
    assert (anywhere.context_count, anywhere.count) == (4, 1)
    assert (anywhere.discounted_prob, anywhere.backoff_weight) == (0.125, 0.5)
    parts = [level.part for level in (after_a, anywhere, uniform)]
    assert parts == pytest.approx([0.5, 0.5 * 0.125, 0.5 * 0.5 * 0.25])
    unseen = model.explain_backoff((0,), b)
    assert (unseen[0].context_count, unseen[0].backoff_weight) == (0, 1.0)
    assert sum(level.part for level in unseen) == pytest.approx(0.125 + 0.5 * 0.25)


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
