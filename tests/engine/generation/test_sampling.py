"""The sampler chain against naive references, the preview, the noise of a seed, and the ranges of the settings."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokenizers.base import EOS, EOS_ID, UNK, UNK_ID
from engine.errors import InvalidInputError
from engine.generation.generate import generate
from engine.generation.preview import next_token_probs
from engine.generation.processors import (
    apply_min_p,
    apply_repetition_penalty,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    log_softmax,
)
from engine.generation.prompt import prefill
from engine.generation.sampling import (
    process_log_probs,
    sample_tokens,
    sampling_entropy_bits,
    sampling_probs,
    top_tokens,
)
from engine.generation.settings import SamplerSettings
from tests.support.sampling import (
    CHAINS,
    NO_FILTERS,
    FixedModel,
    chain_id,
    generate_tokens,
    id_vocabulary,
    naive_chain,
    naive_order,
    naive_top_p,
    without_times,
    zipf_probs,
)


def random_logits(seed, size=40):
    return log_softmax(np.random.default_rng(seed).normal(0, 3, size))


def kept_ids(logits):
    return set(np.flatnonzero(logits > -np.inf).tolist())


SEEDS = range(8)


class TestProcessors:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_filters_keep_the_tokens_of_naive_filters_unchanged(self, seed):
        logits = random_logits(seed)
        ranked, ratios = naive_order(logits), np.exp(logits - logits.max())
        filtered = [(apply_top_k(logits, k), set(ranked[:k])) for k in (1, 2, 7, 39, 40, 1000)]
        filtered += [(apply_top_p(logits, p), naive_top_p(logits, p)) for p in (1e-6, 0.1, 0.5, 0.9, 0.999999)]
        filtered += [
            (apply_min_p(logits, p), {*np.flatnonzero(ratios >= p * (1 - 1e-12)).tolist()})
            for p in (1e-6, 0.05, 0.3, 1)
        ]
        for actual, expected in filtered:
            assert kept_ids(actual) == expected
            assert all(actual[i] == logits[i] for i in expected)

    def test_top_p_keeps_the_token_that_reaches_the_threshold(self):
        logits = np.log([0.05, 0.5, 0.15, 0.3])
        for p, kept in ((0.49, {1}), (0.51, {1, 3}), (0.79, {1, 3}), (0.81, {1, 3, 2}), (0.99, {0, 1, 2, 3})):
            assert kept_ids(apply_top_p(logits, p)) == kept
        filtered = np.array([-np.inf, math.log(0.3), math.log(0.2), math.log(0.1)])  # renormalized: 1/2, 1/3, 1/6
        for p, kept in ((0.45, {1}), (0.55, {1, 2}), (0.9, {1, 2, 3})):
            assert kept_ids(apply_top_p(filtered, p)) == kept

    def test_repetition_penalty_makes_seen_tokens_less_likely(self):
        logits = np.array([-1.0, 2.0, -0.5, 3.0, -np.inf, 0.0, 0.5])
        actual = apply_repetition_penalty(logits, [1, 2, 2, 4, 1, 5, 6], 2.0)
        assert actual.tolist() == [-1.0, 1.0, -1.0, 3.0, -np.inf, 0.0, 0.25]
        assert logits.tolist() == [-1.0, 2.0, -0.5, 3.0, -np.inf, 0.0, 0.5]
        assert apply_repetition_penalty(logits, [], 2.0).tolist() == logits.tolist()

    def test_temperatures_below_0_001_keep_only_the_likeliest_token(self):
        logits = random_logits(4)
        assert np.array_equal(apply_temperature(logits, 0.001), logits / 0.001)
        for temperature in (0.0009, 0.0, 1e-300):
            greedy = apply_temperature(logits, temperature)
            assert kept_ids(greedy) == {int(np.argmax(logits))}
            assert greedy.max() == 0


SAMPLERS = st.builds(
    SamplerSettings, repetition_penalty=st.just(1.0) | st.floats(0.1, 10), temperature=st.just(0.0) | st.floats(0, 2),
    top_k=st.integers(0, 12), top_p=st.just(1.0) | st.floats(0, 1, exclude_min=True),
    min_p=st.just(0.0) | st.floats(0, 1), max_tokens=st.integers(1, 8),
)  # fmt: skip


class TestChain:
    @pytest.mark.parametrize("sampler", CHAINS, ids=chain_id)
    @pytest.mark.parametrize("first", [True, False])
    def test_chain_equals_the_naive_chain_and_leaves_its_input(self, sampler, first):
        for seed in SEEDS:
            log_probs = random_logits(seed).astype(np.float32)
            kept = log_probs.copy()
            history = np.random.default_rng(seed).integers(0, 40, 10).tolist()
            expected = naive_chain(log_probs, sampler, history, first)
            logits = process_log_probs(log_probs, sampler, history, suppress_eos=first)
            actual = np.exp(logits)
            assert actual == pytest.approx(expected, abs=1e-9)
            assert [p > 0 for p in actual] == [p > 0 for p in expected]
            entropy = -sum(p * math.log2(p) for p in expected if p)
            assert sampling_entropy_bits(logits) == pytest.approx(entropy, abs=1e-9)
            assert np.array_equal(log_probs, kept)

    def test_probabilities_sum_to_one_at_very_low_temperatures(self):
        """The logits of the cold text would underflow if they were not shifted; a second text has temperature 1."""
        even = np.full((2, 40), -math.log(40), np.float32)
        actual = sampling_probs(even, [SamplerSettings(temperature=0.002), NO_FILTERS], [[], []], suppress_eos=True)
        assert actual[:, 2:] == pytest.approx(np.full((2, 38), 1 / 38))

    @given(st.lists(st.floats(1e-9, 1), min_size=3, max_size=12), st.data(), SAMPLERS, st.integers(0, 2**63 - 1))
    def test_any_text_of_any_model_has_the_probabilities_of_the_chain(self, probs, data, sampler, seed):
        model = FixedModel(probs)
        text = data.draw(st.lists(st.integers(0, len(probs) - 1), max_size=5))
        log_probs = prefill(model, text).log_probs
        events = list(generate(model, text, sampler, seed))
        shorter = generate(model, text, replace(sampler, max_tokens=1), seed)
        assert without_times(shorter)[0] == without_times(events)[0]
        for event in events[:-1]:
            chain = np.exp(process_log_probs(log_probs, sampler, text, suppress_eos=event.index == 0))
            assert chain.sum() == pytest.approx(1)
            assert chain[UNK_ID] == 0
            assert chain[EOS_ID] == 0 or event.index
            assert event.sampling_prob == pytest.approx(chain[event.id])
            assert event.sampling_prob > 0
            assert event.num_kept == np.count_nonzero(chain) <= (sampler.top_k or len(chain))
            assert event.text not in (UNK, EOS)
            text.append(event.id)
        assert events[-1].tokens == len(events) - 1 <= sampler.max_tokens

    def test_sampling_several_texts_equals_sampling_each_alone(self):
        number = len(CHAINS)
        log_probs = np.stack([random_logits(seed) for seed in range(number)]).astype(np.float32)
        histories = [[seed, seed + 1, 2 * seed] for seed in range(number)]
        probs = sampling_probs(log_probs, CHAINS, histories, suppress_eos=False)
        noise = np.random.default_rng(0).standard_exponential(probs.shape)
        sampled = sample_tokens(probs, noise.copy())
        for i in range(number):
            alone = sampling_probs(log_probs[i : i + 1], CHAINS[i : i + 1], histories[i : i + 1], suppress_eos=False)
            assert np.array_equal(alone[0], probs[i])
            assert sampled[i] == max(range(40), key=lambda word: alone[0, word] / noise[i, word])
        with pytest.raises(ValueError, match="shorter"):
            sampling_probs(log_probs, CHAINS[:-1], histories[:-1], suppress_eos=False)
        ids, values = top_tokens(log_probs, 3)
        assert ids.tolist() == [naive_order(row)[:3] for row in log_probs]
        assert np.array_equal(values, np.take_along_axis(log_probs, ids, axis=1))


class TestPreview:
    @pytest.mark.parametrize("sampler", CHAINS, ids=chain_id)
    def test_preview_equals_the_chain(self, sampler):
        log_probs = random_logits(5, 30).astype(np.float32)
        tokenizer, history = id_vocabulary(30), [4, 9]
        actual = next_token_probs(log_probs, sampler, history, tokenizer, 12)
        after = naive_chain(log_probs, sampler, history, suppress_eos=False)
        own = np.exp(log_probs.astype(np.float64))
        assert actual.vocabulary_size == 30
        assert actual.num_kept == sum(p > 0 for p in after)
        assert actual.entropy == pytest.approx(-sum(p * math.log2(p) for p in own), rel=1e-4)
        order = sorted(range(30), key=lambda i: (-after[i], -own[i]))[:12]
        assert [each.text for each in actual.candidates] == [tokenizer.tokens[i] for i in order]
        assert [each.sampling_prob for each in actual.candidates] == pytest.approx([after[i] for i in order], abs=1e-9)
        assert [each.model_prob for each in actual.candidates] == pytest.approx([own[i] for i in order], rel=1e-5)


def zipf_text(seed, number=600, **values):
    sampler = SamplerSettings(max_tokens=number, **values)
    return [token.id for token in generate_tokens(FixedModel(zipf_probs(300)), sampler, seed)[0]]


class TestNoise:
    def test_a_seed_determines_the_text_and_other_seeds_give_other_texts(self):
        texts = [zipf_text(seed, 40, temperature=1.0) for seed in range(20)]
        assert zipf_text(5, 40, temperature=1.0) == texts[5]
        assert len(set(map(tuple, texts))) == 20

    def test_greedy_sampling_never_takes_a_removed_token(self):
        """Float32 noise is exactly 0 once in about 10 million samples, and that token, even `<unk>`, would win.

        The seed is chosen so that float32 noise has a zero at the 143rd token.
        """
        size = 4000
        probs = [0.3, 1e-9, 0.4, *([0.3 / size] * (size - 3))]
        words, done = generate_tokens(FixedModel(probs), SamplerSettings(temperature=0, max_tokens=200), 2)
        assert Counter(word.id for word in words) == {2: 200}
        assert done.reason == "length"

    @pytest.mark.parametrize(
        "sampler", [NO_FILTERS, SamplerSettings(temperature=0.6), SamplerSettings(temperature=1.5, top_p=0.8)]
    )
    def test_samples_follow_the_distribution(self, sampler):
        """Compares 8,000 tokens of one text with the naive chain by chi-square and total variation."""
        weights = [0.2, 1e-9, 0.3, 0.2, 0.12, 0.08, 0.05, 0.03, 0.015, 0.005]
        number = 8_000
        words, _ = generate_tokens(FixedModel(weights), replace(sampler, max_tokens=number), 7)
        expected = naive_chain(np.log(np.array(weights) / sum(weights)), sampler, [], False)
        counts = Counter(word.id for word in words)
        assert all(expected[i] > 0 for i in counts)
        assert sum(abs(counts[i] / number - p) for i, p in enumerate(expected)) / 2 < 0.02
        cells = [(counts[i], p * number) for i, p in enumerate(expected) if p * number > 5]
        chi_square = sum((actual - mean) ** 2 / mean for actual, mean in cells)
        assert chi_square < 40  # at most 9 degrees of freedom: exceeded once in 100,000

    def test_noise_of_a_seed_does_not_depend_on_the_filters(self):
        """Removed tokens are masked, so two texts agree wherever both can take the token."""
        whole, filtered = (zipf_text(3, 400, temperature=1, top_p=p) for p in (1.0, 0.9))
        pairs = [(a, b) for a, b in zip(whole, filtered, strict=True) if a in set(filtered)]
        assert len(pairs) > 200
        assert all(a == b for a, b in pairs)


RANGES = {"temperature": (0, 2), "top_p": (0, 1), "min_p": (0, 1), "repetition_penalty": (0.1, 10)}
COUNTS = st.sampled_from([("top_k", -1), ("top_k", 10**9), ("max_tokens", 0), ("max_tokens", 99_999_999)])


class TestSettings:
    @settings(max_examples=60)
    @given(st.tuples(st.sampled_from([*RANGES]), st.floats() | st.sampled_from([0, 1, 2, 10, -0.0, 5e-324])) | COUNTS)
    def test_a_setting_is_accepted_in_its_range_and_refused_outside(self, setting):
        name, value = setting
        low, high = RANGES.get(name, (1, 0))
        if low <= value <= high and not (name == "top_p" and value == 0):
            assert SamplerSettings(**{name: value}).describe().isprintable()
            return
        with pytest.raises(InvalidInputError) as caught:
            SamplerSettings(**{name: value})
        assert str(caught.value).isprintable()
        assert str(caught.value).startswith(f"{name.replace('_', '-')} {value} is out of range")
