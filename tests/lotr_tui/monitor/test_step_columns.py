"""Step columns behave like a list of steps while steps are appended and removed."""

import math
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from engine.events import Evaluated, Finished, Resume, Sampled, Started, Step
from lotr_tui.monitor import step_columns
from lotr_tui.monitor.step_columns import STEP_FIELDS, StepColumns
from lotr_tui.monitor.training_view import TrainingView
from tests.support.metrics import make_step


@patch.object(step_columns, "INITIAL_CAPACITY", 8)  # a few dozen steps then grow the columns several times
@given(st.lists(st.tuples(st.sampled_from(["add", "resume"]), st.integers(0, 40)), max_size=12))
def test_columns_equal_a_list_of_steps(operations: list[tuple[str, int]]) -> None:
    columns, plain = StepColumns(), list[Step]()
    for kind, number in operations:
        if kind == "add":
            first = plain[-1].step + 1 if plain else 1
            new = [make_step(step) for step in range(first, first + number)]
            plain += new
            for step in new:
                columns.append(step)
        else:
            columns.rewind(number)
            plain = [step for step in plain if step.step < number]
    assert len(columns) == len(plain)
    for name in STEP_FIELDS:
        actual, expected = columns.column(name).tolist(), [float(getattr(step, name)) for step in plain]
        assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(actual, expected, strict=True))
    if plain:
        assert repr(columns.last) == repr(plain[-1])
    else:
        assert columns.last is None


def test_a_resume_removes_repeated_steps_evaluations_and_samples() -> None:
    view = TrainingView()
    for event in (
        Started("r", "tiny", 1, 2, 3, 4, 5, "cpu", "", 9.0, 8.0),
        *(make_step(step) for step in range(1, 6)),
        Evaluated(5, 1.0, 50.0, True, 1.0),
        Sampled(5, 1.0, "a", "b", 0, 0.7),
        Finished("stopped", "r", 1.0, 50.0, math.nan, 2.0),
        Resume(4),
    ):
        view.apply(event)
    assert (view.phase, len(view.steps), view.evaluations, view.samples) == ("training", 3, [], [])


def test_reserved_memory_changes_no_content() -> None:
    columns, plain = StepColumns(), StepColumns()
    for step in map(make_step, range(1, 3000)):
        if step.step in (1, 900, 2000):
            columns.reserve(step.step * 2)
        columns.append(step)
        plain.append(step)
    assert columns == plain
    assert len(columns) == 2999
