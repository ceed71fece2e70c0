"""Properties of sampling for any model and any settings."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokenizers.base import EOS, EOS_ID, UNK, UNK_ID
from engine.errors import InvalidInputError
from engine.generation.generate import Done, TokenEvent, force_token, generate
from engine.generation.processors import log_softmax
from engine.generation.prompt import prefill
from engine.generation.sampling import process_log_probs, sample_tokens, sampling_probs
from engine.generation.settings import SamplerSettings
from tests.support.sampling import FixedModel

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
def models_and_texts(draw: st.DrawFn) -> tuple[FixedModel, list[int]]:
    """Generate a model and the ids of a text."""
    model = FixedModel(draw(PROBABILITIES))
    size = len(model.tokenizer)
    return model, draw(st.lists(st.integers(0, size - 1), max_size=5))


def generate_events(model: FixedModel, ids: list[int], sampler: SamplerSettings, seed: int) -> list[TokenEvent | Done]:
    """Generate a text; return its events without the measured times."""
    return [
        replace(event, seconds=0.0) if isinstance(event, TokenEvent) else replace(event, tokens_per_second=0.0)
        for event in generate(model, ids, sampler, seed)
    ]


def can_be_sampled(
    log_probs: list[float], word: int, sampler: SamplerSettings, history: list[int], first: bool
) -> bool:
    """Return True if no stage can have removed `word`, judged by its rank and probability with some tolerance."""
    if word == UNK_ID or (first and word == EOS_ID):
        return False
    scores = {}
    for other, score in enumerate(log_probs):
        if other != UNK_ID and not (first and other == EOS_ID):
            is_penalized = other in history and other != EOS_ID
            scores[other] = score * sampler.repetition_penalty if is_penalized else score
    higher = [other for other, score in scores.items() if score > scores[word] + 1e-9]
    if sampler.temperature < 1e-3:
        return not higher
    weights = {other: math.exp((score - max(scores.values())) / sampler.temperature) for other, score in scores.items()}
    if sampler.top_k:
        if len(higher) >= sampler.top_k:
            return False
        best = sorted(weights.values(), reverse=True)[: sampler.top_k]
    else:
        best = list(weights.values())
    if sum(weights[other] for other in higher) / sum(best) > sampler.top_p + 1e-9:
        return False
    return weights[word] >= sampler.min_p * (1 - 1e-9)


@settings(max_examples=60)
@given(models_and_texts(), SAMPLERS, SEEDS)
def test_removed_tokens_are_never_sampled(
    place: tuple[FixedModel, list[int]], sampler: SamplerSettings, seed: int
) -> None:
    model, ids = place
    text = list(ids)
    log_probs = prefill(model, ids).log_probs
    for event in generate_events(model, ids, sampler, seed):
        if isinstance(event, TokenEvent):
            first = event.index == 0
            assert can_be_sampled(log_probs.tolist(), event.id, sampler, text, first)
            chain = np.exp(process_log_probs(log_probs, sampler, text, suppress_eos=first))
            assert chain.sum() == pytest.approx(1)
            assert event.sampling_prob == pytest.approx(chain[event.id])
            assert event.num_kept == np.count_nonzero(chain) <= (sampler.top_k or len(chain))
            assert event.text not in (UNK, EOS)
            text.append(event.id)
    assert len(text) - len(ids) <= sampler.max_tokens


@settings(max_examples=40)
@given(models_and_texts(), SAMPLERS, SEEDS)
def test_a_shorter_text_is_the_beginning_of_a_longer_one(
    place: tuple[FixedModel, list[int]], sampler: SamplerSettings, seed: int
) -> None:
    model, ids = place
    whole = generate_events(model, ids, sampler, seed)
    assert generate_events(model, ids, sampler, seed) == whole
    short = generate_events(model, ids, replace(sampler, max_tokens=1), seed)
    assert short[0] == whole[0]


@settings(max_examples=40)
@given(models_and_texts(), st.lists(SAMPLERS, min_size=1, max_size=4), SEEDS, st.booleans())
def test_sampling_several_texts_equals_sampling_each_alone(
    place: tuple[FixedModel, list[int]], samplers: list[SamplerSettings], seed: int, first: bool
) -> None:
    model, ids = place
    log_probs = prefill(model, ids).log_probs
    rows = np.stack([log_probs] * len(samplers))
    noise = np.random.default_rng(seed).standard_exponential(rows.shape)
    probs = sampling_probs(rows, samplers, [ids] * len(samplers), suppress_eos=first)
    assert probs.sum(axis=1) == pytest.approx(np.ones(len(samplers)))
    tokens = sample_tokens(probs.copy(), noise.copy())
    for row, sampler in enumerate(samplers):
        alone = sampling_probs(log_probs[None], [sampler], [ids], suppress_eos=first)
        assert np.array_equal(alone[0], probs[row])
        assert sample_tokens(alone, noise[row : row + 1].copy()) == tokens[row : row + 1]
        assert probs[row, tokens[row]] > 0


@settings(max_examples=40)
@given(models_and_texts(), SAMPLERS, st.data())
def test_a_forced_token_has_its_probabilities(
    place: tuple[FixedModel, list[int]], sampler: SamplerSettings, data: st.DataObject
) -> None:
    """This includes tokens that could not have been sampled."""
    model, ids = place
    token = data.draw(st.integers(2, len(model.tokenizer) - 1))
    reading = prefill(model, ids)
    event, after = force_token(model, reading, ids, sampler, token)
    assert (event.id, event.text) == (token, model.tokenizer.tokens[token])
    assert event.sampling_prob == pytest.approx(
        np.exp(process_log_probs(reading.log_probs, sampler, ids, suppress_eos=False))[token]
    )
    assert event.logprob == pytest.approx(float(log_softmax(reading.log_probs.astype(np.float64))[token]), abs=1e-5)
    assert 1 <= event.rank <= len(model.tokenizer)
    assert after.log_probs is not None


NUMBERS = {"temperature": (0, 2), "top_p": (0, 1), "min_p": (0, 1), "repetition_penalty": (0.1, 10)}


@given(st.sampled_from([*NUMBERS]), st.floats() | st.sampled_from([0, 1, 2, 10, -0.0, 5e-324]))
def test_a_setting_is_accepted_in_its_range_and_refused_outside(name: str, value: float) -> None:
    low, high = NUMBERS[name]
    within = low <= value <= high and not (name == "top_p" and value == 0)
    if within:
        assert SamplerSettings(**{name: value}).describe().isprintable()  # type: ignore[arg-type]
        return
    with pytest.raises(InvalidInputError) as caught:
        SamplerSettings(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(f"{name.replace('_', '-')} {value} is out of range")
