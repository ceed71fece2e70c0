"""The whole sampler chain compared with a naive one, its properties for any settings, and the preview."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokenizers.base import EOS_ID, UNK_ID
from engine.generation.preview import next_token_probs
from engine.generation.processors import log_softmax
from engine.generation.sampling import process_log_probs, sampling_probs
from engine.generation.settings import SamplerSettings
from tests.support.sampling import CHAINS, NO_FILTERS, chain_id, id_vocabulary, kept_ids, naive_chain, random_logits


@pytest.mark.parametrize("sampler", CHAINS, ids=chain_id)
@pytest.mark.parametrize("first", [True, False])
def test_chain_equals_the_naive_chain(sampler: SamplerSettings, first: bool) -> None:
    for seed in range(12):
        log_probs = random_logits(seed).astype(np.float32)
        history = np.random.default_rng(seed).integers(0, 40, 10).tolist()
        expected = naive_chain(log_probs, sampler, history, first)
        actual = np.exp(process_log_probs(log_probs, sampler, history, suppress_eos=first))
        assert actual == pytest.approx(expected, abs=1e-9)
        assert [p > 0 for p in actual] == [p > 0 for p in expected]


def test_without_filters_the_unlikeliest_token_is_kept() -> None:
    """This includes a probability that is too small to change the sum of the others."""
    log_probs = np.log(np.array([0.1, 0.1, 0.5, 0.3, 1e-30])).astype(np.float32)
    assert kept_ids(process_log_probs(log_probs, NO_FILTERS, [], suppress_eos=True)) == {2, 3, 4}
    assert kept_ids(process_log_probs(log_probs, NO_FILTERS, [], suppress_eos=False)) == {1, 2, 3, 4}


def test_probabilities_sum_to_one_at_very_low_temperatures() -> None:
    """The logits of the cold text would underflow if they were not shifted; a second text has temperature 1."""
    even = np.full((2, 40), -math.log(40), np.float32)
    actual = sampling_probs(even, [SamplerSettings(temperature=0.002), NO_FILTERS], [[], []], suppress_eos=True)
    assert actual[:, 2:] == pytest.approx(np.full((2, 38), 1 / 38))


def test_missing_settings_or_histories_are_errors() -> None:
    log_probs = np.stack([random_logits(seed) for seed in (0, 1)]).astype(np.float32)
    with pytest.raises(ValueError, match="shorter"):
        sampling_probs(log_probs, [NO_FILTERS, NO_FILTERS], [[]], suppress_eos=True)


def test_chain_does_not_change_its_input() -> None:
    log_probs = random_logits(1).astype(np.float32)
    kept = log_probs.copy()
    for sampler in CHAINS:
        process_log_probs(log_probs, sampler, [1, 2], suppress_eos=True)
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
def test_chain_always_gives_a_distribution_without_unk(
    weights: list[float], sampler: SamplerSettings, history: list[int], first: bool
) -> None:
    log_probs = log_softmax(np.array(weights)).astype(np.float32)
    probs = np.exp(process_log_probs(log_probs, sampler, history, suppress_eos=first))
    assert probs.shape == (len(weights),)
    assert probs.sum() == pytest.approx(1, abs=1e-9)
    assert probs[UNK_ID] == 0
    assert probs[EOS_ID] == 0 or not first
    if sampler.top_k:
        assert np.count_nonzero(probs) <= sampler.top_k


@settings(max_examples=150, deadline=None)
@given(weights=WEIGHTS, sampler=SAMPLERS, data=st.data())
def test_looser_filters_keep_more_and_the_order_of_probabilities_is_kept(
    weights: list[float], sampler: SamplerSettings, data: st.DataObject
) -> None:
    """A looser filter keeps all tokens of a tighter one, and the chain never reverses the order of two tokens."""
    log_probs = log_softmax(np.array(weights)).astype(np.float32)
    probs = np.exp(process_log_probs(log_probs, sampler, [], suppress_eos=True))
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
    if looser.top_k == sampler.top_k:  # a larger top-k also changes the input of top-p, so it is compared alone
        tight, loose = (kept_ids(process_log_probs(log_probs, s, [], suppress_eos=True)) for s in (sampler, looser))
    else:
        tight, loose = (
            kept_ids(process_log_probs(log_probs, replace(s, top_p=1.0, min_p=0.0), [], suppress_eos=True))
            for s in (sampler, looser)
        )
    # Tokens of equal probability may be exchanged, so the probabilities are compared and not the ids.
    assert len(loose) >= len(tight)
    assert sorted(log_probs[list(tight)]) == sorted(sorted(log_probs[list(loose)])[-len(tight) :])


# --- the preview ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", CHAINS, ids=chain_id)
def test_preview_equals_the_chain(sampler: SamplerSettings) -> None:
    log_probs = random_logits(5, 30).astype(np.float32)
    tokenizer, history = id_vocabulary(30), [4, 9]
    actual = next_token_probs(log_probs, sampler, history, tokenizer, 12)
    after = naive_chain(log_probs, sampler, history, suppress_eos=False)
    own = np.exp(log_probs.astype(np.float64))
    assert actual.vocabulary_size == 30
    assert actual.num_kept == sum(p > 0 for p in after)
    assert actual.entropy == pytest.approx(-sum(p * math.log2(p) for p in own), rel=1e-4)
    order = sorted(range(30), key=lambda i: (-after[i], -own[i]))[:12]
    assert [candidate.text for candidate in actual.candidates] == [tokenizer.tokens[i] for i in order]
    assert [candidate.sampling_prob for candidate in actual.candidates] == pytest.approx(
        [after[i] for i in order], abs=1e-9
    )
    assert [candidate.model_prob for candidate in actual.candidates] == pytest.approx([own[i] for i in order], rel=1e-5)


def test_preview_has_at_most_the_whole_vocabulary() -> None:
    actual = next_token_probs(random_logits(5, 6).astype(np.float32), NO_FILTERS, [], id_vocabulary(6), 50)
    assert len(actual.candidates) == 6
    assert actual.candidates[-1].text == "<unk>"
    assert sum(candidate.sampling_prob for candidate in actual.candidates) == pytest.approx(1)
