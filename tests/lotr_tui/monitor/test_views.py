"""Views of a training, which are the same from a complete run, a growing run and live events; steps and smoothing."""

import math
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import events
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE, drop_superseded, read_events
from engine.runs.locked_run import create_run
from lotr_tui.monitor import run_follower, training_view
from lotr_tui.monitor.training_view import TrainingView
from tests.support.app import adapter_events, training_events
from tests.support.runs import CONFIG, VOCABULARY, append_events, make_step, view_of


def test_commands_change_the_view_and_a_resume_undoes_them():
    view = view_of(training_events(3))
    assert (view.prompt, view.lr_scale, view.paused, view.checkpoint_step) == ("bilbo baggins is", 1, False, None)
    for kind, value in (("pause", ""), ("lr", "0.5"), ("prompt", "the lamp"), ("resume", ""), ("pause", "")):
        view.apply(events.CommandApplied(33, 3.0, kind, value))
    assert (view.prompt, view.lr_scale, view.paused) == ("the lamp", 0.5, True)
    view.apply(events.Finished("detached", "r", 3.0, 70.0, math.nan, 6.0))
    view.apply(events.Resume(20))
    assert (view.prompt, view.lr_scale, view.paused) == ("bilbo baggins is", 1, False)
    assert view.phase == "training"
    assert [line.text for line in view.log][-2:] == ["epoch 1.0: valid 130.0, new best", "resumed at step 20"]
    view.apply(events.Step(20, 2.0, 90.0, 0.1, 0.1, 9.0, 4.0, 2.0))
    assert view.steps.column("step").tolist()[-2:] == [13, 20]


def test_scores_of_lines_that_do_not_fit_are_ignored_and_a_resume_undoes_them():
    view = view_of(adapter_events(2))

    def gains(*epoch):
        *_, before, after = view.line_change(0, *epoch)
        return pytest.approx(list(before - after))

    view.apply(events.LinesScored(33, 3.0, ((-1.0, -1.0),)))
    assert gains() == [2, 0, -1]
    assert gains(1.5) == [1, 0, -0.5]
    view.apply(events.Resume(14))
    assert gains() == [1, 0, -0.5]
    view.apply(events.Resume(0))
    assert view.num_lines == 0


@pytest.fixture(autouse=True)
def _fast_polling(monkeypatch):
    monkeypatch.setattr(run_follower, "POLL_INTERVAL", 0.005)


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
            training.append(make_step(number))
            if number % 5 == 0:
                training.append(events.CommandApplied(number, number / 10, "checkpoint", ""))
            if number % 7 == 0:
                training.append(events.Warned("the disk is full"))
            if number % 4 == 0:
                training.append(events.Evaluated(number, number / 10, 200 / number, True, number / 7))
                training.append(events.Sampled(number, number / 10, "bilbo is", f"here {number} [b]", 0, 0.7))
                training.append(events.LinesScored(number, number / 10, ((-number,),), (("Sam", ("Run!",)),)))
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


def content(view):
    """Return what two equal views share: all but the notice of a followed run and the past activity."""
    steps = repr([view.steps.column(name).tolist() for name in training_view.STEP_FIELDS])  # NaN equals NaN
    return (
        steps,
        view.evaluations,
        view.samples,
        view.line_scores,
        view.finished,
        view.failure,
        view.started,
        view.phase,
    )


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_a_complete_run_has_the_view_and_the_log_of_its_live_events(tmp_path_factory, ends):
    path, training = tmp_path_factory.mktemp("run"), make_training(ends)
    append_events(path, training)
    view = TrainingView.from_run(path)
    assert content(view) == content(view_of(training))
    assert view.log == view_of(training).log
    assert view.best == min(view.evaluations, key=lambda event: event.valid_perplexity, default=None)
    metrics, samples = (drop_superseded(read_events(path / name)) for name in (METRICS_FILE, SAMPLES_FILE))
    assert view.steps.column("step").tolist() == [each.step for each in metrics if isinstance(each, events.Step)]
    assert view.samples == [each for each in samples if isinstance(each, events.Sampled)]


@pytest.mark.parametrize("ends", [[12], [9, 12], [12, 6, 20]])
def test_a_growing_run_has_the_view_of_its_live_events(tmp_path, ends):
    path, training = tmp_path / "r", make_training(ends)
    path.mkdir()
    followed = run_follower.RunFollower(path)
    for event in training:
        append_events(path, [event])
        if isinstance(event, events.Resume):  # a reader of the earlier rows must not differ from one that comes later
            time.sleep(0.03)
            followed.poll()
    follow_until(followed, lambda: content(followed.view) == content(TrainingView.from_run(path)))
    assert content(followed.view) == content(view_of(training))
    followed.stop()


def test_the_notice_describes_the_followed_run(tmp_path):
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    followed = run_follower.RunFollower(run.path)
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


def reference_average(perplexities, decay):
    mean, means = math.nan, []
    for value in perplexities:
        if 0 < value < 1e300:
            log = math.log10(value)
            mean = log if math.isnan(mean) else decay * mean + (1 - decay) * log
        means.append(mean if 0 < value < 1e300 else math.nan)
    return means


unusual_perplexities = st.sampled_from([math.nan, math.inf, -1.0, 0.0])


@given(st.lists(st.lists(st.floats(0.001, 1000) | unusual_perplexities, max_size=40) | st.integers(1, 90), max_size=8))
def test_smoothing_equals_the_reference_after_appends_and_rewinds(changes):
    steps, smoothed = training_view.StepColumns(), training_view.SmoothedPerplexity(0.85)
    for change in changes:
        if isinstance(change, int):
            steps.rewind(change)
        else:
            for perplexity in change:
                steps.append(replace(make_step(len(steps) + 1), train_perplexity=perplexity))
        expected = reference_average(steps.column("train_perplexity").tolist(), 0.85)
        assert smoothed.compute(steps).tolist() == pytest.approx(expected, nan_ok=True)
