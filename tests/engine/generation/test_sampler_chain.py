"""The sampler chain against one with plain lists, what holds of it whatever the settings, and its preview."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.vocabulary import EOS_ID, UNK_ID
from engine.generation.generate import apply_chain, chances, describe
from engine.generation.preview import preview
from engine.generation.processors import normalize
from engine.generation.settings import SamplerSettings
from tests.support.sampling import CHAINS, OFF, kept_by, naive_chain, named, scores_of, vocabulary_of


@pytest.mark.parametrize("sampler", CHAINS, ids=named)
@pytest.mark.parametrize("first", [True, False])
def test_the_chain_is_the_naive_one(sampler: SamplerSettings, first: bool) -> None:
    for seed in range(12):
        log_probs = scores_of(seed).astype(np.float32)
        history = np.random.default_rng(seed).integers(0, 40, 10).tolist()
        expected = naive_chain(log_probs, sampler, history, first)
        found = np.exp(apply_chain(log_probs, sampler, history, first=first))
        assert found == pytest.approx(expected, abs=1e-9)
        assert [p > 0 for p in found] == [p > 0 for p in expected]


def test_without_filters_the_unlikeliest_word_stays() -> None:
    """Also one that the sum of all others does not feel."""
    log_probs = np.log(np.array([0.1, 0.1, 0.5, 0.3, 1e-30])).astype(np.float32)
    assert kept_by(apply_chain(log_probs, OFF, [], first=True)) == {2, 3, 4}
    assert kept_by(apply_chain(log_probs, OFF, [], first=False)) == {1, 2, 3, 4}


def test_however_cold_it_is_the_words_share_all_of_the_probability() -> None:
    """Beside a text that is not: of 1/40 to the power of 500 a float knows nothing."""
    even = np.full((2, 40), -math.log(40), np.float32)
    found = chances(even, [SamplerSettings(temperature=0.002), OFF], [[], []], first=True)
    assert found[:, 2:] == pytest.approx(np.full((2, 38), 1 / 38))


def test_a_text_without_its_settings_history_or_word_is_a_mistake() -> None:
    log_probs = np.stack([scores_of(seed) for seed in (0, 1)]).astype(np.float32)
    probs = chances(log_probs, [OFF, OFF], [[], []], first=True)
    with pytest.raises(ValueError, match="shorter"):
        chances(log_probs, [OFF, OFF], [[]], first=True)
    with pytest.raises(ValueError, match="longer"):
        describe(0, np.array([3]), log_probs, probs, vocabulary_of(40).words)


def test_the_chain_leaves_what_it_was_given() -> None:
    log_probs = scores_of(1).astype(np.float32)
    kept = log_probs.copy()
    for sampler in CHAINS:
        apply_chain(log_probs, sampler, [1, 2], first=True)
    assert np.array_equal(log_probs, kept)


SAMPLERS = st.builds(
    SamplerSettings,
    temperature=st.floats(0, 2),
    top_k=st.integers(0, 60),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.1, 10),
)
WEIGHTS = st.lists(st.floats(-60, 0), min_size=3, max_size=25)
HISTORY = st.lists(st.integers(0, 2), max_size=5)


@settings(max_examples=250, deadline=None)
@given(weights=WEIGHTS, sampler=SAMPLERS, history=HISTORY, first=st.booleans())
def test_the_chain_always_leaves_a_distribution_without_unk(
    weights: list[float], sampler: SamplerSettings, history: list[int], first: bool
) -> None:
    log_probs = normalize(np.array(weights)).astype(np.float32)
    probs = np.exp(apply_chain(log_probs, sampler, history, first=first))
    assert probs.shape == (len(weights),)
    assert probs.sum() == pytest.approx(1, abs=1e-9)
    assert probs[UNK_ID] == 0
    assert probs[EOS_ID] == 0 or not first
    if sampler.top_k:
        assert np.count_nonzero(probs) <= sampler.top_k


@settings(max_examples=150, deadline=None)
@given(weights=WEIGHTS, sampler=SAMPLERS, data=st.data())
def test_the_chain_is_monotone(weights: list[float], sampler: SamplerSettings, data: st.DataObject) -> None:
    """A looser filter keeps all that a tighter one keeps, and a likelier word never gets less than another."""
    log_probs = normalize(np.array(weights)).astype(np.float32)
    probs = np.exp(apply_chain(log_probs, sampler, [], first=True))
    order = sorted(range(2, len(weights)), key=lambda i: -log_probs[i])
    assert all(probs[a] >= probs[b] - 1e-12 for a, b in pairwise(order) if log_probs[a] > log_probs[b])

    looser = data.draw(
        st.sampled_from(
            [
                replace(sampler, top_k=sampler.top_k + 1 if sampler.top_k else 0),
                replace(sampler, top_p=min(1.0, sampler.top_p * 1.5)),
                replace(sampler, min_p=sampler.min_p / 2),
            ]
        )
    )
    if looser.top_k == sampler.top_k:  # a larger top-k leaves top-p a larger whole: then only alone
        tight, loose = (kept_by(apply_chain(log_probs, s, [], first=True)) for s in (sampler, looser))
    else:
        tight, loose = (
            kept_by(apply_chain(log_probs, replace(s, top_p=1.0, min_p=0.0), [], first=True)) for s in (sampler, looser)
        )
    # Words of one and the same probability may change places; what counts is how likely they are.
    assert len(loose) >= len(tight)
    assert sorted(log_probs[list(tight)]) == sorted(sorted(log_probs[list(loose)])[-len(tight) :])


# --- the preview ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", CHAINS, ids=named)
def test_the_preview_is_the_chain(sampler: SamplerSettings) -> None:
    log_probs = scores_of(5, 30).astype(np.float32)
    vocabulary, history = vocabulary_of(30), [4, 9]
    found = preview(log_probs, sampler, history, vocabulary, 12)
    after = naive_chain(log_probs, sampler, history, first=False)
    own = np.exp(log_probs.astype(np.float64))
    assert found.vocabulary == 30
    assert found.kept == sum(p > 0 for p in after)
    assert found.entropy == pytest.approx(-sum(p * math.log2(p) for p in own), rel=1e-4)
    order = sorted(range(30), key=lambda i: (-after[i], -own[i]))[:12]
    assert [candidate.text for candidate in found.candidates] == [vocabulary.words[i] for i in order]
    assert [candidate.after for candidate in found.candidates] == pytest.approx([after[i] for i in order], abs=1e-9)
    assert [candidate.before for candidate in found.candidates] == pytest.approx([own[i] for i in order], rel=1e-5)


def test_the_preview_of_more_words_than_there_are() -> None:
    found = preview(scores_of(5, 6).astype(np.float32), OFF, [], vocabulary_of(6), 50)
    assert len(found.candidates) == 6
    assert found.candidates[-1].text == "<unk>"
    assert sum(candidate.after for candidate in found.candidates) == pytest.approx(1)
