"""The stream of token events of one or many texts: inputs, ends, figures, states, noise, time and forced tokens."""

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers import EOS_ID
from engine.generation.generate import (
    NUM_NOISE_TOKENS,
    Done,
    TextInProgress,
    TokenEvent,
    force_token,
    generate,
    generate_batch,
    prefill,
    sampling_probs,
)
from engine.generation.settings import SamplerSettings
from engine.models.base import predict_one_by_one, score_sequence
from engine.models.combinations import CacheSettings, NeuralCache
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.directory import resolve_run
from engine.runs.loading import load_model
from tests.support import sampling
from tests.support.models import random_lstm
from tests.support.sampling import (
    CHAINS,
    NO_FILTERS,
    FixedModel,
    generate_tokens,
    history_dependent_probs,
    id_vocabulary,
    naive_chain,
    without_times,
    zipf_probs,
)

SETTINGS = SamplerSettings(max_tokens=20, repetition_penalty=1.3)


def make_model(eos_bias=-4.0):
    """Create a small random model; a low `eos_bias` makes its texts longer."""
    model = random_lstm(ModelConfig(embedding_size=12, hidden_size=12), id_vocabulary(40), scale=0.6)
    model.weights["output.bias"][EOS_ID] = eos_bias
    return model


MODEL = make_model()


def text_of(model=MODEL, ids=(5, 6), settings=SETTINGS, seed=3, **options):
    return TextInProgress(model, ids, settings, seed, **options)


def ids_of(events):
    return [event.id for event in events if isinstance(event, TokenEvent)]


class TestInputs:
    def test_model_reads_the_whole_prompt_and_then_each_sampled_token(self):
        model = FixedModel(history_dependent_probs)
        words, done = generate_tokens(model, SamplerSettings(temperature=0.8, max_tokens=6), 3, ids=(5, 0, 7, 7))
        text = [EOS_ID, 5, 0, 7, 7, *(word.id for word in words)]
        expected = [(tuple(text[:i]), token) for i, token in enumerate(text)]
        assert model.calls == expected[: len(model.calls)]
        assert len(model.calls) >= len(text) - 1
        assert done.tokens == len(words)

    def test_prefill_returns_the_distribution_after_the_prompt(self):
        model = FixedModel(history_dependent_probs)
        log_probs, state, *_ = prefill(model, (4, 9))
        assert state == (EOS_ID, 4, 9)
        assert np.array_equal(log_probs, model.advance((EOS_ID, 4), 9)[0])
        assert np.array_equal(prefill(model, ()).log_probs, model.advance((), EOS_ID)[0])
        parts = prefill(MODEL, [6, 7], prefill(MODEL, [5]))
        assert np.array_equal(prefill(MODEL, [5, 6, 7]).log_probs, parts.log_probs)
        assert prefill(MODEL, [], parts) is parts

    def test_a_kept_state_can_be_continued_again_and_each_token_comes_with_the_state_after_it(self):
        kept, ids = prefill(MODEL, [5, 6]), [5, 6]
        expected = list(generate(text_of()))
        for _ in range(2):
            assert without_times(generate(text_of(state=kept))) == without_times(expected)
        for event in expected[:-1]:
            ids.append(event.id)
            assert np.array_equal(event.state.log_probs, prefill(MODEL, ids).log_probs)
        assert len(ids) > 10


