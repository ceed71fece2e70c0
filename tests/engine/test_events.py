"""Events as rows of a record: round trips, and rows that are not events."""

import dataclasses
import json
import math
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import events
from engine.events import NOT_RECORDED, Evaluated, Finished, Step, TrainingEvent, event_from_dict, event_to_dict

EVENTS: list[TrainingEvent] = [
    events.Preparing("counting words"),
    events.Started("r", "tiny", 12, 9, 100, 10, 3, "cpu", "ab12", 151.5, 90.75),
    Step(7, 0.5, 88.25, 0.003, 0.25, 1234.5, 2.0, 40.0),
    Evaluated(7, 1.0, 80.5, True, 2.5),
    events.Sampled(7, 1.0, "bilbo baggins is", 'late "again"\n', 2**63 - 1, 0.7),
    events.Checkpointed(7, "model.safetensors"),
    Finished("patience", "r", 3.0, 76.25, 78.5, 60.0),
    events.Failed("TrainingError: the loss is nan", "Traceback\n  line"),
    events.CommandApplied(7, 0.5, "prompt", "the road"),
    events.Resume(8),
    events.Warned("cannot write metrics.jsonl: no room"),
    events.Diagnosed(7, 1.0, "loss_spike", "training perplexity jumped", "--set lr=0.01"),
]
KINDS = [type(event) for event in EVENTS]


def through_json(record):
    """Return the record after a round trip through strict JSON, which has no NaN."""
    return json.loads(json.dumps(record, allow_nan=False))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_survives_a_round_trip(event):
    record = through_json(event_to_dict(event))
    assert record["event"] == events.EVENT_NAMES[type(event)]
    decoded = event_from_dict(record)
    assert decoded == event
    assert type(decoded) is type(event)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null_and_then_nan(value):
    for event in EVENTS:
        for name in (item.name for item in dataclasses.fields(event) if item.type is float):
            record = through_json(event_to_dict(dataclasses.replace(event, **{name: value})))
            assert record[name] is None
            assert math.isnan(getattr(event_from_dict(record), name))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_row_without_a_required_field_or_with_one_of_another_type_is_no_event(event):
    row = event_to_dict(event)
    for item in dataclasses.fields(event):
        if item.default is dataclasses.MISSING:
            assert event_from_dict({name: value for name, value in row.items() if name != item.name}) is None
        if item.name not in NOT_RECORDED:
            for wrong in ([1], {"a": 1}, 3.5 if item.type is not float else "3.5"):
                assert event_from_dict(row | {item.name: wrong}) is None


def test_an_unknown_or_wrong_row_is_no_event_and_unknown_fields_are_ignored():
    step, evaluated = event_to_dict(EVENTS[2]), event_to_dict(EVENTS[3])
    wrong = [step | {"step": True}, evaluated | {"is_best": 1}, event_to_dict(EVENTS[6]) | {"reason": "because"}]
    for record in ({}, {"event": "Step"}, {"event": ["step"]}, *wrong):
        assert event_from_dict(record) is None
    assert event_from_dict(step | {"watts": 250.0}) == EVENTS[2]
    assert "model" not in event_to_dict(dataclasses.replace(EVENTS[3], model=object()))
    assert event_from_dict(evaluated | {"model": "something foreign"}) == EVENTS[3]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
NAMES = st.sampled_from([events.EVENT_NAMES[kind] for kind in KINDS])
FIELD_NAMES = st.sampled_from(sorted({item.name for kind in KINDS for item in dataclasses.fields(kind)}))


ROWS = st.fixed_dictionaries({"event": NAMES | VALUES}) | st.sampled_from(EVENTS).map(event_to_dict)


@settings(max_examples=150)
@given(row=ROWS, changes=st.dictionaries(FIELD_NAMES | st.text(max_size=4), VALUES, max_size=6))
def test_any_or_damaged_row_is_no_event_or_an_event_with_correct_types(row, changes):
    decoded = event_from_dict(row | changes)
    if decoded is None:
        return
    assert type(decoded) in KINDS
    for item in dataclasses.fields(decoded):
        value = getattr(decoded, item.name)
        if item.name in NOT_RECORDED:
            assert value is None
        elif item.type is float:
            assert type(value) in (int, float)
        elif item.type in (int, bool, str):
            assert type(value) is item.type
        else:
            assert value in (*get_args(events.StopReason), *get_args(events.DiagnosisKind))


def test_bits_per_character_are_the_bits_of_all_tokens_and_of_what_they_leave_out():
    started = events.Started("r", "tiny", 12, 9, 100, 10, 3, "cpu", "", 151.5, 90.75)
    counted = dataclasses.replace(started, valid_characters=40, valid_untokenized_bits=20.0)
    assert counted.bits_per_character(8.0) == pytest.approx((10 * 3 + 20) / 40)
    assert math.isnan(started.bits_per_character(8.0))
    assert math.isnan(counted.bits_per_character(math.nan))
