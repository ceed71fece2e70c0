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

FIGURES = (Evaluated, Finished)
SILENT = "did not answer for 1 s, or its process was killed"
BAD = {
    "waits": ("import time; time.sleep(1000)", SILENT),
    "is killed": ("import os; os._exit(3)", SILENT),
    "raises": ("raise OSError(13, 'Permission denied', '/logs')", "Permission denied: '/logs'"),
    "a screenful": ("raise ValueError('\\x1b[31mred\\n' * 1000)", "ValueError: \N{REPLACEMENT CHARACTER}[31mred"),
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a package `wandb` with some code for the processes of trackers."""

    def install(code):
        folder = tmp_path / "packages"
        folder.mkdir()
        (folder / "wandb.py").write_text(code)
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


class TestTrackers:
    @pytest.mark.parametrize(("code", "reason"), BAD.values(), ids=BAD)
    def test_a_bad_tracker_is_reported_once_and_detached(self, home, tmp_path, install, monkeypatch, code, reason):
        install(code)
        if reason == SILENT:
            monkeypatch.setattr(follower, "CALL_TIMEOUT", 1.0)
        events, late_problems, run_dir = train(tmp_path, "watched", ["wandb"])
        (warning,) = [event for event in events if isinstance(event, Warned)]
        assert reason in warning.message
        assert warning.message.isprintable()
        assert len(warning.message) < 600
        assert "`lotr-tui runs export watched --log wandb` sends the missing part later" in warning.message
        assert late_problems == []
        rows = read_strict_rows(run_dir / METRICS_FILE)
        assert [row["message"] for row in rows if row["event"] == "warned"] == [warning.message]
        both = (events, train(tmp_path, "alone")[0])
        watched, alone = ([e.valid_perplexity for e in each if isinstance(e, FIGURES)] for each in both)
        assert watched == alone
        assert not read_state(run_dir, "wandb").is_complete

    @pytest.mark.parametrize("name", TRACKER_NAMES)
    def test_missing_package_is_named_before_anything_is_written(self, monkeypatch, name):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InvalidInputError, match=rf"{name} is not installed; pip install '.*\[{name}\]'"):
            check_installed([name])

    def test_package_that_was_removed_before_a_resume_is_a_problem(self, home, monkeypatch):
        run_dir = record_run(home / "runs", "r", make_events())
        choose_trackers(run_dir, ["tensorboard"])
        monkeypatch.setitem(sys.modules, "tensorboard", None)
        processes = follower.TrackerSupervisor(run_dir)
        assert processes.wait(10)
        assert "tensorboard is not installed" in processes.take_problems()[0]
        assert not any(line.startswith("tensorboard: ") for line in processes.closing_lines())
