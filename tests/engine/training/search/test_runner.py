"""A search within its budget, with a pool of workers that follow a script and a clock that only they move."""

import math
from collections.abc import Callable

import pytest

from engine.training.search import runner
from engine.training.search.plan import SearchPlan
from engine.training.search.records import SearchFolder
from engine.training.search.runner import Budget, SearchEnded, TrialEnded, run_search
from engine.training.search.space import parse_space
from engine.training.search.worker import Assignment, TrialEnd, TrialProgress
from tests.support.training import make_config

TRIAL_SECONDS = 10.0


class Clock:
    """Stand-in for the module `time`."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


class ScriptedPool:
    """Pool whose workers report after three quarters and at the end of a run, and take `TRIAL_SECONDS` for a run."""

    clock: Clock
    result: Callable[[Assignment, int], float | TrialEnd]
    """Perplexity of a run of a trial, or the end of the trial in its place."""

    def __init__(self, size, runs_dir):
        self.size = size
        self.assignments = []
        self._trials = {}
        self._answers = {}
        self._is_stopped = False

    @property
    def num_busy(self):
        return len(self._trials)

    def start(self, assignment):
        self.assignments.append(assignment)
        self._trials[assignment.number] = self._train(assignment)

    def _train(self, assignment):
        for index in range(assignment.num_done, len(assignment.run_names)):
            result = type(self).result(assignment, index)
            if isinstance(result, TrialEnd):
                yield result
                return
            for fraction in (0.75, 1.0):
                self.clock.now += TRIAL_SECONDS / 2
                if self._is_stopped:
                    yield TrialEnd("stopped")
                    return
                yield TrialProgress(index, fraction, result)
                if not self._answers.pop(assignment.number):
                    yield TrialEnd("pruned")
                    return
        yield TrialEnd("complete")

    def messages(self, timeout):
        for number, trial in list(self._trials.items()):
            message = next(trial)
            if isinstance(message, TrialEnd):
                del self._trials[number]
            yield number, message

    def answer(self, number, *, may_continue):
        self._answers[number] = may_continue

    def stop(self):
        self._is_stopped = True

    def close(self):
        self._trials.clear()


def perplexity_is_lr(assignment, index):
    return 100 * float(assignment.settings["lr"]) * (index + 1)


@pytest.fixture(autouse=True)
def pools(monkeypatch):
    """Replace pool and clock, and return the list of all pools."""
    created = []

    def create(size, runs_dir):
        created.append(ScriptedPool(size, runs_dir))
        return created[-1]

    ScriptedPool.clock, ScriptedPool.result = Clock(), staticmethod(perplexity_is_lr)
    monkeypatch.setattr(runner, "WorkerPool", create)
    monkeypatch.setattr(runner, "time", ScriptedPool.clock)
    return created


def create_folder(folder, split_seeds=(1234,)):
    space = parse_space(["lr=0.01..0.1"])[1]
    return SearchFolder.create("s", folder, SearchPlan(make_config(), space, split_seeds, ""))


def search(folder, budget, jobs=1, cancelled=lambda: False):
    events = list(run_search(folder, budget, jobs, cancelled))
    ended = events[-1]
    assert isinstance(ended, SearchEnded)
    return [event.record for event in events if isinstance(event, TrialEnded)], ended


def test_no_trial_starts_when_a_typical_one_does_not_fit_any_more(tmp_path):
    records, ended = search(create_folder(tmp_path), Budget(seconds=34))
    # A complete trial takes 10 s, a pruned one 5 s. A trial of the median length still fits, and is not stopped.
    assert ended.reason == "budget"
    assert all(record.state in ("complete", "pruned") for record in records)
    assert 24 < ScriptedPool.clock.now <= 34


def test_trials_are_stopped_at_the_end_and_trained_further_by_the_next_search(tmp_path, pools):
    records, ended = search(create_folder(tmp_path, (1, 2)), Budget(seconds=14))
    assert [(record.state, record.perplexities) for record in records] == [("stopped", [records[0].reports[0][1]])]
    assert ended.reason == "budget"
    records, ended = search(SearchFolder.open("s", tmp_path), Budget(num_trials=1))
    assert [record.number for record in records] == [0, 1]
    assert (records[0].state, len(records[0].perplexities)) == ("complete", 2)
    assert pools[1].assignments[0].num_done == 1
    assert ended.reason == "trials"


def test_the_value_of_a_trial_is_the_geometric_mean_over_its_splits(tmp_path):
    (record,), _ = search(create_folder(tmp_path, (1, 2)), Budget(num_trials=1))
    first, second = record.perplexities
    assert record.value == pytest.approx(math.sqrt(first * second))
    assert [num_runs for num_runs, _ in record.reports] == [0.75, 1, 1.75, 2]


def test_a_search_in_which_all_trials_fail_ends_and_a_single_failure_does_not_end_it(tmp_path):
    def fail_often(assignment, index):
        return TrialEnd("diverged", "the loss is nan") if assignment.number != 3 else 7.0

    ScriptedPool.result = staticmethod(fail_often)
    records, ended = search(create_folder(tmp_path), Budget(num_trials=100))
    assert ended.reason == "failures"
    assert [record.state for record in records] == 3 * ["diverged"] + ["complete"] + 5 * ["diverged"]
    assert records[0].message == "the loss is nan"


def test_a_cancelled_search_keeps_its_results(tmp_path):
    records, ended = search(create_folder(tmp_path), Budget(), 2, lambda: ScriptedPool.clock.now > 35)
    assert ended.reason == "interrupted"
    assert [record.state for record in records].count("stopped") <= 2
    folder = SearchFolder.open("s", tmp_path)
    assert tuple(folder.records.values()) == ended.records
    assert any(record.state == "complete" for record in ended.records)
