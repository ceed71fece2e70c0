"""Metrics that a killed process left torn at any byte keep all earlier rows."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.events import Evaluated, Resume, Sampled, Step, TrainingEvent, Warned, event_to_dict
from engine.runs.metrics import read_current_rows, read_rows
from engine.storage.json_lines import JsonLinesAppender

NUMBERS = st.floats(0, 1e6)
TEXTS = st.text(max_size=12)
EVENTS: st.SearchStrategy[TrainingEvent] = st.one_of(
    st.builds(Step, st.integers(0, 99), *[NUMBERS] * 7),
    st.builds(Step, st.integers(0, 99), *[NUMBERS | st.just(float("nan"))] * 7),
    st.builds(Evaluated, st.integers(0, 99), NUMBERS, NUMBERS, st.booleans(), NUMBERS),
    st.builds(Sampled, st.integers(0, 99), NUMBERS, TEXTS, TEXTS, st.integers(0, 2**62), NUMBERS),
    st.builds(Warned, TEXTS),
)
REPEATED_STEP = Step(10, 1.03125, 0.96875, 0.0, 100.0, 100.0, 0.0, 100000.359375)
"""Step that is recorded twice; subsampling returns it once."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("record") / "metrics.jsonl"


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows as a training does."""
    with closing(JsonLinesAppender(path)) as appender:
        for row in rows:
            appender.append(row)


@settings(max_examples=40)
@example([REPEATED_STEP, REPEATED_STEP], 372)
@given(st.lists(EVENTS, max_size=8), st.integers(0, 10**6))
def test_metrics_torn_at_any_byte_have_the_rows_before_the_tear(
    path: Path, events: list[TrainingEvent], tear: int
) -> None:
    path.unlink(missing_ok=True)
    rows = [event_to_dict(event) for event in events]
    append_rows(path, rows)
    assert list(read_rows(path)) == rows
    os.truncate(path, tear % (path.stat().st_size + 1))
    complete = rows[: path.read_bytes().count(b"\n")]
    assert list(read_rows(path)) == complete
    subsampled = list(read_rows(path, subsample=True))
    remaining = iter(complete)
    assert all(row in remaining for row in subsampled), "rows in another order, or repeated"
    assert subsampled[-1:] == complete[-1:]


@settings(max_examples=40)
@example([Warned("00")], 36, 0)  # only the line end is lost
@given(st.lists(EVENTS, max_size=8), st.integers(0, 10**6), st.integers(0, 50))
def test_a_resumed_training_appends_after_a_tear(path: Path, events: list[TrainingEvent], tear: int, step: int) -> None:
    path.unlink(missing_ok=True)
    rows = [event_to_dict(event) for event in events]
    append_rows(path, rows)
    lines = path.read_bytes().split(b"\n")
    os.truncate(path, tear % (path.stat().st_size + 1))
    torn = path.read_bytes().split(b"\n")
    complete = rows[: len(torn) - 1]
    if torn[-1] and torn[-1] == lines[len(complete)]:
        complete.append(rows[len(complete)])  # only the line end was lost
    resume = event_to_dict(Resume(step))
    append_rows(path, [resume])
    assert list(read_rows(path)) == [*complete, resume]
    before = [row for row in read_rows(path, subsample=True) if row != resume]
    assert before[-1:] == complete[-1:]
    current = [row for row in complete if not row.get("step", -1) >= step]
    assert read_current_rows(path) == [*current, resume]
