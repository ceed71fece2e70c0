"""Decoding of metrics rows for a `TrainingView`: consecutive steps become arrays, other rows become events."""

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from engine.data.arrays import Float64Array
from engine.events import TrainingEvent, event_from_dict
from engine.runs.metrics import Row
from lotr_tui.monitor.step_columns import STEP_FIELDS

RecordItem = Float64Array | TrainingEvent
"""Steps `[field, step]`, or an event of another type."""
StepRow = Sequence[Any]

CHUNK_SIZE = 10_000
"""Steps per array; as rows they take ten times the memory."""

_INT_TYPES = {int}
_NUMBER_TYPES = {int, float, type(None)}
_STEP_FIELD_TYPES = [_INT_TYPES if name == "step" else _NUMBER_TYPES for name in STEP_FIELDS]
"""Valid types of each field of a step row."""


def decode_rows(rows: Iterable[Row]) -> Iterator[RecordItem]:
    """Yield the content of rows in order; steps as arrays `[field, step]`.

    Rows that are not events of this version, or have values of other types, are skipped.
    """
    step_values = itemgetter(*STEP_FIELDS)
    steps: list[StepRow] = []
    for row in rows:
        if row["event"] == "step":
            try:
                steps.append(step_values(row))
            except KeyError:
                continue
            if len(steps) >= CHUNK_SIZE:
                yield from _to_columns(steps)
                steps = []
        elif (event := event_from_dict(row)) is not None:
            if steps:  # an event without a time field gets the time of the step before it
                yield from _to_columns(steps)
                steps = []
            yield event
    yield from _to_columns(steps)


def _to_columns(steps: list[StepRow]) -> Iterator[Float64Array]:
    columns = list(zip(*steps, strict=True))
    if any(not types.issuperset(map(type, column)) for types, column in zip(_STEP_FIELD_TYPES, columns, strict=False)):
        columns = list(zip(*filter(_is_valid_step, steps), strict=True))
    if columns:
        yield np.array(columns, np.float64)  # null becomes NaN


def _is_valid_step(values: StepRow) -> bool:
    return all(type(value) in types for types, value in zip(_STEP_FIELD_TYPES, values, strict=True))
