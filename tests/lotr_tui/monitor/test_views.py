"""Views of a training, which are the same from a complete run, a growing run and live events; steps and smoothing."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import events
from engine.events import CommandApplied, Finished, Resume, Sampled, Step
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE, drop_superseded, read_events
from engine.runs.locked_run import create_run
from lotr_tui.monitor import run_follower
from lotr_tui.monitor.run_follower import RunFollower
from lotr_tui.monitor.steps import (
    BLOCK_SIZE,
    STEP_FIELDS,
    SmoothedPerplexity,
    StepColumns,
    exponential_moving_average,
    log10_or_nan,
)
from lotr_tui.monitor.training_view import TrainingView
from tests.support.app import training_events
from tests.support.runs import CONFIG, VOCABULARY, append_events, make_step, view_of


def test_commands_change_the_view_and_a_resume_undoes_them():
    view = view_of(training_events(3))
    assert (view.prompt, view.lr_scale, view.paused, view.checkpoint_step) == ("bilbo baggins is", 1, False, None)
    for kind, value in (("pause", ""), ("lr", "0.5"), ("prompt", "the lamp"), ("resume", ""), ("pause", "")):
        view.apply(CommandApplied(33, 3.0, kind, value))
    assert (view.prompt, view.lr_scale, view.paused) == ("the lamp", 0.5, True)
    view.apply(Finished("detached", "r", 3.0, 70.0, math.nan, 6.0))
    view.apply(Resume(20))
    assert (view.prompt, view.lr_scale, view.paused) == ("bilbo baggins is", 1, False)
    assert view.phase == "training"
    assert [line.text for line in view.log][-2:] == ["epoch 1.0: valid 130.0, new best", "resumed at step 20"]
    view.apply(Step(20, 2.0, 90.0, 0.1, 0.1, 9.0, 4.0, 2.0))
    assert view.steps.column("step").tolist()[-2:] == [13, 20]


@pytest.fixture(autouse=True)
def _fast_polling(monkeypatch):
    monkeypatch.setattr(run_follower, "POLL_INTERVAL", 0.005)


def make_varied_step(number):
    gradient = math.nan if number % 3 == 0 else 0.5
    return events.Step(number, number / 10, 100 - number / 9, 0.01, gradient, 1000.0, number / 7, 9.0)


def make_training(ends):
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


def follow_until(followed, condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, followed.view
        followed.poll()
        time.sleep(0.002)


def columns(view):
    return repr([view.steps.column(name).tolist() for name in STEP_FIELDS])  # NaN equals NaN


def have_same_content(first, second):
    """Compare two views, without the notice of a followed run and the past activity."""
    pairs = [
        (columns(view), view.evaluations, view.samples, view.finished, view.failure, view.started)
        for view in (first, second)
    ]
    return pairs[0] == pairs[1] and first.phase == second.phase


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_a_complete_run_has_the_view_and_the_log_of_its_live_events(tmp_path_factory, ends):
    path, training = tmp_path_factory.mktemp("run"), make_training(ends)
    append_events(path, training)
    view = TrainingView.from_run(path)
    assert have_same_content(view, view_of(training))
    assert view.log == view_of(training).log
    assert view.best == min(view.evaluations, key=lambda event: event.valid_perplexity, default=None)
    steps = [event.step for event in drop_superseded(read_events(path / METRICS_FILE)) if isinstance(event, Step)]
    assert view.steps.column("step").tolist() == steps
    samples = drop_superseded(read_events(path / SAMPLES_FILE))
    assert view.samples == [event for event in samples if isinstance(event, Sampled)]


@pytest.mark.parametrize("ends", [[12], [9, 12], [12, 6, 20]])
def test_a_growing_run_has_the_view_of_its_live_events(tmp_path, ends):
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


def test_the_notice_describes_the_followed_run(tmp_path):
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    followed = RunFollower(run.path)
    follow_until(followed, lambda: "no metrics.jsonl" in followed.view.notice)
    append_events(run.path, make_training([12]))
    follow_until(followed, lambda: followed.view.failure == "no room")
    assert followed.view.notice == ""
    append_events(run.path, [events.Resume(13)])
    follow_until(followed, lambda: followed.view.is_active)
    run.lock.close()
    follow_until(followed, lambda: "no process is training it" in followed.view.notice)
    assert f"train --resume {followed.path}" in followed.view.notice
    run.path.rename(tmp_path / "elsewhere")
    follow_until(followed, lambda: "was deleted" in followed.view.notice)
    followed.stop()


log_perplexities = st.floats(-3, 3) | st.sampled_from([math.nan, math.inf, -math.inf])


def reference_average(values, decay):
    mean, means = math.nan, []
    for value in values:
        if not math.isfinite(value):
            means.append(math.nan)
            continue
        mean = value if math.isnan(mean) else decay * mean + (1 - decay) * value
        means.append(mean)
    return means


@given(
    st.lists(log_perplexities, max_size=4 * BLOCK_SIZE),
    st.sampled_from([0.0, 0.85, 0.97, 0.995]),
    st.integers(0, 4 * BLOCK_SIZE),
)
def test_moving_average_equals_the_reference_in_one_call_and_in_two(values, decay, cut):
    expected = reference_average(values, decay)
    complete, _ = exponential_moving_average(np.array(values, float), decay)
    first, mean = exponential_moving_average(np.array(values[:cut], float), decay)
    second, _ = exponential_moving_average(np.array(values[cut:], float), decay, mean)
    assert complete.tolist() == pytest.approx(expected, nan_ok=True)
    assert [*first.tolist(), *second.tolist()] == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 90)), max_size=8))
def test_smoothing_stays_correct_after_appends_and_rewinds(changes):
    steps, smoothed = StepColumns(), SmoothedPerplexity(0.85)
    for is_append, number in changes:
        if is_append:
            first = len(steps) + 1
            for step in range(first, first + number):
                steps.append(make_step(step))
        else:
            steps.rewind(number)
        expected = reference_average(log10_or_nan(steps.column("train_perplexity")).tolist(), 0.85)
        assert smoothed.compute(steps).tolist() == pytest.approx(expected, nan_ok=True)