class TestEnd:
    def test_text_ends_at_eos_without_an_event_for_it(self):
        def eos_after_three(history):
            return [1e-9, 1, 1e-9, 1e-9] if len(history) == 5 else [1e-9, 1e-9, 1, 1]

        words, done = generate_tokens(FixedModel(eos_after_three), SamplerSettings(temperature=1, max_tokens=50), 1)
        assert EOS_ID not in ids_of(words)
        assert (len(words), done.reason, done.tokens) == (3, "eos", 3)

    def test_given_tokens_end_a_text_and_are_neither_first_nor_penalized(self):
        model, ends = FixedModel([0.1, 0.1, 0.1, 0.35, 0.35]), frozenset([3, 4])
        settings = SamplerSettings(temperature=1.0, max_tokens=50, repetition_penalty=5.0)
        for seed in range(20):
            *words, done = generate(text_of(model, [3, 4], settings, seed, end_ids=ends))
            assert set(ids_of(words)) <= {1, 2}
            assert len(words) >= 1
            assert done.reason == "eos"
        probs = sampling_probs([text_of(model, [3, 4], settings, end_ids=ends, is_first_token=False)])[0]
        assert probs[3] == pytest.approx(0.35 / 0.9)

    def test_eos_is_never_the_first_token_and_unk_is_never_sampled(self):
        probs = [0.5, 0.4, 0.05, 0.05]
        for seed in range(100):
            words, done = generate_tokens(FixedModel(probs), SamplerSettings(temperature=1.0, max_tokens=5), seed)
            assert 1 <= len(words) <= 5
            assert set(ids_of(words)) <= {2, 3}
            assert done.reason == ("length" if len(words) == 5 else "eos")
        # Greedy sampling also takes the likeliest allowed token first, and then ends.
        words, done = generate_tokens(FixedModel(probs), SamplerSettings(temperature=0), 0)
        assert (len(words), done.reason) == (1, "eos")

    @pytest.mark.parametrize("first", [True, False])
    def test_a_text_can_end_at_once_unless_its_first_token_comes_next(self, first):
        assert len(list(generate(text_of(make_model(eos_bias=50.0), is_first_token=first)))) == 1 + first

    @pytest.mark.parametrize("length", [1, 2, 17])
    def test_text_ends_at_the_maximum_length(self, length):
        words, done = generate_tokens(FixedModel(zipf_probs(20)), SamplerSettings(max_tokens=length), 12)
        assert [word.index for word in words] == list(range(length))
        assert (done.reason, done.tokens, done.seed) == ("length", length, 12)
        assert done.tokens_per_second > 0

    @pytest.mark.parametrize("number", [0, 4])
    def test_a_cancelled_text_ends_before_the_next_token(self, number):
        asked = iter([False] * number)
        *words, done = generate(text_of(FixedModel(zipf_probs(20)), [2]), lambda: next(asked, True))
        assert (len(words), done.reason, done.tokens) == (number, "cancelled", number)


