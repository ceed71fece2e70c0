"""The stream of token events: the model's inputs, the end of a text, and the contents of each event."""

import math
from dataclasses import replace

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS, EOS_ID, UNK_ID
from engine.errors import RunError
from engine.generation.generate import Done, TokenEvent, generate
from engine.generation.preview import next_token_probs
from engine.generation.prompt import prefill
from engine.generation.sampling import process_log_probs, sampling_probs
from engine.generation.settings import MAX_SEED, SamplerSettings
from tests.support import sampling
from tests.support.sampling import FixedModel, generate_tokens, history_dependent_probs, id_vocabulary, zipf_probs


def test_model_reads_the_whole_prompt_and_then_each_sampled_token() -> None:
    model = FixedModel(history_dependent_probs)
    words, done = generate_tokens(model, SamplerSettings(temperature=0.8, max_tokens=6), 3, ids=(5, 0, 7, 7))
    text = [EOS_ID, 5, 0, 7, 7, *(word.id for word in words)]
    expected = [(tuple(text[:i]), token) for i, token in enumerate(text)]
    assert model.calls[: len(text) - 1] == expected[: len(text) - 1]
    assert model.calls == expected[: len(model.calls)]
    assert done.tokens == len(words)


def test_prefill_returns_the_distribution_after_the_prompt() -> None:
    model = FixedModel(history_dependent_probs)
    log_probs, state, *_ = prefill(model, (4, 9))
    assert state == (EOS_ID, 4, 9)
    assert np.array_equal(log_probs, FixedModel(history_dependent_probs).advance((EOS_ID, 4), 9)[0])
    assert np.array_equal(prefill(model, ())[0], FixedModel(history_dependent_probs).advance((), EOS_ID)[0])


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED])
def test_temperature_zero_always_takes_the_likeliest_token(seed: int) -> None:
    model = FixedModel(history_dependent_probs)
    words, _ = generate_tokens(model, SamplerSettings(temperature=0, max_tokens=30), seed)
    text: tuple[int, ...] = (EOS_ID, 2)
    for word in words:
        probs = history_dependent_probs(text)
        probs[UNK_ID] = 0
        if word.index == 0:
            probs[EOS_ID] = 0
        assert word.id == int(np.argmax(probs))
        assert word.sampling_prob == pytest.approx(1)
        assert word.num_kept == 1
        text = (*text, word.id)


def test_text_ends_at_eos_without_an_event_for_it() -> None:
    def eos_after_three(history: tuple[int, ...]) -> list[float]:
        return [1e-9, 1, 1e-9, 1e-9] if len(history) == 5 else [1e-9, 1e-9, 1, 1]

    words, done = generate_tokens(FixedModel(eos_after_three), SamplerSettings(temperature=1, max_tokens=50), 1)
    assert len(words) == 3
    assert done.reason == "eos"
    assert done.tokens == 3
    assert EOS_ID not in [word.id for word in words]


def test_eos_is_never_the_first_token_and_unk_is_never_sampled() -> None:
    probs = [0.5, 0.4, 0.05, 0.05]
    for seed in range(300):
        words, done = generate_tokens(FixedModel(probs), SamplerSettings(temperature=1.0, max_tokens=5), seed)
        assert 1 <= len(words) <= 5
        assert {word.id for word in words} <= {2, 3}
        assert done.reason == ("length" if len(words) == 5 else "eos")
    # Greedy sampling also takes the likeliest allowed token first, and then ends.
    words, done = generate_tokens(FixedModel(probs), SamplerSettings(temperature=0), 0)
    assert len(words) == 1
    assert done.reason == "eos"


@pytest.mark.parametrize("length", [1, 2, 17])
def test_text_ends_at_the_maximum_length(length: int) -> None:
    words, done = generate_tokens(FixedModel(zipf_probs(20)), SamplerSettings(max_tokens=length), 12)
    assert [word.index for word in words] == list(range(length))
    assert done.reason == "length"
    assert (done.tokens, done.seed) == (length, 12)
    assert done.tokens_per_second > 0


def test_cancelled_at_the_next_token() -> None:
    events: list[TokenEvent | Done] = []
    events.extend(
        generate(FixedModel(zipf_probs(20)), [2], SamplerSettings(max_tokens=1000), 0, lambda: len(events) == 4)
    )
    assert len(events) == 5
    assert isinstance(events[-1], Done)
    assert events[-1].reason == "cancelled"
    assert events[-1].tokens == 4


def test_cancelled_before_the_first() -> None:
    (done,) = generate(FixedModel(zipf_probs(20)), [2], sampling.NO_FILTERS, 0, lambda: True)
    assert isinstance(done, Done)
    assert (done.reason, done.tokens) == ("cancelled", 0)


def test_an_empty_prompt_is_continued_from_the_start_of_a_line() -> None:
    words, _ = generate_tokens(
        FixedModel(history_dependent_probs), SamplerSettings(temperature=0, max_tokens=1), 0, ids=()
    )
    probs = history_dependent_probs((EOS_ID,))
    probs[:2] = 0
    assert words[0].id == int(np.argmax(probs))


@pytest.mark.parametrize("settings", sampling.CHAINS, ids=sampling.chain_id)
def test_token_events_have_the_figures_of_the_naive_chain(settings: SamplerSettings) -> None:
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
        best = sorted(range(len(own)), key=lambda i: -own[i])[: len(word.top_tokens)]
        assert [name for name, _ in word.top_tokens] == [model.tokenizer.tokens[i] for i in best]
        assert [p for _, p in word.top_tokens] == pytest.approx([own[i] for i in best], rel=1e-5)
        assert len(word.top_tokens) == 8
        assert word.seconds >= 0
        text.append(word.id)


def test_top_tokens_of_a_tiny_vocabulary_are_all_tokens() -> None:
    words, _ = generate_tokens(FixedModel([0.1, 1e-9, 0.6, 0.3]), SamplerSettings(max_tokens=3), 0)
    assert [name for name, _ in words[0].top_tokens] == ["w2", "w3", "<unk>", "<eos>"]


def test_repetition_penalty_applies_to_the_prompt_and_to_generated_tokens() -> None:
    probs = [1e-9, 1e-9, 0.4, 0.35, 0.25]
    settings = SamplerSettings(temperature=0, repetition_penalty=3, max_tokens=3)
    words, _ = generate_tokens(FixedModel(probs), settings, 0, ids=(2,))
    # Token 2 is in the prompt, and 0.4**3 < 0.35. Then 0.35**3 < 0.25, and then 0.4**3 is the maximum again.
    assert [word.id for word in words] == [3, 4, 2]


def test_repetition_penalty_ignores_the_line_ends_of_the_prompt() -> None:
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
def test_probabilities_that_are_not_numbers_are_an_error(settings: SamplerSettings) -> None:
    model = FixedModel([math.nan] * 5)
    with pytest.raises(RunError, match="the model's probabilities are not numbers"):
        generate_tokens(model, settings, 0)
    with pytest.raises(RunError, match="the model's probabilities are not numbers"):
        next_token_probs(prefill(model, [2]).log_probs, settings, [2], id_vocabulary(5), top_n=4)


def test_figures_of_a_dropped_distribution_are_an_error() -> None:
    (event, *_), _ = generate_tokens(FixedModel(zipf_probs(20)), SamplerSettings(max_tokens=1), 0)
    dropped = event.without_distribution()
    assert (dropped.id, dropped.logprob) == (event.id, event.logprob)
    with pytest.raises(AssertionError, match="distribution of this token was dropped"):
        _ = dropped.rank
