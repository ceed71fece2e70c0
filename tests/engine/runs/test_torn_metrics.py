"""A record whose writer was killed, or whose disk was full: at whichever byte it is torn, the rows before are there."""

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.events import Evaluated, Resume, Sampled, Step, TrainingEvent, Warned, to_record
from engine.runs.metrics import current_rows, read_rows
from engine.storage.files import Appender

FIGURES = st.floats(0, 1e6)
TEXTS = st.text(max_size=12)
EVENTS: st.SearchStrategy[TrainingEvent] = st.one_of(
    st.builds(Step, st.integers(0, 99), *[FIGURES] * 7),
    st.builds(Step, st.integers(0, 99), *[FIGURES | st.just(float("nan"))] * 7),
    st.builds(Evaluated, st.integers(0, 99), FIGURES, FIGURES, st.booleans(), FIGURES),
    st.builds(Sampled, st.integers(0, 99), FIGURES, TEXTS, TEXTS, st.integers(0, 2**62), FIGURES),
    st.builds(Warned, TEXTS),
)
TWICE = Step(10, 1.03125, 0.96875, 0.0, 100.0, 100.0, 0.0, 100000.359375)
"""A report that stands there twice, of which an outline has one."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("record") / "metrics.jsonl"


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows as a training does."""
    with closing(Appender(path)) as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


@settings(max_examples=40)
@example([TWICE, TWICE], 372)
@given(st.lists(EVENTS, max_size=8), st.integers(0, 10**6))
def test_torn_at_any_byte_it_has_the_rows_before(path: Path, events: list[TrainingEvent], tear: int) -> None:
    path.unlink(missing_ok=True)
    rows = [to_record(event) for event in events]
    write(path, rows)
    assert list(read_rows(path)) == rows
    os.truncate(path, tear % (path.stat().st_size + 1))
    whole = rows[: path.read_bytes().count(b"\n")]
    assert list(read_rows(path)) == whole
    outline = list(read_rows(path, outline=True))
    rest = iter(whole)
    assert all(row in rest for row in outline), "rows in another order, or more often than they are there"
    assert outline[-1:] == whole[-1:]


@settings(max_examples=40)
@given(st.lists(EVENTS, max_size=8), st.integers(0, 10**6), st.integers(0, 50))
def test_it_is_gone_on_with_behind_a_tear(path: Path, events: list[TrainingEvent], tear: int, step: int) -> None:
    path.unlink(missing_ok=True)
    rows = [to_record(event) for event in events]
    write(path, rows)
    os.truncate(path, tear % (path.stat().st_size + 1))
    content = path.read_bytes()
    whole = rows[: content.count(b"\n")]
    if len(whole) < len(rows) and content.endswith(b"}"):  # but for its line end all is there, and it gets that
        whole = rows[: len(whole) + 1]
    resume = to_record(Resume(step))
    write(path, [resume])
    assert list(read_rows(path)) == [*whole, resume]
    before = [row for row in read_rows(path, outline=True) if row != resume]
    assert before[-1:] == whole[-1:]
    done = [row for row in whole if not row.get("step", -1) >= step]
    assert current_rows(path) == [*done, resume]