class TestFigures:
    @pytest.mark.parametrize("settings", CHAINS, ids=sampling.chain_id)
    def test_token_events_have_the_figures_of_the_naive_chain(self, settings):
        model = FixedModel(history_dependent_probs)
        words, _ = generate_tokens(model, replace(settings, max_tokens=12), 21, ids=(3, 4))
        text = [EOS_ID, 3, 4]
        for index, word in enumerate(words):
            probs = history_dependent_probs(tuple(text))
            probs = np.log(probs / probs.sum()).astype(np.float32).astype(np.float64)
            own = np.exp(probs)
            chain = naive_chain(probs, settings, text[1:], suppress_eos=index == 0)
            assert word.index == index
            assert word.text == model.tokenizer.tokens[word.id]
            assert word.logprob == pytest.approx(probs[word.id], abs=1e-5)
            assert word.rank == 1 + sum(p > own[word.id] for p in own)
            assert word.entropy == pytest.approx(-sum(p * math.log2(p) for p in own), rel=1e-4)
            assert word.sampling_prob == pytest.approx(chain[word.id], abs=1e-6)
            assert word.num_kept == sum(p > 0 for p in chain)
            best = sorted(range(len(own)), key=lambda i: -own[i])[:8]
            assert [name for name, _ in word.top_tokens] == [model.tokenizer.tokens[i] for i in best]
            assert [p for _, p in word.top_tokens] == pytest.approx([own[i] for i in best], rel=1e-5)
            assert settings.temperature or word.id == int(np.argmax(chain))
            text.append(word.id)

    def test_top_tokens_of_a_tiny_vocabulary_are_all_tokens(self):
        words, _ = generate_tokens(FixedModel([0.1, 1e-9, 0.6, 0.3]), SamplerSettings(max_tokens=3), 0)
        assert [name for name, _ in words[0].top_tokens] == ["w2", "w3", "<unk>", "<eos>"]

    @pytest.mark.parametrize("first", [True, False])
    def test_a_forced_token_has_the_figures_of_its_position(self, first):
        kept = prefill(MODEL, [5, 6])
        chain = sampling_probs([text_of(is_first_token=first)])[0]
        for token in (9, EOS_ID):  # a first <eos> could not be sampled
            text = text_of(is_first_token=first)
            event = force_token(text, token)
            assert (event.index, event.id, event.text) == (0, token, MODEL.tokenizer.tokens[token])
            assert event.sampling_prob == pytest.approx(chain[token])
            assert event.num_kept == np.count_nonzero(chain)
            dropped = event.without_distribution()
            assert (dropped, dropped.log_probs, dropped.state) == (event, None, None)
            assert event.rank == sorted(kept.log_probs, reverse=True).index(kept.log_probs[token]) + 1
            assert np.array_equal(text.state.log_probs, prefill(MODEL, [5, 6, token]).log_probs)
            assert (text.ids, text.is_first_token) == ([5, 6, token], token == EOS_ID)
        assert (chain[EOS_ID] == 0) == first


def zipf_text(seed, number=600, **values):
    return ids_of(generate_tokens(FixedModel(zipf_probs(300)), SamplerSettings(max_tokens=number, **values), seed)[0])


class TestNoise:
    def test_a_seed_determines_the_text_and_other_seeds_give_other_texts(self):
        texts = [zipf_text(seed, 40, temperature=1.0) for seed in range(20)]
        assert zipf_text(5, 40, temperature=1.0) == texts[5]
        assert len(set(map(tuple, texts))) == 20

    def test_noise_depends_on_the_lines_before(self):
        contexts = ((), (2,), (3,), (2, 3), (3,) * NUM_NOISE_TOKENS, (4, *(3,) * NUM_NOISE_TOKENS))
        noise = [text_of(seed=7, noise_context=context).rng.random() for context in contexts]
        assert noise[4] == noise[5]
        assert len(set(noise)) == 5
        expected = [np.random.default_rng(key).random() for key in ((7,), (7, 2337085335))]
        assert noise[:2] == expected, "a seed would no longer give the replies of earlier versions"

    def test_greedy_sampling_never_takes_a_removed_token(self):
        """Float32 noise is exactly 0 once in about 10 million samples, and that token, even `<unk>`, would win.

        The seed is chosen so that float32 noise has a zero at the 143rd token.
        """
        size = 4000
        probs = [0.3, 1e-9, 0.4, *([0.3 / size] * (size - 3))]
        words, done = generate_tokens(FixedModel(probs), SamplerSettings(temperature=0, max_tokens=200), 2)
        assert ids_of(words) == [2] * 200
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
        counts = Counter(ids_of(words))
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


