"""The sampler chain against naive references, the preview, and the ranges of the settings."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokenizers import EOS, EOS_ID, UNK, UNK_ID
from engine.errors import InvalidInputError, RunError
from engine.generation.generate import (
    TextInProgress,
    apply_chain,
    generate,
    next_token_probs,
    sampling_probs,
    top_tokens,
)
from engine.generation.settings import SamplerSettings
from tests.support import sampling


def random_logits(seed, size=40):
    logits = np.random.default_rng(seed).normal(0, 3, size)
    return logits - np.log(np.exp(logits).sum())


def kept_ids(logits):
    return set(np.flatnonzero(logits > -np.inf).tolist())


SEEDS = range(8)
VOCABULARY = sampling.id_vocabulary(40)
PLAIN = SamplerSettings(temperature=1.0)


class TestStages:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_filters_keep_the_tokens_of_naive_filters_unchanged(self, seed):
        logits = random_logits(seed)
        ranked, ratios = sampling.naive_order(logits), np.exp(logits - logits.max())
        filtered = [(apply_chain(logits, replace(PLAIN, top_k=k)), set(ranked[:k])) for k in (1, 2, 7, 39)]
        filtered += [
            (apply_chain(logits, replace(PLAIN, top_p=p)), sampling.naive_top_p(logits, p))
            for p in (1e-6, 0.1, 0.5, 0.9, 0.999999)
        ]
        filtered += [
            (apply_chain(logits, replace(PLAIN, min_p=p)), {*np.flatnonzero(ratios >= p * (1 - 1e-12)).tolist()})
            for p in (1e-6, 0.05, 0.3, 1)
        ]
        for actual, expected in filtered:
            assert kept_ids(actual) == expected
            assert all(actual[i] == logits[i] for i in expected)

    def test_top_p_keeps_the_token_that_reaches_the_threshold(self):
        logits = np.log([0.05, 0.5, 0.15, 0.3])
        for p, kept in ((0.49, {1}), (0.51, {1, 3}), (0.79, {1, 3}), (0.81, {1, 3, 2}), (0.99, {0, 1, 2, 3})):
            assert kept_ids(apply_chain(logits, replace(PLAIN, top_p=p))) == kept
        filtered = np.array([-np.inf, math.log(0.3), math.log(0.2), math.log(0.1)])  # renormalized: 1/2, 1/3, 1/6
        for p, kept in ((0.45, {1}), (0.55, {1, 2}), (0.9, {1, 2, 3})):
            assert kept_ids(apply_chain(filtered, replace(PLAIN, top_p=p))) == kept

    def test_repetition_penalty_makes_seen_tokens_less_likely(self):
        logits = np.array([-1.0, 2.0, -0.5, 3.0, -np.inf, 0.0, 0.5])
        actual = apply_chain(logits, replace(PLAIN, repetition_penalty=2.0), frozenset([1, 2, 4, 5, 6]))
        assert actual.tolist() == [-1.0, 1.0, -1.0, 3.0, -np.inf, 0.0, 0.25]
        assert logits.tolist() == [-1.0, 2.0, -0.5, 3.0, -np.inf, 0.0, 0.5]
        assert apply_chain(logits, replace(PLAIN, repetition_penalty=2.0)).tolist() == logits.tolist()

    def test_temperatures_below_0_001_keep_only_the_likeliest_token(self):
        logits = random_logits(4)
        assert np.array_equal(apply_chain(logits, SamplerSettings(temperature=0.001)), logits / 0.001)
        for temperature in (0.0009, 0.0, 1e-300):
            greedy = apply_chain(logits, SamplerSettings(temperature=temperature))
            assert kept_ids(greedy) == {int(np.argmax(logits))}
            assert greedy.max() == 0


SAMPLERS = st.builds(
    SamplerSettings, repetition_penalty=st.just(1.0) | st.floats(0.1, 10), temperature=st.just(0.0) | st.floats(0, 2),
    top_k=st.integers(0, 12), top_p=st.just(1.0) | st.floats(0, 1, exclude_min=True),
    min_p=st.just(0.0) | st.floats(0, 1), max_tokens=st.integers(1, 8),
)  # fmt: skip


class TestChain:
    @pytest.mark.parametrize("sampler", [*sampling.CHAINS, SamplerSettings(top_k=1000)], ids=sampling.chain_id)
    @pytest.mark.parametrize("first", [True, False])
    def test_chain_equals_the_naive_chain_and_leaves_its_input(self, sampler, first):
        for seed in SEEDS:
            log_probs = random_logits(seed).astype(np.float32)
            kept = log_probs.copy()
            history = np.random.default_rng(seed).integers(0, 40, 10).tolist()
            expected = sampling.naive_chain(log_probs, sampler, history, first)
            text = sampling.text_after(log_probs, sampler, history, VOCABULARY, is_first_token=first)
            actual = sampling_probs([text])[0]
            assert actual == pytest.approx(expected, abs=1e-9)
            assert [p > 0 for p in actual] == [p > 0 for p in expected]
            assert np.array_equal(log_probs, kept)

    def test_probabilities_sum_to_one_at_very_low_temperatures(self):
        """The logits would underflow if they were not shifted."""
        even, cold = np.full(40, -math.log(40), np.float32), SamplerSettings(temperature=0.002)
        actual = sampling_probs([sampling.text_after(even, cold, [], VOCABULARY, is_first_token=True)])[0]
        assert actual[2:] == pytest.approx(np.full(38, 1 / 38))

    @given(st.lists(st.floats(1e-9, 1), min_size=3, max_size=12), st.data(), SAMPLERS, st.integers(0, 2**63 - 1))
    def test_any_text_of_any_model_has_the_probabilities_of_the_chain(self, probs, data, sampler, seed):
        model = sampling.FixedModel(probs)
        ids = data.draw(st.lists(st.integers(0, len(probs) - 1), max_size=5))
        events = list(generate(TextInProgress(model, ids, sampler, seed)))
        shorter = generate(TextInProgress(model, ids, replace(sampler, max_tokens=1), seed))
        assert sampling.without_times(shorter)[0] == sampling.without_times(events)[0]
        for event in events[:-1]:
            chain = sampling_probs([TextInProgress(model, ids, sampler, is_first_token=event.index == 0)])[0]
            assert chain.sum() == pytest.approx(1)
            assert chain[UNK_ID] == 0
            assert chain[EOS_ID] == 0 or event.index
            assert event.sampling_prob == pytest.approx(chain[event.id])
            assert event.sampling_prob > 0
            assert event.num_kept == np.count_nonzero(chain) <= (sampler.top_k or len(chain))
            assert event.text not in (UNK, EOS)
            ids.append(event.id)
        assert events[-1].tokens == len(events) - 1 <= sampler.max_tokens

    def test_the_top_tokens_of_several_texts_are_those_of_each(self):
        log_probs = np.stack([random_logits(seed) for seed in SEEDS]).astype(np.float32)
        ids, values = top_tokens(log_probs, 3)
        assert ids.tolist() == [sampling.naive_order(row)[:3] for row in log_probs]
        assert np.array_equal(values, np.take_along_axis(log_probs, ids, axis=1))

    def test_repetition_penalty_ignores_the_line_ends_of_the_prompt(self):
        log_probs = np.log(np.array([0.1, 0.3, 0.4, 0.2], np.float32))
        sampler = SamplerSettings(repetition_penalty=3)
        texts = [
            sampling.text_after(log_probs, sampler, ids, sampling.id_vocabulary(4))
            for ids in ([2], [EOS_ID, 2, EOS_ID])
        ]
        without_ends, with_ends = sampling_probs(texts)
        assert with_ends.tolist() == without_ends.tolist()
        assert next_token_probs(texts[1], 4).candidates[0].text == EOS

    @pytest.mark.parametrize("sampler", [SamplerSettings(), SamplerSettings(temperature=0), SamplerSettings(top_k=1)])
    def test_probabilities_that_are_not_numbers_are_an_error(self, sampler):
        model = sampling.FixedModel([math.nan] * 5)
        with pytest.raises(RunError, match=r"^the model's probabilities are not numbers"):
            sampling.generate_tokens(model, sampler, 0)
        with pytest.raises(RunError, match="the model's probabilities are not numbers"):
            next_token_probs(TextInProgress(model, [2], sampler), 4)


@pytest.mark.parametrize("sampler", sampling.CHAINS, ids=sampling.chain_id)
def test_preview_equals_the_chain(sampler):
    log_probs = random_logits(5, 30).astype(np.float32)
    tokenizer, history = sampling.id_vocabulary(30), [4, 9]
    actual = next_token_probs(sampling.text_after(log_probs, sampler, history, tokenizer), 12)
    after = sampling.naive_chain(log_probs, sampler, history, suppress_eos=False)
    own = np.exp(log_probs.astype(np.float64))
    assert actual.vocabulary_size == 30
    assert actual.num_kept == sum(p > 0 for p in after)
    assert actual.entropy == pytest.approx(-sum(p * math.log2(p) for p in own), rel=1e-4)
    order = sorted(range(30), key=lambda i: (-after[i], -own[i]))[:12]
    assert [each.text for each in actual.candidates] == [tokenizer.tokens[i] for i in order]
    assert [each.sampling_prob for each in actual.candidates] == pytest.approx([after[i] for i in order], abs=1e-9)
    assert [each.model_prob for each in actual.candidates] == pytest.approx([own[i] for i in order], rel=1e-5)


RANGES = {"temperature": (0, 2), "top_p": (0, 1), "min_p": (0, 1), "repetition_penalty": (0.1, 10)}
COUNTS = st.sampled_from([("top_k", -1), ("top_k", 10**9), ("max_tokens", 0), ("max_tokens", 99_999_999)])


@settings(max_examples=60)
@given(st.tuples(st.sampled_from([*RANGES]), st.floats() | st.sampled_from([0, 1, 2, 10, -0.0, 5e-324])) | COUNTS)
def test_a_setting_is_accepted_in_its_range_and_refused_outside(setting):
    name, value = setting
    low, high = RANGES.get(name, (1, 0))
    if low <= value <= high and not (name == "top_p" and value == 0):
        assert SamplerSettings(**{name: value}).describe().isprintable()
        return
    with pytest.raises(InvalidInputError) as caught:
        SamplerSettings(**{name: value})
    assert str(caught.value).startswith(f"{name.replace('_', '-')} {value} is out of range")
