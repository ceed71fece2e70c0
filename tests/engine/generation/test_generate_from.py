"""Going on from a place that was kept."""

import math
from typing import Literal

import numpy as np
import pytest

from engine.data.vocabulary import EOS_ID
from engine.errors import UnusableInput
from engine.generation.generate import Done, TokenEvent, apply_chain, choose, go_on, rate, read, stream
from engine.generation.settings import SamplerSettings
from tests.lotr_tui.conftest import make_decoder

MODEL = make_decoder()
SETTINGS = SamplerSettings(max_tokens=20, repetition_penalty=1.3)


def without_times(events: list[TokenEvent | Done]) -> list[object]:
    return [
        (e.id, e.logprob, e.prob, e.rank, e.kept) if isinstance(e, TokenEvent) else (e.reason, e.tokens) for e in events
    ]


def test_what_was_read_is_read_on() -> None:
    whole, parts = read(MODEL, [5, 6, 7]), read(MODEL, [6, 7], read(MODEL, [5]))
    assert np.array_equal(whole.log_probs, parts.log_probs)


def test_from_a_place_that_was_kept_come_the_words_that_come_from_the_text() -> None:
    kept = read(MODEL, [5, 6])
    for _ in range(2):  # a reading is a value: to go on from it does not change it
        events = [e if isinstance(e, Done) else e[0] for e in go_on(MODEL, kept, [5, 6], SETTINGS, 3)]
        assert without_times(events) == without_times(list(stream(MODEL, [5, 6], SETTINGS, 3)))


def test_each_word_brings_what_was_read_with_it() -> None:
    ids = [5, 6]
    for event in go_on(MODEL, read(MODEL, ids), ids, SETTINGS, 3):
        if isinstance(event, tuple):
            ids.append(event[0].id)
            assert np.array_equal(event[1].log_probs, read(MODEL, ids).log_probs)
    assert len(ids) > 10


@pytest.mark.parametrize("first", [True, False])
def test_a_text_may_end_at_once_where_words_stand_before(first: bool) -> None:
    model = make_decoder()
    model.weights["output.bias"][EOS_ID] = 50.0
    events = list(go_on(model, read(model, [5]), [5], SamplerSettings(), 3, first=first))
    assert len(events) == 1 + first


def test_a_word_that_is_chosen_has_the_figures_of_its_place() -> None:
    kept = read(MODEL, [5, 6])
    event, after = choose(MODEL, kept, [5, 6], SETTINGS, 9)
    chain = apply_chain(kept.log_probs, SETTINGS, [5, 6], first=False)
    assert (event.id, event.text) == (9, MODEL.vocabulary.words[9])
    assert event.prob == pytest.approx(math.exp(chain[9]))
    assert event.rank == sorted(kept.log_probs, reverse=True).index(kept.log_probs[9]) + 1
    assert np.array_equal(after.log_probs, read(MODEL, [5, 6, 9]).log_probs)


@pytest.mark.parametrize("first", [True, False])
def test_a_first_word_that_is_chosen_is_of_a_text_that_does_not_end_yet(first: bool) -> None:
    kept = read(MODEL, [5, 6])
    event, _ = choose(MODEL, kept, [5, 6], SETTINGS, EOS_ID, first=first)
    chain = apply_chain(kept.log_probs, SETTINGS, [5, 6], first=first)
    assert event.prob == pytest.approx(math.exp(chain[EOS_ID]))
    assert (event.prob == 0) == first
    assert event.kept == np.count_nonzero(np.exp(chain))


class Clock:
    """Tells a second more each time it is asked, and what is added in between."""

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
def test_only_computing_counts_as_time_however_it_ends(
    clock: Clock, reason: Literal["length", "cancelled", "eos"], words: int
) -> None:
    model, settings = make_decoder(), SamplerSettings(max_tokens=7)
    model.weights["output.bias"][EOS_ID] = 50.0 if reason == "eos" else -50.0
    events: list[TokenEvent | Done] = []
    cancelled = (lambda: len(events) == words) if reason == "cancelled" else lambda: False
    for event in stream(model, [5, 6], settings, 3, cancelled):
        events.append(event)
        clock.now += 100  # whoever reads takes long
    assert events.pop() == Done(reason, 3, words, 1.0)
    assert [(event.index, event.seconds) for event in events if isinstance(event, TokenEvent)] == [
        (index, 1.0) for index in range(words)
    ]


def test_a_word_that_is_chosen_is_the_first_and_has_its_time(clock: Clock) -> None:
    event, _ = choose(MODEL, read(MODEL, [5, 6]), [5, 6], SETTINGS, 9)
    assert (event.index, event.seconds) == (0, 1.0)


def test_no_time_is_no_rate() -> None:
    assert [rate(0, 0.0), rate(30, 0.0), rate(30, 2.0), rate(30, 0.5)] == [0.0, 0.0, 15.0, 60.0]


def test_a_seed_out_of_range_is_refused() -> None:
    with pytest.raises(UnusableInput, match="seed"):
        next(go_on(MODEL, read(MODEL, []), [], SETTINGS, -1))
