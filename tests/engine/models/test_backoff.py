"""The parts of a Kneser-Ney probability, against plain counts of the training text and against `advance`."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokenizers.base import EOS_ID
from engine.models.ngram import KneserNey
from tests.support.models import make_tokenizer

SIZE = 6
TEXT = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=60)


def occurrences(text: list[int], ngram: tuple[int, ...]) -> int:
    """Count an n-gram in a text, position by position."""
    return sum(tuple(text[i : i + len(ngram)]) == ngram for i in range(len(text)))


def tokens_before(text: list[int], ngram: tuple[int, ...]) -> int:
    """Count the different tokens right before an n-gram."""
    return len({text[i - 1] for i in range(1, len(text)) if tuple(text[i : i + len(ngram)]) == ngram})


@settings(max_examples=120, deadline=None)
@given(train=TEXT, text=st.lists(st.integers(0, SIZE - 1), max_size=6), order=st.integers(1, 5))
def test_counts_are_those_of_the_training_text(train: list[int], text: list[int], order: int) -> None:
    model = KneserNey(np.array(train, np.int32), make_tokenizer(SIZE), order)
    padded = [EOS_ID, *train]
    state = model.start()
    for token in (EOS_ID, *text):
        log_probs, state = model.advance(state, token)
        for target in range(SIZE):
            backoff = model.explain_backoff(state, target)
            assert [level.context for level in backoff.levels] == [state[i:] for i in range(len(state) + 1)]
            for level in backoff.levels:
                is_highest = len(level.context) == order - 1
                assert level.counts_tokens_before is not is_highest
                count = occurrences if is_highest else tokens_before
                counts = [count(padded, (*level.context, each)) for each in range(SIZE)]
                assert level.count == counts[target]
                assert level.context_count == sum(counts)
                assert level.count > 0 or level.discounted_prob == 0
                assert level.context_count > 0 or level.backoff_weight == 1
            assert backoff.prob == pytest.approx(math.exp(log_probs[target]), rel=1e-5)
            assert len(backoff.parts) == len(backoff.levels) + 1


def test_parts_match_a_hand_calculation() -> None:
    """Text `<eos> a b a b <eos>`, order 2; too short for estimates, so the discounts are .5, 1, 1.5."""
    a, b = 2, 3
    model = KneserNey(np.array([a, b, a, b, EOS_ID], np.int32), make_tokenizer(4), order=2)
    backoff = model.explain_backoff((a,), b)
    after_a, anywhere = backoff.levels
    # b follows a twice in two occurrences, minus a discount of 1; the half that remains goes to the unigrams.
    assert (after_a.context_count, after_a.count, after_a.counts_tokens_before) == (2, 2, False)
    assert (after_a.discounted_prob, after_a.backoff_weight) == (0.5, 0.5)
    # The n-grams with different tokens before: a has two, b and <eos> one each; b keeps 1 - .5 of 4.
    assert (anywhere.context_count, anywhere.count, anywhere.counts_tokens_before) == (4, 1, True)
    assert (anywhere.discounted_prob, anywhere.backoff_weight) == (0.125, 0.5)
    assert backoff.parts == pytest.approx((0.5, 0.5 * 0.125, 0.5 * 0.5 * 0.25))
    assert backoff.prob == pytest.approx(0.625)
    unseen = model.explain_backoff((0,), b)
    assert (unseen.levels[0].context_count, unseen.levels[0].backoff_weight) == (0, 1.0)
    assert unseen.prob == pytest.approx(0.125 + 0.5 * 0.25)
