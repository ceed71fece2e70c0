"""The record of a training's events: what is written can be read, what cannot be read is no event."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import (
    Checkpointed,
    Evaluated,
    Failed,
    Finished,
    Preparing,
    Resume,
    Sampled,
    Started,
    Steered,
    Step,
    TrainingEvent,
    Warned,
    from_record,
    to_record,
)

EVENTS: list[TrainingEvent] = [
    Preparing("counting words"),
    Started("r", "tiny", 12, 9, 100, 10, 3, "cpu", "ab12", 151.5, 90.75),
    Step(7, 0.5, 88.25, 0.003, 0.25, 1234.5, 2.0, 40.0),
    Evaluated(7, 1.0, 80.5, True, 2.5),
    Sampled(7, 1.0, "bilbo baggins is", 'late "again"\n', 2**63 - 1, 0.7),
    Checkpointed(7, "model.safetensors"),
    Finished("patience", "r", 3.0, 76.25, 78.5, 60.0),
    Failed("TrainingError: the loss is nan", "Traceback\n  line"),
    Steered(7, 0.5, "prompt", "the road"),
    Resume(8),
    Warned("cannot write metrics.jsonl: no room"),
]
KINDS = [type(event) for event in EVENTS]
FLOAT_FIELDS = [(event, item.name) for event in EVENTS for item in dataclasses.fields(event) if item.type is float]


def through_json(record: dict[str, Any]) -> dict[str, Any]:
    """As a line of metrics.jsonl holds it; strict JSON has no NaN."""
    found: dict[str, Any] = json.loads(json.dumps(record, allow_nan=False))
    return found


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_round_trip(event: TrainingEvent) -> None:
    record = through_json(to_record(event))
    assert record["event"] == type(event).__name__.lower()
    found = from_record(record)
    assert found == event
    assert type(found) is type(event)


@pytest.mark.parametrize(("event", "name"), FLOAT_FIELDS, ids=lambda v: v if isinstance(v, str) else type(v).__name__)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_null_and_come_back_as_nan(
    event: TrainingEvent, name: str, value: float
) -> None:
    record = through_json(to_record(dataclasses.replace(event, **{name: value})))
    assert record[name] is None
    found = from_record(record)
    assert found is not None
    assert math.isnan(getattr(found, name))
    assert dataclasses.replace(found, **{name: getattr(event, name)}) == event


def test_the_model_of_an_event_is_no_part_of_its_record() -> None:
    model: Any = object()
    for event in (Evaluated(1, 1.0, 2.0, True, 3.0, model), Finished("done", "r", 1.0, 2.0, 3.0, 4.0, model)):
        record = to_record(event)
        assert "model" not in record
        found = from_record(record | {"model": "something foreign"})
        assert isinstance(found, type(event))
        assert found.model is None


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_record_that_lacks_a_needed_field_is_none(event: TrainingEvent) -> None:
    needed = [item.name for item in dataclasses.fields(event) if item.default is dataclasses.MISSING]
    for name in needed:
        record = to_record(event)
        del record[name]
        assert from_record(record) is None


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_field_of_another_type_is_none(event: TrainingEvent) -> None:
    for item in dataclasses.fields(event):
        if item.name != "model":
            for wrong in ([1], {"a": 1}, 3.5 if item.type is not float else "3.5"):
                assert from_record(to_record(event) | {item.name: wrong}) is None


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"event": "resume", "update": 3},
        {"event": "Step"},
        {"event": None},
        {"event": ["step"]},
        {"event": {"step": 1}},
        {"event": 7},
        to_record(EVENTS[6]) | {"reason": "because"},
        to_record(EVENTS[2]) | {"step": True},
        to_record(EVENTS[2]) | {"step": None},
        to_record(EVENTS[3]) | {"best": 1},
        to_record(EVENTS[3]) | {"seconds": False},
    ],
)
def test_garbage_is_none(record: dict[str, Any]) -> None:
    assert from_record(record) is None


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert from_record(to_record(EVENTS[2]) | {"watts": 250.0}) == EVENTS[2]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
NAMES = st.sampled_from([kind.__name__.lower() for kind in KINDS])
FIELD_NAMES = st.sampled_from(sorted({item.name for kind in KINDS for item in dataclasses.fields(kind)}))


@settings(max_examples=100, deadline=None)
@given(name=NAMES | VALUES, values=st.dictionaries(FIELD_NAMES | st.text(max_size=4), VALUES, max_size=12))
def test_any_record_is_none_or_an_event_whose_fields_have_their_types(name: Any, values: dict[str, Any]) -> None:
    assert_none_or_sound(from_record(values | {"event": name}))


@settings(max_examples=100, deadline=None)
@given(event=st.sampled_from(EVENTS), changes=st.dictionaries(FIELD_NAMES, VALUES, max_size=2))
def test_a_damaged_record_is_none_or_an_event_whose_fields_have_their_types(
    event: TrainingEvent, changes: dict[str, Any]
) -> None:
    assert_none_or_sound(from_record(to_record(event) | changes))


def assert_none_or_sound(found: TrainingEvent | None) -> None:
    if found is None:
        return
    assert type(found) in KINDS
    for item in dataclasses.fields(found):
        value = getattr(found, item.name)
        if item.name == "model":
            assert value is None
        elif item.type is float:
            assert type(value) in (int, float)
        elif item.type in (int, bool, str):
            assert type(value) is item.type
        else:
            assert value in ("done", "stopped", "patience")
