"""The stream of token events: what is read and drawn, where it ends, and what each event tells."""

import math
from dataclasses import replace

import numpy as np
import pytest

from engine.data.vocabulary import EOS_ID, UNK_ID
from engine.generation.generate import Done, TokenEvent, read, stream
from engine.generation.settings import MAX_SEED, SamplerSettings
from tests.support.sampling import CHAINS, OFF, Fixed, mixed, naive_chain, named, tokens, zipf


def test_the_whole_prompt_is_read_and_then_each_word_drawn() -> None:
    model = Fixed(mixed)
    words, done = tokens(model, SamplerSettings(temperature=0.8, max_tokens=6), 3, ids=(5, 0, 7, 7))
    text = [EOS_ID, 5, 0, 7, 7, *(word.id for word in words)]
    expected = [(tuple(text[:i]), token) for i, token in enumerate(text)]
    assert model.fed[: len(text) - 1] == expected[: len(text) - 1]
    assert model.fed == expected[: len(model.fed)]
    assert done.tokens == len(words)


def test_read_gives_the_distribution_after_the_prompt() -> None:
    model = Fixed(mixed)
    log_probs, state = read(model, (4, 9))
    assert state == (EOS_ID, 4, 9)
    assert np.array_equal(log_probs, Fixed(mixed).advance((EOS_ID, 4), 9)[0])
    assert np.array_equal(read(model, ())[0], Fixed(mixed).advance((), EOS_ID)[0])


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED])
def test_temperature_zero_always_takes_the_likeliest_word(seed: int) -> None:
    model = Fixed(mixed)
    words, _ = tokens(model, SamplerSettings(temperature=0, max_tokens=30), seed)
    text: tuple[int, ...] = (EOS_ID, 2)
    for word in words:
        probs = mixed(text)
        probs[UNK_ID] = 0
        if word.index == 0:
            probs[EOS_ID] = 0
        assert word.id == int(np.argmax(probs))
        assert word.prob == pytest.approx(1)
        assert word.kept == 1
        text = (*text, word.id)


def test_it_ends_at_eos_which_is_no_word() -> None:
    def eos_after_three(read_so_far: tuple[int, ...]) -> list[float]:
        return [1e-9, 1, 1e-9, 1e-9] if len(read_so_far) == 5 else [1e-9, 1e-9, 1, 1]

    words, done = tokens(Fixed(eos_after_three), SamplerSettings(temperature=1, max_tokens=50), 1)
    assert len(words) == 3
    assert done.reason == "eos"
    assert done.tokens == 3
    assert EOS_ID not in [word.id for word in words]


def test_eos_is_never_the_first_word_and_unk_never_any() -> None:
    probs = [0.5, 0.4, 0.05, 0.05]
    for seed in range(300):
        words, done = tokens(Fixed(probs), SamplerSettings(temperature=1.0, max_tokens=5), seed)
        assert 1 <= len(words) <= 5
        assert {word.id for word in words} <= {2, 3}
        assert done.reason == ("length" if len(words) == 5 else "eos")
    # Greedily as well: first the likeliest word that may be drawn, then the end.
    words, done = tokens(Fixed(probs), SamplerSettings(temperature=0), 0)
    assert len(words) == 1
    assert done.reason == "eos"


@pytest.mark.parametrize("length", [1, 2, 17])
def test_length(length: int) -> None:
    words, done = tokens(Fixed(zipf(20)), SamplerSettings(max_tokens=length), 12)
    assert [word.index for word in words] == list(range(length))
    assert done.reason == "length"
    assert (done.tokens, done.seed) == (length, 12)
    assert done.tokens_per_second > 0


def test_cancelled_at_the_next_token() -> None:
    events: list[TokenEvent | Done] = []
    events.extend(stream(Fixed(zipf(20)), [2], SamplerSettings(max_tokens=1000), 0, lambda: len(events) == 4))
    assert len(events) == 5
    assert isinstance(events[-1], Done)
    assert events[-1].reason == "cancelled"
    assert events[-1].tokens == 4


def test_cancelled_before_the_first() -> None:
    (done,) = stream(Fixed(zipf(20)), [2], OFF, 0, lambda: True)
    assert isinstance(done, Done)
    assert (done.reason, done.tokens) == ("cancelled", 0)


def test_an_empty_beginning_is_continued_from_the_start_of_a_line() -> None:
    words, _ = tokens(Fixed(mixed), SamplerSettings(temperature=0, max_tokens=1), 0, ids=())
    probs = mixed((EOS_ID,))
    probs[:2] = 0
    assert words[0].id == int(np.argmax(probs))


@pytest.mark.parametrize("sampler", CHAINS, ids=named)
def test_token_events_tell_what_they_say(sampler: SamplerSettings) -> None:
    model = Fixed(mixed)
    words, _ = tokens(model, replace(sampler, max_tokens=12), 21, ids=(3, 4))
    text = [EOS_ID, 3, 4]
    for index, word in enumerate(words):
        probs = mixed(tuple(text))
        probs = np.log(probs / probs.sum()).astype(np.float32).astype(np.float64)
        own = np.exp(probs)
        chain = naive_chain(probs, sampler, text[1:], first=index == 0)
        assert word.index == index
        assert word.text == model.vocabulary.words[word.id]
        assert word.logprob == pytest.approx(probs[word.id], abs=1e-5)
        assert word.rank == 1 + sum(p > own[word.id] for p in own)
        assert word.entropy == pytest.approx(-sum(p * math.log2(p) for p in own), rel=1e-4)
        assert word.prob == pytest.approx(chain[word.id], abs=1e-6)
        assert word.kept == sum(p > 0 for p in chain)
        best = sorted(range(len(own)), key=lambda i: -own[i])[: len(word.top)]
        assert [name for name, _ in word.top] == [model.vocabulary.words[i] for i in best]
        assert [p for _, p in word.top] == pytest.approx([own[i] for i in best], rel=1e-5)
        assert len(word.top) == 8
        assert word.seconds >= 0
        text.append(word.id)


def test_a_vocabulary_smaller_than_the_alternatives() -> None:
    words, _ = tokens(Fixed([0.1, 1e-9, 0.6, 0.3]), SamplerSettings(max_tokens=3), 0)
    assert [name for name, _ in words[0].top] == ["w2", "w3", "<unk>", "<eos>"]


def test_repetition_penalty_looks_at_the_prompt_and_at_what_was_drawn() -> None:
    probs = [1e-9, 1e-9, 0.4, 0.35, 0.25]
    sampler = SamplerSettings(temperature=0, repetition_penalty=3, max_tokens=3)
    words, _ = tokens(Fixed(probs), sampler, 0, ids=(2,))
    # .4 was in the prompt: .4**3 is less than .35; then .35**3 less than .25; then .4**3 is the most again.
    assert [word.id for word in words] == [3, 4, 2]
