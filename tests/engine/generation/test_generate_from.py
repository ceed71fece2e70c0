"""Generation from a kept decoder state, forced tokens, and time measurement."""

import math
from typing import Literal

import numpy as np
import pytest

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.generation import generate as generation
from engine.generation.generate import Done, TokenEvent, force_token, generate, generate_from
from engine.generation.prompt import prefill
from engine.generation.sampling import process_log_probs
from engine.generation.settings import SamplerSettings
from engine.models.numpy_lstm import NumpyLSTM
from tests.support.models import random_lstm
from tests.support.sampling import id_vocabulary, without_times


def make_model(eos_bias: float = -4.0) -> NumpyLSTM:
    """Create a small random model; a low `eos_bias` makes its texts longer."""
    model = random_lstm(ModelConfig(embedding_size=12, hidden_size=12), id_vocabulary(40), scale=0.6)
    model.weights["output.bias"][EOS_ID] = eos_bias
    return model


MODEL = make_model()
SETTINGS = SamplerSettings(max_tokens=20, repetition_penalty=1.3)


def test_prefill_in_two_parts_equals_prefill_at_once() -> None:
    whole, parts = prefill(MODEL, [5, 6, 7]), prefill(MODEL, [6, 7], prefill(MODEL, [5]))
    assert np.array_equal(whole.log_probs, parts.log_probs)


def test_generating_from_a_kept_state_equals_generating_from_the_text() -> None:
    kept = prefill(MODEL, [5, 6])
    for _ in range(2):  # twice, since generating must not change the state
        events = [e if isinstance(e, Done) else e[0] for e in generate_from(MODEL, kept, [5, 6], SETTINGS, 3)]
        assert without_times(events) == without_times(list(generate(MODEL, [5, 6], SETTINGS, 3)))


def test_each_token_comes_with_the_state_after_it() -> None:
    ids = [5, 6]
    for event in generate_from(MODEL, prefill(MODEL, ids), ids, SETTINGS, 3):
        if isinstance(event, tuple):
            ids.append(event[0].id)
            assert np.array_equal(event[1].log_probs, prefill(MODEL, ids).log_probs)
    assert len(ids) > 10


@pytest.mark.parametrize("first", [True, False])
def test_a_text_can_end_at_once_unless_its_first_token_comes_next(first: bool) -> None:
    model = make_model(eos_bias=50.0)
    events = list(generate_from(model, prefill(model, [5]), [5], SamplerSettings(), 3, is_first_token=first))
    assert len(events) == 1 + first


def test_a_forced_token_has_the_figures_of_its_position() -> None:
    kept = prefill(MODEL, [5, 6])
    event, after = force_token(MODEL, kept, [5, 6], SETTINGS, 9)
    chain = process_log_probs(kept.log_probs, SETTINGS, [5, 6], suppress_eos=False)
    assert (event.id, event.text) == (9, MODEL.tokenizer.tokens[9])
    assert event.sampling_prob == pytest.approx(math.exp(chain[9]))
    assert event.rank == sorted(kept.log_probs, reverse=True).index(kept.log_probs[9]) + 1
    assert np.array_equal(after.log_probs, prefill(MODEL, [5, 6, 9]).log_probs)


@pytest.mark.parametrize("first", [True, False])
def test_eos_has_probability_zero_as_a_forced_first_token(first: bool) -> None:
    kept = prefill(MODEL, [5, 6])
    event, _ = force_token(MODEL, kept, [5, 6], SETTINGS, EOS_ID, is_first_token=first)
    chain = process_log_probs(kept.log_probs, SETTINGS, [5, 6], suppress_eos=first)
    assert event.sampling_prob == pytest.approx(math.exp(chain[EOS_ID]))
    assert (event.sampling_prob == 0) == first
    assert event.num_kept == np.count_nonzero(np.exp(chain))


class Clock:
    """A clock that advances by one second per call; tests can advance it further."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("engine.generation.generate.time.perf_counter", clock)
    return clock


@pytest.mark.parametrize(("reason", "words"), [("length", 7), ("cancelled", 4), ("eos", 1)])
def test_time_between_events_is_not_counted(
    clock: Clock, reason: Literal["length", "cancelled", "eos"], words: int
) -> None:
    model, settings = make_model(eos_bias=50.0 if reason == "eos" else -50.0), SamplerSettings(max_tokens=7)
    events: list[TokenEvent | Done] = []
    cancelled = (lambda: len(events) == words) if reason == "cancelled" else lambda: False
    for event in generate(model, [5, 6], settings, 3, cancelled):
        events.append(event)
        clock.now += 100  # a slow consumer
    assert events.pop() == Done(reason, 3, words, 1.0)
    assert [(event.index, event.seconds) for event in events if isinstance(event, TokenEvent)] == [
        (index, 1.0) for index in range(words)
    ]


def test_a_forced_token_has_index_0_and_a_time(clock: Clock) -> None:
    event, _ = force_token(MODEL, prefill(MODEL, [5, 6]), [5, 6], SETTINGS, 9)
    assert (event.index, event.seconds) == (0, 1.0)


def test_speed_is_zero_without_a_measured_time() -> None:
    assert [
        generation.tokens_per_second(0, 0.0),
        generation.tokens_per_second(30, 0.0),
        generation.tokens_per_second(30, 2.0),
        generation.tokens_per_second(30, 0.5),
    ] == [0.0, 0.0, 15.0, 60.0]


def test_a_seed_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="seed"):
        next(generate_from(MODEL, prefill(MODEL, []), [], SETTINGS, -1))
