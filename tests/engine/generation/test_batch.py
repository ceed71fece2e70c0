"""Texts written in step: each is the one it would be alone."""

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.dataset import prepare
from engine.data.vocabulary import Vocabulary
from engine.errors import UnusableInput
from engine.generation.batch import Beginning, separately, write
from engine.generation.generate import Done, TokenEvent, read, stream
from engine.generation.settings import SamplerSettings
from engine.models.base import advance_all
from engine.models.cache import Cache, CacheSettings
from engine.models.mixture import Mixture
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import Decoder, weight_shapes
from engine.runs.store import load, resolve

SIZE = 83
VOCABULARY = Vocabulary(("<unk>", "<eos>", *(f"w{i}" for i in range(SIZE - 2))))
CONFIGS = {
    "one layer, tied": ModelConfig(embedding_size=12, hidden_size=12, pauses=False),
    "two layers, untied": ModelConfig(embedding_size=16, hidden_size=9, layers=2, tied=False, pauses=False),
    "with pauses": ModelConfig(embedding_size=20, hidden_size=20, pauses=True),
}


def decoder(config: ModelConfig, seed: int = 0, *, int8: bool = False) -> Decoder:
    chance = np.random.default_rng(seed)
    shapes = weight_shapes(config, SIZE)
    weights = {name: chance.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    return Decoder(config, VOCABULARY, weights, int8=int8)


def kneser_ney() -> KneserNey:
    return KneserNey(np.random.default_rng(5).integers(0, SIZE, 2000).astype(np.int32), VOCABULARY)


MODELS: dict[str, Any] = {name: decoder(config) for name, config in CONFIGS.items()}
MODELS["a mixture"] = Mixture([MODELS["with pauses"], MODELS["one layer, tied"], kneser_ney()], [0.5, 0.25, 0.25])
MODELS["a cache"] = Cache(MODELS["with pauses"], CacheSettings(window=4))
MODELS["a cache on a mixture"] = Cache(MODELS["a mixture"], CacheSettings(window=4))
MODELS["Kneser-Ney"] = kneser_ney()


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]


@pytest.mark.parametrize("texts", [1, 2, 5, 16, 33])
def test_what_is_read_together_is_what_each_reads_alone(model: Any, texts: int) -> None:
    chance = np.random.default_rng(texts)
    alone = [model.start() for _ in range(texts)]
    together = list(alone)
    for tokens in chance.integers(0, SIZE, (6, texts)).tolist():
        read_together = advance_all(model, together, tokens)
        together = [state for _, state in read_together]
        read_alone = [model.advance(state, token) for state, token in zip(alone, tokens, strict=True)]
        alone = [state for _, state in read_alone]
        for (log_probs, _), (expected, _) in zip(read_together, read_alone, strict=True):
            assert log_probs.dtype == np.float32
            assert log_probs == pytest.approx(expected, abs=1e-4)
            if texts == 1:
                assert np.array_equal(log_probs, expected)


def test_what_was_read_together_are_values(model: Any) -> None:
    states = [model.advance(model.start(), token)[1] for token in (1, 2, 3)]
    kept = advance_all(model, states, [4, 5, 6])
    before = [log_probs.copy() for log_probs, _ in kept]
    going_on = kept
    for _ in range(3):
        going_on = advance_all(model, [state for _, state in going_on], [7, 8, 9])
    going_on[0][0][:] = 0
    for (log_probs, state), same, token in zip(kept, before, (7, 8, 9), strict=True):
        assert np.array_equal(log_probs, same)
        again = [model.advance(state, token)[0] for _ in range(2)]  # from the middle, alone, and twice
        assert np.array_equal(again[0], again[1])
    for (log_probs, _), same in zip(advance_all(model, states, [4, 5, 6]), before, strict=True):
        assert np.array_equal(log_probs, same)


def test_threads_that_share_a_model_do_not_disturb_each_other() -> None:
    model = MODELS["with pauses"]

    def texts(seed: int) -> list[Any]:
        beginnings = [Beginning(read(model, (5,)), (5,), SamplerSettings(max_tokens=40), seed + n) for n in range(4)]
        together = [essence(event) for row in write(model, beginnings) for _, event in row]
        return together + [essence(event) for event in stream(model, (5,), SamplerSettings(max_tokens=40), seed)]

    expected = [texts(seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(texts, range(12))) == expected


def essence(event: TokenEvent | Done) -> tuple[object, ...]:
    """Everything but the time it took."""
    if isinstance(event, Done):
        return event.reason, event.seed, event.tokens
    return event.id, event.text, event.logprob, event.prob, event.rank, event.entropy, event.kept, event.top


CHAINS = st.builds(
    SamplerSettings,
    temperature=st.sampled_from([0.0, 0.5, 0.8, 1.0, 1.7]),
    top_k=st.sampled_from([0, 10]),
    top_p=st.sampled_from([1.0, 0.8]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.4]),
    max_tokens=st.integers(1, 12),
)


