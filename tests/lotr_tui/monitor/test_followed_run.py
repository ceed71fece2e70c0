"""A record becomes the same view whether it is read whole, as it grows, or told by the training itself."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.control import Command
from engine.errors import RunError
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
from engine.runs import writer
from engine.runs.metrics import current_rows
from engine.runs.store import METRICS, SAMPLES
from lotr_tui.monitor import followed_run
from lotr_tui.monitor.followed_run import FollowedRun
from lotr_tui.monitor.metrics_reader import parts_of
from lotr_tui.monitor.training_view import TrainingView
from tests.support.runs import CONFIG, VOCABULARY


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_run, "LOOK_SECONDS", 0.005)


def a_step(number: int) -> Step:
    gradient = math.nan if number % 3 == 0 else 0.5
    return Step(number, number / 10, 100 - number / 9, 0.01, gradient, 1000.0, number / 7, 9.0)


def a_training(ends: list[int]) -> list[TrainingEvent]:
    """One that was left after each of `ends` updates but the last, and gone on with some updates before."""
    events: list[TrainingEvent] = [Preparing("counting")]
    first = 1
    for end in ends:
        events.append(Started("r", "tiny", 99, 5, 100, 10, 40, "cpu", "", 151.0, 94.0))
        if first > 1:
            events.append(Resume(first))
        for number in range(first, first + end):
            events.append(a_step(number))
            if number % 5 == 0:
                events.append(Steered(number, number / 10, "checkpoint", ""))
            if number % 7 == 0:
                events.append(Warned("the disk is full"))
            if number % 4 == 0:
                events.append(Evaluated(number, number / 10, 200 / number, True, number / 7))
                events.append(Sampled(number, number / 10, "bilbo is", f"here {number} [b]", 0, 0.7))
                events.append(Checkpointed(number, "model.safetensors"))
        if end % 2:
            events.append(Finished("stopped", "r", 1.0, 90.0, math.nan, 5.0))
        elif end % 3 == 0:
            events.append(Failed("no room"))
        first = max(2, first + end // 2)
    return events


def write(path: Path, events: list[TrainingEvent]) -> None:
    """Add events to a record, as `recording` does."""
    for event in events:
        line = json.dumps(to_record(event)) + "\n"
        if not isinstance(event, Sampled):
            with (path / METRICS).open("a") as file:
                file.write(line)
        if isinstance(event, (Sampled, Resume)):
            with (path / SAMPLES).open("a") as file:
                file.write(line)


def told(events: list[TrainingEvent]) -> TrainingView:
    view = TrainingView()
    for event in events:
        view.apply(event)
    return view


def follow_until(followed: FollowedRun, there: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not there():
        assert time.monotonic() < end, followed.view
        followed.poll()
        time.sleep(0.002)


def same(one: TrainingView, other: TrainingView) -> bool:
    """But for what is said of following, and of a beginning that is over."""
    pairs = [
        (view.steps, view.evaluations, view.samples, view.finished, view.failure, view.started) for view in (one, other)
    ]
    return pairs[0] == pairs[1] and one.phase == other.phase


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_read_whole_it_is_what_was_told(tmp_path_factory: pytest.TempPathFactory, ends: list[int]) -> None:
    path, events = tmp_path_factory.mktemp("run"), a_training(ends)
    write(path, events)
    view = TrainingView.of_run(path)
    assert same(view, told(events))
    rows = [row for row in current_rows(path / METRICS) if row["event"] == "step"]
    assert view.steps.column("step").tolist() == [row["step"] for row in rows]
    assert [sample.step for sample in view.samples] == [
        row["step"] for row in current_rows(path / SAMPLES) if row["event"] == "sampled"
    ]


@pytest.mark.parametrize("ends", [[12], [9, 12], [12, 6, 20]])
def test_followed_while_it_grows_it_is_what_was_told(tmp_path: Path, ends: list[int]) -> None:
    path, events = tmp_path / "r", a_training(ends)
    path.mkdir()
    followed = FollowedRun(path)
    for event in events:
        write(path, [event])
        if isinstance(event, Resume):  # a reader that has seen all before, and one that has not, end alike
            time.sleep(0.03)
            followed.poll()
    follow_until(followed, lambda: same(followed.view, TrainingView.of_run(path)))
    assert same(followed.view, told(events))
    followed.stop()


def test_a_run_goes_by_the_name_it_has_now(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    write(tmp_path / "new", a_training([12]))
    followed = FollowedRun(tmp_path / "new")
    follow_until(followed, lambda: followed.view.started is not None)
    assert followed.view.started is not None
    assert followed.view.started.run == "new"
    followed.stop()


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_the_log_has_the_times_at_which_it_was_told(tmp_path_factory: pytest.TempPathFactory, ends: list[int]) -> None:
    path, events = tmp_path_factory.mktemp("run"), a_training(ends)
    write(path, events)
    assert TrainingView.of_run(path).log == told(events).log


def test_what_was_asked_between_evaluations_has_its_own_time(tmp_path: Path) -> None:
    write(tmp_path, [*a_training([9])[:-1], a_step(11), Steered(11, 1.1, "pause", "")])
    line = TrainingView.of_run(tmp_path).log[-1]
    assert (line.text, line.seconds) == ("paused", 11 / 7)  # not the 8 / 7 of the last evaluation


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**18), st.floats(allow_nan=False), st.text(max_size=3), st.just([1])
)


@given(st.lists(st.dictionaries(st.sampled_from([*to_record(a_step(1)), "more"]), ODD), max_size=20))
def test_reports_with_values_of_other_types_are_passed_over(changes: list[dict[str, Any]]) -> None:
    rows = [to_record(a_step(number)) | change | {"event": "step"} for number, change in enumerate(changes, 1)]
    view = TrainingView()
    view.take_metrics(parts_of(rows))
    plain = [event for row in rows if isinstance(event := from_record(row), Step)]
    assert view.steps.column("step").tolist() == [float(event.step) for event in plain]
    np.testing.assert_array_equal(view.steps.column("lr"), [event.lr for event in plain])  # NaN is NaN


def test_reports_with_a_field_too_few_are_passed_over() -> None:
    row = to_record(a_step(1))
    del row["lr"]
    assert list(parts_of([row])) == []


def test_another_record_in_its_place_is_begun_anew(tmp_path: Path) -> None:
    write(tmp_path, a_training([12]))
    followed = FollowedRun(tmp_path)
    follow_until(followed, lambda: len(followed.view.steps) == 12)
    (tmp_path / METRICS).unlink()
    (tmp_path / SAMPLES).unlink()
    follow_until(followed, lambda: "no metrics.jsonl" in followed.view.notice)
    assert len(followed.view.steps) == 12  # what was read stays
    write(tmp_path, a_training([5]))
    follow_until(followed, lambda: len(followed.view.steps) == 5)
    follow_until(followed, lambda: len(followed.view.samples) == 1)
    followed.stop()


def test_what_is_said_of_following(tmp_path: Path) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    followed = FollowedRun(run.path)
    follow_until(followed, lambda: "no metrics.jsonl" in followed.view.notice)
    write(run.path, a_training([12]))
    follow_until(followed, lambda: followed.view.failure == "no room")
    assert followed.view.notice == ""
    write(run.path, [Resume(13)])
    follow_until(followed, lambda: followed.view.active)
    run.lock.close()
    follow_until(followed, lambda: "nobody is training it" in followed.view.notice)
    assert "train --resume r" in followed.view.notice
    run.path.rename(tmp_path / "elsewhere")
    follow_until(followed, lambda: "is gone" in followed.view.notice)
    followed.stop()


def test_asking_goes_to_whoever_trains_it(tmp_path: Path) -> None:
    from engine.runs.control_files import Requests

    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    requests, followed = Requests(run.path), FollowedRun(run.path)
    followed.steer(Command("pause"))
    assert requests() == [Command("pause")]
    run.lock.close()
    with pytest.raises(RunError, match="not being trained"):
        followed.steer(Command("pause"))
    followed.stop()