class Clock:
    """A clock that advances by one second per call; tests can advance it further."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.mark.parametrize(("reason", "words"), [("length", 7), ("cancelled", 4), ("eos", 1)])
def test_time_between_events_is_not_counted(monkeypatch, reason, words):
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    model, events = make_model(eos_bias=50.0 if reason == "eos" else -50.0), []
    text = text_of(model, settings=SamplerSettings(max_tokens=7))
    for event in generate(text, lambda: reason == "cancelled" and len(events) == words):
        events.append(event)
        clock.now += 100  # a slow consumer
    assert events.pop() == Done(reason, 3, words, 1.0)
    assert [(event.index, event.seconds) for event in events] == [(index, 1.0) for index in range(words)]


LSTM = random_lstm(ModelConfig(embedding_size=20, hidden_size=20, punctuation=True), id_vocabulary(83), scale=1.7)
MODELS = {"an LSTM": LSTM, "a cache": NeuralCache(LSTM, CacheSettings(window=4))}


class TestBatch:
    @example_settings(max_examples=25, derandomize=True)  # one sample in a million can differ by rounding
    @given(
        st.lists(
            st.builds(
                lambda chain, length, seed: (replace(chain, max_tokens=length), seed),
                st.sampled_from(CHAINS),
                st.integers(1, 12),
                st.integers(0, 2**32),
            ),
            min_size=1,
            max_size=6,
        ),
        st.sampled_from([*MODELS]),
    )
    def test_each_text_of_a_batch_equals_the_text_generated_alone(self, chains, name):
        model = MODELS[name]
        rows = list(generate_batch([text_of(model, settings=chain, seed=seed) for chain, seed in chains]))
        assert all(number < following for row in rows for (number, _), (following, _) in pairwise(row))
        for number, (chain, seed) in enumerate(chains):
            events = [event for row in rows for place, event in row if place == number]
            for event, expected in zip(events, generate(text_of(model, settings=chain, seed=seed)), strict=True):
                if isinstance(event, Done) or isinstance(expected, Done):
                    assert without_times([event]) == without_times([expected])
                    continue
                assert (event.index, event.id, event.text) == (expected.index, expected.id, expected.text)
                assert event.logprob == pytest.approx(expected.logprob, abs=1e-4)
                assert event.sampling_prob == pytest.approx(expected.sampling_prob, abs=1e-4)
                assert event.entropy == pytest.approx(expected.entropy, abs=1e-4)

    def test_threads_can_share_a_model(self):
        def generate_texts(seed):
            texts = [text_of(LSTM, seed=seed + number) for number in range(4)]
            return without_times(event for row in generate_batch(texts) for _, event in row)

        expected = [generate_texts(seed) for seed in range(6)]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(generate_texts, range(6))) == expected

    def test_cancelling_ends_every_unfinished_text(self):
        answers = iter([False] * 4)
        texts = [text_of(settings=SamplerSettings(max_tokens=most)) for most in (2, 50, 50)]
        *seen, last = generate_batch(texts, lambda: next(answers, True))
        assert [number for number, _ in last] == [1, 2]
        assert all(isinstance(event, Done) and event.reason == "cancelled" and event.tokens == 4 for _, event in last)
        assert [len(row) for row in seen] == [3, 3, 3, 2]

    def test_a_model_that_loses_a_text_of_a_batch_is_an_error(self):
        model = FixedModel([1, 1, 1, 1])
        model.predict_tokens = partial(predict_one_by_one, model)
        model.advance_batch = lambda states, tokens: [model.advance(states[0], tokens[0])]
        with pytest.raises(ValueError, match="shorter"):
            next(generate_batch([text_of(model, [2], seed=seed) for seed in (1, 2)]))


@pytest.mark.slow
def test_int8_changes_the_perplexity_of_the_bundled_model_by_less_than_0_2_percent():
    loaded = load_model(resolve_run("lstm"))
    exact = NumpyLSTM(loaded.decoder.config, loaded.decoder.tokenizer, loaded.decoder.weights)
    rounded = NumpyLSTM(exact.config, exact.tokenizer, exact.weights, int8=True)
    dataset = load_dataset(loaded.config.data, exact.tokenizer)
    counts = dataset.scored_mask(dataset.valid)
    perplexities = [math.exp(-score_sequence(model, dataset.valid)[counts].mean()) for model in (exact, rounded)]
    assert perplexities[0] == pytest.approx(loaded.valid_perplexity, rel=0.005)
    assert perplexities[1] != perplexities[0]
    assert perplexities[1] == pytest.approx(perplexities[0], rel=0.002)
