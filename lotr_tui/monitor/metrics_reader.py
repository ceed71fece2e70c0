"""The rows of a record as what a view takes in: reports that follow each other as columns, all else as events."""

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from engine.events import TrainingEvent, from_record
from engine.runs.metrics import Row
from lotr_tui.monitor.step_columns import NAMES, Floats

Part = Floats | TrainingEvent
Values = Sequence[Any]

AT_ONCE = 10_000
"""Reports that are made columns of together: as rows they take ten times the memory."""

_WHOLE = {int}
_NUMBER = {int, float, type(None)}
_TYPES = [_WHOLE if name == "step" else _NUMBER for name in NAMES]
"""Of the fields of a report, in a record."""


def parts_of(rows: Iterable[Row]) -> Iterator[Part]:
    """The parts in the order of the rows; what is no event of this version, or has values of other types, is left out.

    Reports are `[field, report]`.
    """
    values_of = itemgetter(*NAMES)
    reports: list[Values] = []
    for row in rows:
        if row["event"] == "step":
            try:
                reports.append(values_of(row))
            except KeyError:
                continue
            if len(reports) >= AT_ONCE:
                yield from _columns(reports)
                reports = []
        elif (event := from_record(row)) is not None:
            if reports:  # before the event, whose time is theirs where it has none of its own
                yield from _columns(reports)
                reports = []
            yield event
    yield from _columns(reports)


def _columns(reports: list[Values]) -> Iterator[Floats]:
    columns = list(zip(*reports, strict=True))
    if any(not types.issuperset(map(type, column)) for types, column in zip(_TYPES, columns, strict=False)):
        columns = list(zip(*filter(_is_report, reports), strict=True))
    if columns:
        yield np.array(columns, np.float64)  # null becomes NaN


def _is_report(values: Values) -> bool:
    return all(type(value) in types for types, value in zip(_TYPES, values, strict=True))
