"""The stream of token events: the model's inputs, the end of a text, the figures of each event, and forced tokens."""

import math
from dataclasses import replace

import numpy as np
import pytest

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS, EOS_ID
from engine.errors import InvalidInputError, RunError
from engine.generation.generate import (
    NUM_KEY_TOKENS,
    Done,
    TextInProgress,
    force_token,
    generate,
    generate_from,
    noise_key,
    sample_step,
)
from engine.generation.preview import next_token_probs
from engine.generation.prompt import prefill, prefill_prompt
from engine.generation.sampling import process_log_probs, sampling_probs
from engine.generation.settings import MAX_SEED, SamplerSettings
from tests.support import sampling
from tests.support.models import random_lstm
from tests.support.sampling import (
    FixedModel,
    generate_tokens,
    history_dependent_probs,
    id_vocabulary,
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


class TestInputs:
    def test_model_reads_the_whole_prompt_and_then_each_sampled_token(self):
        model = FixedModel(history_dependent_probs)
        words, done = generate_tokens(model, SamplerSettings(temperature=0.8, max_tokens=6), 3, ids=(5, 0, 7, 7))
        text = [EOS_ID, 5, 0, 7, 7, *(word.id for word in words)]
        expected = [(tuple(text[:i]), token) for i, token in enumerate(text)]
        assert model.calls[: len(text) - 1] == expected[: len(text) - 1]
        assert model.calls == expected[: len(model.calls)]
        assert done.tokens == len(words)

    def test_prefill_returns_the_distribution_after_the_prompt(self):
        model = FixedModel(history_dependent_probs)
        log_probs, state, *_ = prefill(model, (4, 9))
        assert state == (EOS_ID, 4, 9)
        assert np.array_equal(log_probs, model.advance((EOS_ID, 4), 9)[0])
        assert np.array_equal(prefill(model, ()).log_probs, model.advance((), EOS_ID)[0])
        parts = prefill(MODEL, [6, 7], prefill(MODEL, [5]))
        assert np.array_equal(prefill(MODEL, [5, 6, 7]).log_probs, parts.log_probs)
        assert np.array_equal(prefill_prompt(MODEL, [7], prefill(MODEL, [5, 6])).log_probs, parts.log_probs)
        assert prefill(MODEL, [], parts) is parts

    def test_generating_from_a_kept_state_equals_generating_from_the_text(self):
        kept = prefill(MODEL, [5, 6])
        for _ in range(2):  # twice, since generating must not change the state
            events = [e if isinstance(e, Done) else e[0] for e in generate_from(MODEL, kept, [5, 6], SETTINGS, 3)]
            assert without_times(events) == without_times(list(generate(MODEL, [5, 6], SETTINGS, 3)))

    def test_each_token_comes_with_the_state_after_it(self):
        ids = [5, 6]
        for event in generate_from(MODEL, prefill(MODEL, ids), ids, SETTINGS, 3):
            if isinstance(event, tuple):
                ids.append(event[0].id)
                assert np.array_equal(event[1].log_probs, prefill(MODEL, ids).log_probs)
        assert len(ids) > 10

    @pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
    def test_a_seed_out_of_range_is_refused(self, seed):
        with pytest.raises(InvalidInputError, match=f"seed {seed}"):
            next(generate(FixedModel([1, 1, 1]), [2], SETTINGS, seed))
        with pytest.raises(InvalidInputError, match=f"seed {seed}"):
            next(generate_from(MODEL, prefill(MODEL, []), [], SETTINGS, seed))

    def test_noise_depends_on_the_seed_and_on_the_lines_before(self):
        keys = [noise_key(7, context) for context in ((), (2,), (3,), (2, 3), (3,) * NUM_KEY_TOKENS)]
        assert len(set(keys)) == 5
        assert keys[0] == (7,)
        assert keys[1] == (7, 2337085335), "a seed would no longer give the replies of earlier versions"
        assert keys[4] == noise_key(7, (4, *(3,) * NUM_KEY_TOKENS))
        lines = [
            list(generate_from(MODEL, prefill(MODEL, []), [], SETTINGS, 7, noise_context=[id])) for id in (2, 3, 2)
        ]
        texts = [[event[0].id for event in line[:-1]] for line in lines]
        assert texts[0] == texts[2] != texts[1]


class TestEnd:
    def test_text_ends_at_eos_without_an_event_for_it(self):
        def eos_after_three(history):
            return [1e-9, 1, 1e-9, 1e-9] if len(history) == 5 else [1e-9, 1e-9, 1, 1]

        words, done = generate_tokens(FixedModel(eos_after_three), SamplerSettings(temperature=1, max_tokens=50), 1)
        assert EOS_ID not in [word.id for word in words]
        assert (len(words), done.reason, done.tokens) == (3, "eos", 3)

    def test_given_tokens_end_a_text_and_are_neither_first_nor_penalized(self):
        model, ends = FixedModel([0.1, 0.1, 0.1, 0.35, 0.35]), np.array([3, 4], np.int32)
        settings = SamplerSettings(temperature=1.0, max_tokens=50, repetition_penalty=5.0)
        for seed in range(20):
            *words, done = generate_from(model, prefill(model, [2]), [3, 4], settings, seed, end_ids=ends)
            assert {word.id for word, _ in words} <= {1, 2}
            assert len(words) >= 1
            assert done.reason == "eos"
        probs = sampling_probs(
            prefill(model, [2]).log_probs[None], [settings], [[3, 4]], suppress_eos=False, end_ids=ends
        )
        assert probs[0, 3] == pytest.approx(0.35 / 0.9)

    def test_eos_is_never_the_first_token_and_unk_is_never_sampled(self):
        probs = [0.5, 0.4, 0.05, 0.05]
        for seed in range(100):
            words, done = generate_tokens(FixedModel(probs), SamplerSettings(temperature=1.0, max_tokens=5), seed)
            assert 1 <= len(words) <= 5
            assert {word.id for word in words} <= {2, 3}
            assert done.reason == ("length" if len(words) == 5 else "eos")
        # Greedy sampling also takes the likeliest allowed token first, and then ends.
        words, done = generate_tokens(FixedModel(probs), SamplerSettings(temperature=0), 0)
        assert (len(words), done.reason) == (1, "eos")

    @pytest.mark.parametrize("first", [True, False])
    def test_a_text_can_end_at_once_unless_its_first_token_comes_next(self, first):
        model = make_model(eos_bias=50.0)
        events = list(generate_from(model, prefill(model, [5]), [5], SamplerSettings(), 3, is_first_token=first))
        assert len(events) == 1 + first

    @pytest.mark.parametrize("length", [1, 2, 17])
    def test_text_ends_at_the_maximum_length(self, length):
        words, done = generate_tokens(FixedModel(zipf_probs(20)), SamplerSettings(max_tokens=length), 12)
        assert [word.index for word in words] == list(range(length))
        assert (done.reason, done.tokens, done.seed) == ("length", length, 12)
        assert done.tokens_per_second > 0

    @pytest.mark.parametrize("number", [0, 4])
    def test_a_cancelled_text_ends_before_the_next_token(self, number):
        asked = iter([False] * number)
        settings = SamplerSettings(max_tokens=1000)
        *words, done = generate(FixedModel(zipf_probs(20)), [2], settings, 0, lambda: next(asked, True))
        assert (len(words), done.reason, done.tokens) == (number, "cancelled", number)


class TestFigures:
    @pytest.mark.parametrize("settings", sampling.CHAINS, ids=sampling.chain_id)
    def test_token_events_have_the_figures_of_the_naive_chain(self, settings):
        model = FixedModel(history_dependent_probs)
        words, _ = generate_tokens(model, replace(settings, max_tokens=12), 21, ids=(3, 4))
        text = [EOS_ID, 3, 4]
        for index, word in enumerate(words):
            probs = history_dependent_probs(tuple(text))
            probs = np.log(probs / probs.sum()).astype(np.float32).astype(np.float64)
            own = np.exp(probs)
            chain = sampling.naive_chain(probs, settings, text[1:], suppress_eos=index == 0)
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

    def test_repetition_penalty_ignores_the_line_ends_of_the_prompt(self):
        log_probs = np.log(np.array([0.1, 0.3, 0.4, 0.2], np.float32))
        with_line_ends = [EOS_ID, 2, EOS_ID]
        settings = SamplerSettings(repetition_penalty=3)
        expected = process_log_probs(log_probs, settings, [2], suppress_eos=False)
        assert process_log_probs(log_probs, settings, with_line_ends, suppress_eos=False).tolist() == expected.tolist()
        sampled = sampling_probs(log_probs[None], [settings], [with_line_ends], suppress_eos=False)
        assert sampled[0] == pytest.approx(np.exp(expected))
        preview = next_token_probs(log_probs, settings, with_line_ends, id_vocabulary(4), top_n=4)
        assert preview.candidates[0].text == EOS

    @pytest.mark.parametrize("settings", [SamplerSettings(), SamplerSettings(temperature=0), SamplerSettings(top_k=1)])
    def test_probabilities_that_are_not_numbers_are_an_error(self, settings):
        model = FixedModel([math.nan] * 5)
        with pytest.raises(RunError, match=r"^the model's probabilities are not numbers"):
            generate_tokens(model, settings, 0)
        with pytest.raises(RunError, match="the model's probabilities are not numbers"):
            next_token_probs(prefill(model, [2]).log_probs, settings, [2], id_vocabulary(5), top_n=4)


@pytest.mark.parametrize("first", [True, False])
def test_a_forced_token_has_the_figures_of_its_position(first):
    kept = prefill(MODEL, [5, 6])
    chain = np.exp(process_log_probs(kept.log_probs, SETTINGS, [5, 6], suppress_eos=first))
    for token in (9, EOS_ID):  # a first <eos> could not be sampled
        event, after = force_token(MODEL, kept, [5, 6], SETTINGS, token, is_first_token=first)
        assert (event.index, event.id, event.text) == (0, token, MODEL.tokenizer.tokens[token])
        assert event.sampling_prob == pytest.approx(chain[token])
        assert event.num_kept == np.count_nonzero(chain)
        dropped = event.without_distribution()
        assert (dropped, dropped.log_probs) == (event, None)
        assert event.rank == sorted(kept.log_probs, reverse=True).index(kept.log_probs[token]) + 1
        assert np.array_equal(after.log_probs, prefill(MODEL, [5, 6, token]).log_probs)
    assert (chain[EOS_ID] == 0) == first
    event, _ = force_token(MODEL, kept, [5, 6], SETTINGS, EOS_ID)
    assert event.sampling_prob > 0, "a forced token is not the first one unless it is said"


def test_a_model_that_loses_a_text_of_a_batch_is_an_error():
    model = FixedModel([1, 1, 1, 1])
    model.advance_batch = lambda states, tokens: [model.advance(states[0], tokens[0])]
    texts = [TextInProgress.start(model, prefill(model, [2]), [2], SETTINGS, seed) for seed in (1, 2)]
    with pytest.raises(ValueError, match="shorter"):
        sample_step(model, texts, suppress_eos=True)


class Clock:
    """A clock that advances by one second per call; tests can advance it further."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    return clock


@pytest.mark.parametrize(("reason", "words"), [("length", 7), ("cancelled", 4), ("eos", 1)])
def test_time_between_events_is_not_counted(clock, reason, words):
    model, settings = make_model(eos_bias=50.0 if reason == "eos" else -50.0), SamplerSettings(max_tokens=7)
    events = []
    for event in generate(model, [5, 6], settings, 3, lambda: reason == "cancelled" and len(events) == words):
        events.append(event)
        clock.now += 100  # a slow consumer
    assert events.pop() == Done(reason, 3, words, 1.0)
    assert [(event.index, event.seconds) for event in events] == [(index, 1.0) for index in range(words)]
