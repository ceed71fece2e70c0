"""A search: records that survive damage, trials within a budget, and trials as ordinary runs."""

import math
from collections.abc import Callable
from threading import Event

import pytest

from engine.errors import RunError
from engine.runs.directory import read_config
from engine.runs.summary import summarize_run
from engine.training.search import runner
from engine.training.search.plan import SearchPlan
from engine.training.search.records import SEARCH_FILE, TRAINING_FILE, TRIALS_FILE, SearchFolder, TrialRecord
from engine.training.search.runner import Budget, SearchEnded, TrialEnded, run_search
from engine.training.search.space import parse_space
from engine.training.search.worker import Assignment, TrialEnd, TrialProgress, TrialTrainer
from tests.support.files import sentences, write_run
from tests.support.training import make_config

SEARCH_PLAN = SearchPlan(make_config(), parse_space(["lr=0.01..0.1", "optimizer=adamw,sgd"])[1], (1234, 0), "ab" * 32)


def record(number, lr=0.02):
    settings = {"lr": lr, "optimizer": "sgd"}
    runs = [f"s-{number:03}-split1234", f"s-{number:03}-split0"]
    return TrialRecord(number, "complete", settings, runs, [9.5, 9.5], [(0.25, 11.25), (2.0, 9.5)], 3.5)


def test_an_opened_search_has_the_plan_and_the_records(tmp_path):
    folder = SearchFolder.create("s", tmp_path, SEARCH_PLAN)
    assert folder.run_names(7) == ["s-007-split1234", "s-007-split0"]
    folder.write(record(0))
    folder.write(record(1, 0.03))
    folder.write(record(0, 0.04))  # the latest one counts
    folder.close()
    opened = SearchFolder.open("s", tmp_path)
    assert opened.plan == SEARCH_PLAN
    assert (opened.records, opened.num_damaged) == ({0: record(0, 0.04), 1: record(1, 0.03)}, 0)
    with pytest.raises(RunError, match="another process runs the search"):
        SearchFolder.open("s", tmp_path)


def test_damaged_lines_lose_their_trials_only(tmp_path):
    folder = SearchFolder.create("s", tmp_path, SEARCH_PLAN)
    for number in range(3):
        folder.write(record(number))
    folder.close()
    file = tmp_path / "s" / TRIALS_FILE
    lines = file.read_bytes().splitlines(keepends=True)
    foreign = lines[1].replace(b"0.02", b"0.7")  # outside of the range
    file.write_bytes(lines[0] + b"\0{\n" + foreign + lines[2][:-20])
    opened = SearchFolder.open("s", tmp_path)
    assert (list(opened.records), opened.num_damaged) == ([0], 3)
    opened.write(record(5))
    opened.close()
    assert list(SearchFolder.open("s", tmp_path).records) == [0, 5]


@pytest.mark.parametrize(
    ("file", "content"),
    [(SEARCH_FILE, "{"), (SEARCH_FILE, '{"space": ["lr=1"], "split_seeds": [1], "corpus_sha256": ""}'),
     (TRAINING_FILE, "[]"), (TRAINING_FILE, None)],
)  # fmt: skip
def test_a_damaged_search_is_refused_in_one_line(tmp_path, file, content):
    SearchFolder.create("s", tmp_path, SEARCH_PLAN).close()
    path = tmp_path / "s" / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(RunError, match="search 's' in"):
        SearchFolder.open("s", tmp_path)


def test_taken_and_unknown_names_are_refused(tmp_path):
    SearchFolder.create("lantern", tmp_path, SEARCH_PLAN).close()
    with pytest.raises(RunError, match="continue it with --resume"):
        SearchFolder.create("lantern", tmp_path, SEARCH_PLAN)
    write_run(tmp_path / "barrel-003")
    with pytest.raises(RunError, match="has a run"):
        SearchFolder.create("barrel", tmp_path, SEARCH_PLAN)
    with pytest.raises(RunError, match="did you mean lantern"):
        SearchFolder.open("lanterm", tmp_path)


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


class FakeConnection:
    """Connection to a search that answers every report with `decide`."""

    def __init__(self, decide=lambda progress: True):
        self.reports = []
        self._decide = decide

    def send(self, message):
        assert isinstance(message, TrialProgress)
        self.reports.append(message)

    def recv(self):
        return self._decide(self.reports[-1])


@pytest.fixture
def config(tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(sentences(60)))
    return make_config(corpus=str(corpus), corpus_format="text", epochs=4, bptt=24)


def train_trial(config, runs_dir, connection, **settings):
    assignment = Assignment(0, config, settings, (1, 2), ("s-000-split1", "s-000-split2"))
    return TrialTrainer(connection, Event(), runs_dir).train_trial(assignment)


def test_a_trial_is_a_run_for_each_split_without_a_score_of_the_test_split(tmp_path, config):
    connection = FakeConnection()
    assert train_trial(config, tmp_path, connection, lr=0.02) == TrialEnd("complete")
    assert [(report.run_index, report.fraction) for report in connection.reports] == [
        (index, fraction) for index in (0, 1) for fraction in (0.25, 0.5, 0.75, 1.0)
    ]
    for index, name in enumerate(("s-000-split1", "s-000-split2")):
        summary = summarize_run(tmp_path / name)
        assert (summary.state, summary.test_perplexity) == ("finished", None)
        assert summary.valid_perplexity == connection.reports[4 * index + 3].perplexity
        saved = read_config(tmp_path / name)
        assert (saved.training.lr, saved.data.split_seed, saved.training.score_test) == (0.02, index + 1, False)


def test_a_pruned_trial_is_a_pruned_run_without_a_checkpoint(tmp_path, config):
    connection = FakeConnection(lambda progress: progress.fraction < 0.5)
    assert train_trial(config, tmp_path, connection) == TrialEnd("pruned")
    summary = summarize_run(tmp_path / "s-000-split1")
    assert (summary.state, summary.epochs) == ("pruned", 2)
    assert not list(tmp_path.glob("s-*/resume*"))
    assert not (tmp_path / "s-000-split2").exists()


def test_a_trial_that_diverges_or_cannot_be_trained_ends_with_one_line(tmp_path, config):
    diverging = config.with_values(optimizer="sgd", lr=1000.0, clip=0.0)
    end = train_trial(diverging, tmp_path / "first", FakeConnection())
    assert (end.state, end.message.startswith("the loss is")) == ("diverged", True)
    end = train_trial(config, tmp_path / "second", FakeConnection(), batch_size=60_000)
    assert (end.state, end.message.startswith("batch_size=60000 is too large")) == ("failed", True)


def test_a_trial_whose_search_is_gone_is_stopped_and_goes_on_where_it_was(tmp_path, config):
    def fail(progress):
        raise EOFError

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = FakeConnection()
    train_trial(config, whole, expected)
    assert train_trial(config, parts, FakeConnection(fail)) == TrialEnd("stopped")
    assert summarize_run(parts / "s-000-split1").state == "stopped"
    actual = FakeConnection()
    assert train_trial(config, parts, actual) == TrialEnd("complete")
    assert actual.reports == expected.reports[1:]
