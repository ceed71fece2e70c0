"""A tracker that hangs, fails, crashes or is missing is reported once, and the training does not notice it."""

import sys

import pytest

from engine.errors import InvalidInputError
from engine.events import Evaluated, Finished, Warned
from engine.presets import PRESETS
from engine.runs.directory import METRICS_FILE
from engine.training.job import prepare_job
from lotr_tui.trackers import follower
from lotr_tui.trackers.follower import choose_trackers, read_state
from lotr_tui.trackers.libraries import TRACKER_NAMES, check_installed
from tests.support.files import write_corpus
from tests.support.runs import make_events, read_strict_rows, record_run

HANGING = {"waits": "import time; time.sleep(1000)", "is killed": "import os; os._exit(3)"}
FAILING = {
    "raises": ("raise OSError(13, 'Permission denied', '/logs')", "Permission denied: '/logs'"),
    "a screenful": ("raise ValueError('\\x1b[31mred\\n' * 1000)", "ValueError: \N{REPLACEMENT CHARACTER}[31mred"),
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a package `trackio` with some code for the processes of trackers."""

    def install(code):
        folder = tmp_path / "packages"
        folder.mkdir()
        (folder / "trackio.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
        monkeypatch.syspath_prepend(str(folder))

    return install


def train(tmp_path, name, trackers=()):
    """Train a small model. Return its events, the problems after its end, and the run directory."""
    data = write_corpus(tmp_path / "lines.csv")
    settings = {"epochs": 3, "hidden_size": 8, "embedding_size": 8, "batch_size": 4, "device": "cpu", "threads": 1}
    job = prepare_job(PRESETS["tiny"].with_values(corpus=data.corpus, **settings), name)
    choose_trackers(job.run.path, trackers)
    processes = follower.TrackerSupervisor(job.run.path)
    events = []
    for event in job.events(lambda: False, processes.take_problems):
        events.append(event)
        if isinstance(event, Evaluated) and event.step:
            assert not trackers or processes.wait(60)  # the next event comes after the failure
    return events, processes.take_problems(), job.run.path


def check_reported_once(tmp_path, reason):
    """Train with a bad tracker and without one, and compare."""
    events, late_problems, run_dir = train(tmp_path, "watched", ["trackio"])
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert reason in warning.message
    assert warning.message.isprintable()
    assert len(warning.message) < 600
    assert "`lotr-tui runs export watched --log trackio` sends the missing part later" in warning.message
    assert late_problems == []
    assert [row["message"] for row in read_strict_rows(run_dir / METRICS_FILE) if row["event"] == "warned"] == [
        warning.message
    ]
    alone = train(tmp_path, "alone")[0]
    evaluated = (Evaluated, Finished)
    assert [e.valid_perplexity for e in events if isinstance(e, evaluated)] == [
        e.valid_perplexity for e in alone if isinstance(e, evaluated)
    ]
    assert not read_state(run_dir, "trackio").is_complete


@pytest.mark.parametrize("code", HANGING.values(), ids=HANGING)
def test_hanging_tracker_is_reported_once_and_detached(home, tmp_path, install, monkeypatch, code):
    install(code)
    monkeypatch.setattr(follower, "CALL_TIMEOUT", 1.0)
    check_reported_once(tmp_path, "did not answer for 1 s, or its process was killed")


@pytest.mark.parametrize(("code", "reason"), FAILING.values(), ids=FAILING)
def test_failing_tracker_is_reported_once_and_detached(home, tmp_path, install, code, reason):
    install(code)
    check_reported_once(tmp_path, reason)


@pytest.mark.parametrize("name", TRACKER_NAMES)
def test_missing_package_is_named_before_anything_is_written(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidInputError, match=rf"{name} is not installed; pip install '.*\[{name}\]'"):
        check_installed([name])


def test_package_that_was_removed_before_a_resume_is_a_problem(home, monkeypatch):
    run_dir = record_run(home / "runs", "r", make_events())
    choose_trackers(run_dir, ["mlflow"])
    monkeypatch.setitem(sys.modules, "mlflow", None)
    processes = follower.TrackerSupervisor(run_dir)
    assert processes.wait(10)
    assert "mlflow is not installed" in processes.take_problems()[0]
    assert not any(line.startswith("mlflow: ") for line in processes.closing_lines())