@settings(max_examples=60, deadline=None, derandomize=True)  # or one draw in a million would fail it
@given(
    st.lists(st.tuples(CHAINS, st.integers(0, 2**32)), min_size=1, max_size=6),
    st.sampled_from(["with pauses", "a cache"]),
)
def test_each_text_is_the_one_it_would_be_alone(chains: list[tuple[SamplerSettings, int]], name: str) -> None:
    model, ids = MODELS[name], (5, 6)
    reading = read(model, ids)
    rows = list(write(model, [Beginning(reading, ids, its, seed) for its, seed in chains]))
    assert all(number < following for row in rows for (number, _), (following, _) in pairwise(row))
    for number, (its, seed) in enumerate(chains):
        events = [event for row in rows for place, event in row if place == number]
        alone = list(stream(model, ids, its, seed))
        assert len(events) == len(alone)
        for event, expected in zip(events, alone, strict=True):
            if isinstance(event, Done) or isinstance(expected, Done):
                assert essence(event) == essence(expected)
                continue
            assert (event.index, event.id, event.text) == (expected.index, expected.id, expected.text)
            assert event.logprob == pytest.approx(expected.logprob, abs=1e-4)
            assert event.prob == pytest.approx(expected.prob, abs=1e-4)
            assert event.entropy == pytest.approx(expected.entropy, abs=1e-4)


def test_with_the_bundled_model_64_texts_in_16_columns_have_the_words_they_have_alone() -> None:
    model = load(resolve(None)).decoder
    ids, its = (5, 9, 7), SamplerSettings(temperature=1.0, max_tokens=20)
    reading = read(model, ids)
    for begin in range(0, 64, 16):
        texts: list[list[int]] = [[] for _ in range(16)]
        for row in write(model, [Beginning(reading, ids, its, begin + n) for n in range(16)]):
            for number, event in row:
                if isinstance(event, TokenEvent):
                    texts[number].append(event.id)
        for number, words in enumerate(texts):
            alone = stream(model, ids, its, begin + number)
            assert words == [event.id for event in alone if isinstance(event, TokenEvent)]


def test_cancelling_ends_every_text_that_still_goes_on() -> None:
    model = MODELS["one layer, tied"]
    asked = False
    reading = read(model, (5,))
    lengths = (2, 50, 50)
    beginnings = [Beginning(reading, (5,), SamplerSettings(max_tokens=most), 3) for most in lengths]
    rows = write(model, beginnings, lambda: asked)
    seen = [next(rows) for _ in range(4)]
    asked = True
    (last,) = rows
    assert [number for number, _ in last] == [1, 2]
    assert all(isinstance(event, Done) and event.reason == "cancelled" and event.tokens == 4 for _, event in last)
    assert [len(row) for row in seen] == [3, 3, 3, 2]


def test_a_seed_out_of_range_is_refused() -> None:
    model = MODELS["one layer, tied"]
    with pytest.raises(UnusableInput, match="seed -1"):
        next(write(model, [Beginning(read(model, (5,)), (5,), SamplerSettings(), -1)]))


def test_texts_can_be_read_in_any_order() -> None:
    rows = [[(0, "a0"), (1, "b0")], [(0, "a1"), (1, DONE)], [(0, "a2")], [(0, DONE)]]
    for order in ((0, 1), (1, 0)):
        texts = separately(iter(rows), 2)  # type: ignore[arg-type]
        read_in_order = {number: list(texts[number]) for number in order}
        assert read_in_order == {0: ["a0", "a1", "a2", DONE], 1: ["b0", DONE]}
    first, second = separately(iter(rows), 2)  # type: ignore[arg-type]
    assert [next(second), next(first), next(first), next(second)] == ["b0", "a0", "a1", DONE]


DONE = Done("eos", 0, 2, 1.0)


# --- in 8 bits --------------------------------------------------------------------------------------------------


def test_in_8_bits_the_perplexity_of_the_bundled_model_is_the_same_within_a_500th() -> None:
    pytest.importorskip("numkong")
    loaded = load(resolve(None))
    exact = loaded.decoder
    rounded = Decoder(exact.config, exact.vocabulary, exact.weights, int8=True)
    valid = prepare(loaded.config.data).valid
    perplexities = [math.exp(-model.trace(valid).scores.mean()) for model in (exact, rounded)]
    assert perplexities[1] != perplexities[0]
    assert perplexities[1] == pytest.approx(perplexities[0], rel=0.002)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_in_8_bits_it_is_a_distribution_near_the_exact_one(name: str) -> None:
    pytest.importorskip("numkong")
    exact, rounded = decoder(CONFIGS[name]), decoder(CONFIGS[name], int8=True)
    near, state = rounded.advance(rounded.advance(rounded.start(), 1)[1], 5)
    log_probs, _ = exact.advance(exact.advance(exact.start(), 1)[1], 5)
    assert np.exp(near).sum() == pytest.approx(1, abs=1e-5)
    assert near == pytest.approx(log_probs, abs=0.2)
    together = advance_all(rounded, [state, state], [7, 8])
    for (its, _), token in zip(together, (7, 8), strict=True):
        assert its == pytest.approx(rounded.advance(state, token)[0], abs=1e-4)
