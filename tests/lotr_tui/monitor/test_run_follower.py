"""A training view is the same from a complete run, from a growing run, and from live events."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import events
from engine.control import ControlCommand
from engine.errors import RunError
from engine.runs.control_files import CommandFileReader
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE
from engine.runs.locked_run import create_run
from engine.runs.metrics import read_current_rows
from lotr_tui.monitor import run_follower
from lotr_tui.monitor.metrics_reader import decode_rows
from lotr_tui.monitor.run_follower import RunFollower
from lotr_tui.monitor.training_view import TrainingView
from tests.support.metrics import append_events, view_of
from tests.support.runs import CONFIG, VOCABULARY


@pytest.fixture(autouse=True)
def _fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_follower, "POLL_INTERVAL", 0.005)


def make_varied_step(number: int) -> events.Step:
    gradient = math.nan if number % 3 == 0 else 0.5
    return events.Step(number, number / 10, 100 - number / 9, 0.01, gradient, 1000.0, number / 7, 9.0)


def make_training(ends: list[int]) -> list[events.TrainingEvent]:
    """Return the events of a training that was interrupted and resumed, with `ends[i]` steps in its part `i`.

    Each part repeats some steps of the part before.
    """
    training: list[events.TrainingEvent] = [events.Preparing("counting")]
    first = 1
    for end in ends:
        training.append(events.Started("r", "tiny", 99, 5, 100, 10, 40, "cpu", "", 151.0, 94.0))
        if first > 1:
            training.append(events.Resume(first))
        for number in range(first, first + end):
            training.append(make_varied_step(number))
            if number % 5 == 0:
                training.append(events.CommandApplied(number, number / 10, "checkpoint", ""))
            if number % 7 == 0:
                training.append(events.Warned("the disk is full"))
            if number % 4 == 0:
                training.append(events.Evaluated(number, number / 10, 200 / number, True, number / 7))
                training.append(events.Sampled(number, number / 10, "bilbo is", f"here {number} [b]", 0, 0.7))
                training.append(events.Checkpointed(number, "model.safetensors"))
        if end % 2:
            training.append(events.Finished("stopped", "r", 1.0, 90.0, math.nan, 5.0))
        elif end % 3 == 0:
            training.append(events.Failed("no room"))
        first = max(2, first + end // 2)
    return training


def follow_until(followed: RunFollower, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, followed.view
        followed.poll()
        time.sleep(0.002)


def have_same_content(first: TrainingView, second: TrainingView) -> bool:
    """Compare two views, without the notice of a followed run and the past activity."""
    pairs = [
        (view.steps, view.evaluations, view.samples, view.finished, view.failure, view.started)
        for view in (first, second)
    ]
    return pairs[0] == pairs[1] and first.phase == second.phase


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_a_complete_run_has_the_view_and_the_log_of_its_live_events(
    tmp_path_factory: pytest.TempPathFactory, ends: list[int]
) -> None:
    path, training = tmp_path_factory.mktemp("run"), make_training(ends)
    append_events(path, training)
    view = TrainingView.from_run(path)
    assert have_same_content(view, view_of(training))
    assert view.log == view_of(training).log
    rows = [row for row in read_current_rows(path / METRICS_FILE) if row["event"] == "step"]
    assert view.steps.column("step").tolist() == [row["step"] for row in rows]
    assert [sample.step for sample in view.samples] == [
        row["step"] for row in read_current_rows(path / SAMPLES_FILE) if row["event"] == "sampled"
    ]


@pytest.mark.parametrize("ends", [[12], [9, 12], [12, 6, 20]])
def test_a_growing_run_has_the_view_of_its_live_events(tmp_path: Path, ends: list[int]) -> None:
    path, training = tmp_path / "r", make_training(ends)
    path.mkdir()
    followed = RunFollower(path)
    for event in training:
        append_events(path, [event])
        if isinstance(
            event, events.Resume
        ):  # a reader that has seen the earlier rows must not differ from one that has not
            time.sleep(0.03)
            followed.poll()
    follow_until(followed, lambda: have_same_content(followed.view, TrainingView.from_run(path)))
    assert have_same_content(followed.view, view_of(training))
    followed.stop()


def test_a_renamed_run_is_shown_with_its_new_name(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    append_events(tmp_path / "new", make_training([12]))
    followed = RunFollower(tmp_path / "new")
    follow_until(followed, lambda: followed.view.started is not None)
    assert followed.view.started is not None
    assert followed.view.started.run == "new"
    followed.stop()


def test_a_command_between_evaluations_is_logged_with_the_time_of_the_last_step(tmp_path: Path) -> None:
    append_events(
        tmp_path, [*make_training([9])[:-1], make_varied_step(11), events.CommandApplied(11, 1.1, "pause", "")]
    )
    line = TrainingView.from_run(tmp_path).log[-1]
    assert (line.text, line.seconds) == ("paused", 11 / 7)  # not 8 / 7, the time of the last evaluation


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**18), st.floats(allow_nan=False), st.text(max_size=3), st.just([1])
)


@given(
    st.lists(st.dictionaries(st.sampled_from([*events.event_to_dict(make_varied_step(1)), "more"]), ODD), max_size=20)
)
def test_steps_with_values_of_other_types_are_skipped(changes: list[dict[str, Any]]) -> None:
    rows = [
        events.event_to_dict(make_varied_step(number)) | change | {"event": "step"}
        for number, change in enumerate(changes, 1)
    ]
    view = TrainingView()
    view.apply_metrics(decode_rows(rows))
    plain = [event for row in rows if isinstance(event := events.event_from_dict(row), events.Step)]
    assert view.steps.column("step").tolist() == [float(event.step) for event in plain]
    np.testing.assert_array_equal(view.steps.column("lr"), [event.lr for event in plain])  # equal NaN


def test_steps_with_a_missing_field_are_skipped() -> None:
    row = events.event_to_dict(make_varied_step(1))
    del row["lr"]
    assert list(decode_rows([row])) == []


def test_a_replaced_run_is_read_from_its_start(tmp_path: Path) -> None:
    append_events(tmp_path, make_training([12]))
    followed = RunFollower(tmp_path)
    follow_until(followed, lambda: len(followed.view.steps) == 12)
    (tmp_path / METRICS_FILE).unlink()
    (tmp_path / SAMPLES_FILE).unlink()
    follow_until(followed, lambda: "no metrics.jsonl" in followed.view.notice)
    assert len(followed.view.steps) == 12  # deleted rows stay visible
    append_events(tmp_path, make_training([5]))
    follow_until(followed, lambda: len(followed.view.steps) == 5)
    follow_until(followed, lambda: len(followed.view.samples) == 1)
    followed.stop()


def test_the_notice_describes_the_followed_run(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    followed = RunFollower(run.path)
    follow_until(followed, lambda: "no metrics.jsonl" in followed.view.notice)
    append_events(run.path, make_training([12]))
    follow_until(followed, lambda: followed.view.failure == "no room")
    assert followed.view.notice == ""
    append_events(run.path, [events.Resume(13)])
    follow_until(followed, lambda: followed.view.is_active)
    run.lock.release()
    follow_until(followed, lambda: "no process is training it" in followed.view.notice)
    assert f"train --resume {followed.path}" in followed.view.notice
    run.path.rename(tmp_path / "elsewhere")
    follow_until(followed, lambda: "was deleted" in followed.view.notice)
    followed.stop()


def test_commands_are_sent_to_the_process_that_trains_the_run(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    commands, followed = CommandFileReader(run.path), RunFollower(run.path)
    followed.send_command(ControlCommand("pause"))
    assert commands() == [ControlCommand("pause")]
    run.lock.release()
    with pytest.raises(RunError, match="not being trained"):
        followed.send_command(ControlCommand("pause"))
    followed.stop()
