"""Batched generation equals generation of each text alone."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers.words import WordTokenizer
from engine.generation.batch import GenerationRequest, demultiplex, generate_batch
from engine.generation.generate import Done, generate
from engine.generation.prompt import prefill
from engine.generation.settings import SamplerSettings
from engine.models.base import advance_batch
from engine.models.cache import CacheSettings, NeuralCache
from engine.models.mixture import Mixture
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import NumpyLSTM, weight_shapes
from engine.runs.directory import resolve_run
from engine.runs.loading import load_model
from tests.support.sampling import CHAINS, without_times

SIZE = 83
VOCABULARY = WordTokenizer(("<unk>", "<eos>", *(f"w{i}" for i in range(SIZE - 2))))
CONFIGS = {
    "one layer, tied": ModelConfig(embedding_size=12, hidden_size=12, punctuation=False),
    "two layers, untied": ModelConfig(
        embedding_size=16, hidden_size=9, num_layers=2, tie_weights=False, punctuation=False
    ),
    "with punctuation": ModelConfig(embedding_size=20, hidden_size=20, punctuation=True),
}


def make_lstm(config, seed=0, *, int8=False):
    rng = np.random.default_rng(seed)
    shapes = weight_shapes(config, SIZE)
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    return NumpyLSTM(config, VOCABULARY, weights, int8=int8)


def kneser_ney():
    return KneserNey(np.random.default_rng(5).integers(0, SIZE, 2000).astype(np.int32), VOCABULARY)


MODELS = {name: make_lstm(config) for name, config in CONFIGS.items()}
MODELS["a mixture"] = Mixture([MODELS["with punctuation"], MODELS["one layer, tied"], kneser_ney()], [0.5, 0.25, 0.25])
MODELS["a cache"] = NeuralCache(MODELS["with punctuation"], CacheSettings(window=4))
MODELS["a cache on a mixture"] = NeuralCache(MODELS["a mixture"], CacheSettings(window=4))
MODELS["Kneser-Ney"] = kneser_ney()
MODELS["int8"] = make_lstm(CONFIGS["with punctuation"], int8=True)


@pytest.fixture(params=list(MODELS))
def model(request):
    return MODELS[request.param]


@pytest.mark.parametrize("texts", [1, 5])
def test_advance_batch_equals_advance_of_each_text(model, texts):
    rng = np.random.default_rng(texts)
    alone = [model.start() for _ in range(texts)]
    batch_states = list(alone)
    for tokens in rng.integers(0, SIZE, (4, texts)).tolist():
        batch_outputs = advance_batch(model, batch_states, tokens)
        batch_states = [state for _, state in batch_outputs]
        single_outputs = [model.advance(state, token) for state, token in zip(alone, tokens, strict=True)]
        alone = [state for _, state in single_outputs]
        for (log_probs, _), (expected, _) in zip(batch_outputs, single_outputs, strict=True):
            assert log_probs.dtype == np.float32
            assert log_probs == pytest.approx(expected, abs=1e-4)
            assert texts > 1 or np.array_equal(log_probs, expected)


def test_threads_can_share_a_model():
    model = MODELS["with punctuation"]

    def generate_texts(seed):
        requests = [
            GenerationRequest(prefill(model, (5,)), (5,), SamplerSettings(max_tokens=40), seed + n) for n in range(4)
        ]
        events = [event for row in generate_batch(model, requests) for _, event in row]
        return without_times([*events, *generate(model, (5,), SamplerSettings(max_tokens=40), seed)])

    expected = [generate_texts(seed) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(generate_texts, range(6))) == expected


@settings(max_examples=25, derandomize=True)  # one sample in a million can differ by rounding
@given(
    st.lists(
        st.tuples(st.sampled_from(CHAINS), st.integers(1, 12), st.integers(0, 2**32)).map(
            lambda chain: (replace(chain[0], max_tokens=chain[1]), chain[2])
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["with punctuation", "a cache"]),
)
def test_each_text_of_a_batch_equals_the_text_generated_alone(chains, name):
    model, ids = MODELS[name], (5, 6)
    state = prefill(model, ids)
    rows = list(
        generate_batch(model, [GenerationRequest(state, ids, text_settings, seed) for text_settings, seed in chains])
    )
    assert all(number < following for row in rows for (number, _), (following, _) in pairwise(row))
    for number, (text_settings, seed) in enumerate(chains):
        events = [event for row in rows for place, event in row if place == number]
        alone = list(generate(model, ids, text_settings, seed))
        assert len(events) == len(alone)
        for event, expected in zip(events, alone, strict=True):
            if isinstance(event, Done) or isinstance(expected, Done):
                assert without_times([event]) == without_times([expected])
                continue
            assert (event.index, event.id, event.text) == (expected.index, expected.id, expected.text)
            assert event.logprob == pytest.approx(expected.logprob, abs=1e-4)
            assert event.sampling_prob == pytest.approx(expected.sampling_prob, abs=1e-4)
            assert event.entropy == pytest.approx(expected.entropy, abs=1e-4)


def test_cancelling_ends_every_unfinished_text():
    model = MODELS["one layer, tied"]
    lengths, answers = (2, 50, 50), iter([False] * 4)
    requests = [GenerationRequest(prefill(model, (5,)), (5,), SamplerSettings(max_tokens=most), 3) for most in lengths]
    *seen, last = generate_batch(model, requests, lambda: next(answers, True))
    assert [number for number, _ in last] == [1, 2]
    assert all(isinstance(event, Done) and event.reason == "cancelled" and event.tokens == 4 for _, event in last)
    assert [len(row) for row in seen] == [3, 3, 3, 2]


def test_demultiplexed_texts_can_be_read_in_any_order():
    rows = [[(0, "a0"), (1, "b0")], [(0, "a1"), (1, DONE)], [(0, "a2")], [(0, DONE)]]
    for order in ((0, 1), (1, 0)):
        texts = demultiplex(iter(rows), 2)
        read_in_order = {number: list(texts[number]) for number in order}
        assert read_in_order == {0: ["a0", "a1", "a2", DONE], 1: ["b0", DONE]}
    first, second = demultiplex(iter(rows), 2)
    assert [next(second), next(first), next(first), next(second)] == ["b0", "a0", "a1", DONE]


DONE = Done("eos", 0, 2, 1.0)


@pytest.mark.slow
def test_int8_changes_the_perplexity_of_the_bundled_model_by_less_than_0_2_percent():
    loaded = load_model(resolve_run(None))
    exact = NumpyLSTM(loaded.decoder.config, loaded.decoder.tokenizer, loaded.decoder.weights)
    rounded = NumpyLSTM(exact.config, exact.tokenizer, exact.weights, int8=True)
    dataset = load_dataset(loaded.config.data, exact.tokenizer)
    counts = dataset.scored_mask(dataset.valid)
    perplexities = [math.exp(-model.score_sequence(dataset.valid)[counts].mean()) for model in (exact, rounded)]
    assert perplexities[0] == pytest.approx(loaded.valid_perplexity, rel=0.005)
    assert perplexities[1] != perplexities[0]
    assert perplexities[1] == pytest.approx(perplexities[0], rel=0.002)
