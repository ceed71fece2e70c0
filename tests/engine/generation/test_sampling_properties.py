"""What holds of drawing words whatever the model says and whatever is asked for."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.vocabulary import EOS, EOS_ID, UNK, UNK_ID
from engine.errors import UnusableInput
from engine.generation.generate import Done, TokenEvent, apply_chain, chances, choose, draw, read, stream
from engine.generation.processors import normalize
from engine.generation.settings import SamplerSettings
from tests.support.sampling import Fixed

SAMPLERS = st.builds(
    SamplerSettings,
    repetition_penalty=st.just(1.0) | st.floats(0.1, 10),
    temperature=st.just(0.0) | st.floats(0, 2),
    top_k=st.integers(0, 12),
    top_p=st.just(1.0) | st.floats(0, 1, exclude_min=True),
    min_p=st.just(0.0) | st.floats(0, 1),
    max_tokens=st.integers(1, 8),
)
PROBABILITIES = st.lists(st.floats(1e-9, 1), min_size=3, max_size=12)
SEEDS = st.integers(0, 2**63 - 1)


@st.composite
def places(draw: st.DrawFn) -> tuple[Fixed, list[int]]:
    """A model, and ids that it has read."""
    model = Fixed(draw(PROBABILITIES))
    size = len(model.vocabulary)
    return model, draw(st.lists(st.integers(0, size - 1), max_size=5))


def words_of(model: Fixed, ids: list[int], sampler: SamplerSettings, seed: int) -> list[TokenEvent | Done]:
    """What is drawn, without what the clock says."""
    return [
        replace(event, seconds=0.0) if isinstance(event, TokenEvent) else replace(event, tokens_per_second=0.0)
        for event in stream(model, ids, sampler, seed)
    ]


def may_be_drawn(log_probs: list[float], word: int, sampler: SamplerSettings, history: list[int], first: bool) -> bool:
    """Whether no stage can have excluded a word, by its rank and share alone; words of about one score are one."""
    if word == UNK_ID or (first and word == EOS_ID):
        return False
    scores = {}
    for other, score in enumerate(log_probs):
        if other != UNK_ID and not (first and other == EOS_ID):
            scores[other] = score * sampler.repetition_penalty if other in history else score
    higher = [other for other, score in scores.items() if score > scores[word] + 1e-9]
    if sampler.temperature < 1e-3:
        return not higher
    shares = {other: math.exp((score - max(scores.values())) / sampler.temperature) for other, score in scores.items()}
    if sampler.top_k:
        if len(higher) >= sampler.top_k:
            return False
        best = sorted(shares.values(), reverse=True)[: sampler.top_k]
    else:
        best = list(shares.values())
    if sum(shares[other] for other in higher) / sum(best) > sampler.top_p + 1e-9:
        return False
    return shares[word] >= sampler.min_p * (1 - 1e-9)


@settings(max_examples=60)
@given(places(), SAMPLERS, SEEDS)
def test_no_word_is_drawn_that_a_stage_excluded(
    place: tuple[Fixed, list[int]], sampler: SamplerSettings, seed: int
) -> None:
    model, ids = place
    text = list(ids)
    log_probs = read(model, ids).log_probs
    for event in words_of(model, ids, sampler, seed):
        if isinstance(event, TokenEvent):
            first = event.index == 0
            assert may_be_drawn(log_probs.tolist(), event.id, sampler, text, first)
            chain = np.exp(apply_chain(log_probs, sampler, text, first=first))
            assert chain.sum() == pytest.approx(1)
            assert event.prob == pytest.approx(chain[event.id])
            assert event.kept == np.count_nonzero(chain) <= (sampler.top_k or len(chain))
            assert event.text not in (UNK, EOS)
            text.append(event.id)
    assert len(text) - len(ids) <= sampler.max_tokens


@settings(max_examples=40)
@given(places(), SAMPLERS, SEEDS)
def test_one_seed_gives_the_same_words_and_a_shorter_text_their_beginning(
    place: tuple[Fixed, list[int]], sampler: SamplerSettings, seed: int
) -> None:
    model, ids = place
    whole = words_of(model, ids, sampler, seed)
    assert words_of(model, ids, sampler, seed) == whole
    short = words_of(model, ids, replace(sampler, max_tokens=1), seed)
    assert short[0] == whole[0]


@settings(max_examples=40)
@given(places(), st.lists(SAMPLERS, min_size=1, max_size=4), SEEDS, st.booleans())
def test_several_texts_are_drawn_as_each_alone(
    place: tuple[Fixed, list[int]], samplers: list[SamplerSettings], seed: int, first: bool
) -> None:
    model, ids = place
    log_probs = read(model, ids).log_probs
    rows = np.stack([log_probs] * len(samplers))
    noise = np.random.default_rng(seed).standard_exponential(rows.shape)
    probs = chances(rows, samplers, [ids] * len(samplers), first=first)
    assert probs.sum(axis=1) == pytest.approx(np.ones(len(samplers)))
    tokens = draw(probs.copy(), noise.copy())
    for row, sampler in enumerate(samplers):
        alone = chances(log_probs[None], [sampler], [ids], first=first)
        assert np.array_equal(alone[0], probs[row])
        assert draw(alone, noise[row : row + 1].copy()) == tokens[row : row + 1]
        assert probs[row, tokens[row]] > 0


@settings(max_examples=40)
@given(places(), SAMPLERS, st.data())
def test_a_word_that_is_chosen_is_told_with_its_chances(
    place: tuple[Fixed, list[int]], sampler: SamplerSettings, data: st.DataObject
) -> None:
    """Also one that could not have been drawn."""
    model, ids = place
    token = data.draw(st.integers(2, len(model.vocabulary) - 1))
    reading = read(model, ids)
    event, after = choose(model, reading, ids, sampler, token)
    assert (event.id, event.text) == (token, model.vocabulary.words[token])
    assert event.prob == pytest.approx(np.exp(apply_chain(reading.log_probs, sampler, ids, first=False))[token])
    assert event.logprob == pytest.approx(float(normalize(reading.log_probs.astype(np.float64))[token]), abs=1e-5)
    assert 1 <= event.rank <= len(model.vocabulary)
    assert after.log_probs is not None


NUMBERS = {"temperature": (0, 2), "top_p": (0, 1), "min_p": (0, 1), "repetition_penalty": (0.1, 10)}


@given(st.sampled_from([*NUMBERS]), st.floats() | st.sampled_from([0, 1, 2, 10, -0.0, 5e-324]))
def test_a_setting_is_within_its_range_or_refused_in_a_line(name: str, value: float) -> None:
    low, high = NUMBERS[name]
    within = low <= value <= high and not (name == "top_p" and value == 0)
    if within:
        assert SamplerSettings(**{name: value}).chain().isprintable()  # type: ignore[arg-type]
        return
    with pytest.raises(UnusableInput) as caught:
        SamplerSettings(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(f"{name.replace('_', '-')} {value} is out of range")
