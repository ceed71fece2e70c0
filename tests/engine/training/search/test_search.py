"""Hyperparameter search: ranges, pruning, records that survive damage, and trials as ordinary runs."""

import math
from threading import Event

import pytest

from engine.errors import ConfigError, RunError
from engine.runs.directory import read_config
from engine.runs.summary import summarize_run
from engine.training.search import runner
from engine.training.search.plan import SearchPlan
from engine.training.search.records import TRIALS_FILE, SearchFolder, TrialRecord
from engine.training.search.runner import Budget, SearchEnded, TrialEnded, run_search
from engine.training.search.space import Choice, Range, parse_space
from engine.training.search.study import SearchStudy
from engine.training.search.worker import Assignment, TrialEnd, TrialProgress, TrialTrainer
from tests.support.files import sentences
from tests.support.training import make_config


def test_ranges_choices_and_single_values_are_told_apart():
    fixed, space = parse_space(
        ["lr=0.002..0.02", "hidden_size=200..500", "optimizer=adamw,sgd", "tie_weights=yes,no", "epochs=40",
         "teachers=a,b", "corpus=../a..b.txt", "weight_decay=0..1", "input_dropout=0.1..0.9:log"]
    )  # fmt: skip
    assert fixed == ["epochs=40", "teachers=a,b", "corpus=../a..b.txt"]
    assert space.dimensions == (
        Range("lr", 0.002, 0.02, is_integer=False, is_logarithmic=True),
        Range("hidden_size", 200, 500, is_integer=True, is_logarithmic=False),
        Choice("optimizer", ("adamw", "sgd")),
        Choice("tie_weights", (True, False)),
        Range("weight_decay", 0.0, 1.0, is_integer=False, is_logarithmic=False),
        Range("input_dropout", 0.1, 0.9, is_integer=False, is_logarithmic=True),
    )
    assert parse_space(space.to_texts()) == ([], space)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("lr=0.02..0.002", "is reversed; use lr=0.002..0.02"), ("lr=1..1", "has one value; use lr=1"),
        ("lrr=1..2", "unknown setting 'lrr'; did you mean lr?"),
        ("hidden_size=1..99999", "hidden_size=99999 is not a whole number from 1 to 16384"),
        ("lr=nan..1", "lr=nan is not a number"), ("optimizer=adamw..sgd", "use optimizer=adamw,adam,sgd"),
        ("optimizer=adamw,adm", "did you mean adam?"), ("lr=0.1,0.1", "has a value twice"),
        ("weight_decay=0..1:log", "which has no logarithm"), ("lr=0.1..1:lg", "use log or linear"),
        ("min_count=1..5", "such perplexities do not compare"), ("seed=0..9", "no value makes a better model"),
    ],
)  # fmt: skip
def test_invalid_ranges_are_refused_in_one_line(assignment, message):
    with pytest.raises(ConfigError) as refused:
        parse_space([assignment])
    assert message in str(refused.value)


def test_the_worse_half_is_pruned_and_the_setting_that_matters_is_named():
    study = SearchStudy(parse_space(["lr=0.001..0.1", "num_layers=1..3"])[1], 1, (0.25, 0.5, 1.0))
    for _ in range(30):
        proposal = study.propose()
        study.finish(proposal, "complete", abs(math.log(float(proposal.settings["lr"]) / 0.01)))
    assert next(iter(study.importances())) == "lr"
    study = SearchStudy(parse_space(["lr=0.001..0.1"])[1], 0, (0.25, 0.5, 1.0))
    proposals = [study.propose() for _ in range(4)]
    assert not any(proposal.report(0.24, 1000.0) for proposal in proposals)  # before the first rung
    # Each is compared with those that came before: 12 is worse than 10, and 11 not among the best 2 of 4.
    reports = [proposal.report(0.25, value) for proposal, value in zip(proposals, (10, 12, 9, 11), strict=True)]
    assert reports == [False, True, False, True]
    assert not proposals[0].report(0.5, 8.0)
    assert proposals[2].report(0.55, 8.5)  # the first evaluation after half of the run


PLAN = SearchPlan(make_config(), parse_space(["lr=0.01..0.1", "optimizer=adamw,sgd"])[1], (1234, 0), "ab" * 32)


def record(number, lr=0.02):
    settings = {"lr": lr, "optimizer": "sgd"}
    runs = [f"s-{number:03}-split1234", f"s-{number:03}-split0"]
    return TrialRecord(number, "complete", settings, runs, [9.5, 9.5], [(0.25, 11.25), (2.0, 9.5)], 3.5)


def test_a_damaged_or_torn_line_loses_its_trial_only_and_the_name_of_a_search_is_taken(tmp_path):
    folder = SearchFolder.create("s", tmp_path, PLAN)
    for number in range(3):
        folder.write(record(number))
    folder.close()
    file = tmp_path / "s" / TRIALS_FILE
    lines = file.read_bytes().splitlines(keepends=True)
    foreign = lines[1].replace(b"0.02", b"0.7")  # outside of the range
    file.write_bytes(lines[0] + b"\0{\n" + foreign + lines[2][:-20])
    opened = SearchFolder.open("s", tmp_path)
    assert (opened.plan, opened.records, opened.num_damaged) == (PLAN, {0: record(0)}, 3)
    with pytest.raises(RunError, match="another process runs the search"):
        SearchFolder.open("s", tmp_path)
    opened.write(record(5, 0.03))
    opened.close()
    assert SearchFolder.open("s", tmp_path).records == {0: record(0), 5: record(5, 0.03)}
    with pytest.raises(RunError, match="continue it with --resume"):
        SearchFolder.create("s", tmp_path, PLAN)
    (tmp_path / "s" / "search.json").write_text("{")
    with pytest.raises(RunError, match="search 's' in"):
        SearchFolder.open("s", tmp_path)


class ScriptedPool:
    """Pool whose trials have the perplexity 100 * lr after three quarters and at the end, and diverge above lr=0.09."""

    def __init__(self, size, runs_dir):
        self.size = size
        self._trials, self._answers = {}, {}

    @property
    def num_busy(self):
        return len(self._trials)

    def start(self, assignment):
        self._trials[assignment.number] = self._train(assignment)

    def _train(self, assignment):
        lr = float(assignment.settings["lr"])
        if lr > 0.09:
            yield TrialEnd("diverged", "the loss is nan")
        for fraction in (0.75, 1.0):
            yield TrialProgress(0, fraction, 100 * lr)
            if not self._answers.pop(assignment.number):
                yield TrialEnd("pruned")
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
        self._trials.clear()

    def close(self):
        self._trials.clear()


def test_a_search_ends_after_its_trials_and_a_resumed_one_goes_on_and_knows_the_best_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "WorkerPool", ScriptedPool)
    plan = SearchPlan(make_config(), parse_space(["lr=0.01..0.1"])[1], (1234,), "")
    first = list(run_search(SearchFolder.create("s", tmp_path, plan), Budget(num_trials=12), 2, lambda: False))
    second = list(run_search(SearchFolder.open("s", tmp_path), Budget(num_trials=8), 2, lambda: False))
    ended = [event.record for event in first + second if isinstance(event, TrialEnded)]
    assert sorted(trial.number for trial in ended) == list(range(20))
    assert {trial.state for trial in ended} == {"complete", "pruned", "diverged"}
    complete = [trial for trial in ended if trial.state == "complete"]
    assert second[-2].best == min(complete, key=lambda trial: trial.settings["lr"])
    assert isinstance(second[-1], SearchEnded)
    assert (second[-1].reason, len(second[-1].records)) == ("trials", 20)
    *_, interrupted = run_search(SearchFolder.open("s", tmp_path), Budget(), 1, lambda: True)
    assert (interrupted.reason, len(interrupted.records)) == ("interrupted", 20)


@pytest.mark.parametrize(
    ("assignments", "reason", "num_trials"),
    [(["lr=0.02,0.03", "optimizer=adamw,sgd"], "exhausted", 4), (["lr=0.091..0.1"], "failures", 5)],
)
def test_a_search_ends_when_all_combinations_are_tried_or_five_trials_in_a_row_fail(
    tmp_path, monkeypatch, assignments, reason, num_trials
):
    monkeypatch.setattr(runner, "WorkerPool", ScriptedPool)
    plan = SearchPlan(make_config(), parse_space(assignments)[1], (1234,), "")
    *_, ended = run_search(SearchFolder.create("s", tmp_path, plan), Budget(), 1, lambda: False)
    assert ended.reason == reason
    assert len({str(trial.settings) for trial in ended.records}) == len(ended.records) == num_trials


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


def test_a_trial_that_is_pruned_diverges_or_cannot_be_trained_ends_with_its_reason(tmp_path, config):
    connection = FakeConnection(lambda progress: progress.fraction < 0.5)
    assert train_trial(config, tmp_path, connection) == TrialEnd("pruned")
    summary = summarize_run(tmp_path / "s-000-split1")
    assert (summary.state, summary.epochs) == ("pruned", 2)
    assert not list(tmp_path.glob("s-*/resume*"))
    diverging = config.with_values(optimizer="sgd", lr=1000.0, clip=0.0)
    end = train_trial(diverging, tmp_path / "first", FakeConnection())
    assert (end.state, end.message.startswith("the loss is")) == ("diverged", True)
    end = train_trial(config, tmp_path / "second", FakeConnection(), batch_size=60_000)
    assert (end.state, end.message.startswith("batch_size=60000 is too large")) == ("failed", True)


def test_a_trial_whose_search_is_gone_is_stopped_and_goes_on_where_it_was(tmp_path, config):
    def fail(progress):
        raise EOFError

    expected, actual = FakeConnection(), FakeConnection()
    train_trial(config, tmp_path / "whole", expected)
    assert train_trial(config, tmp_path / "parts", FakeConnection(fail)) == TrialEnd("stopped")
    assert summarize_run(tmp_path / "parts" / "s-000-split1").state == "stopped"
    assert train_trial(config, tmp_path / "parts", actual) == TrialEnd("complete")
    assert actual.reports == expected.reports[1:]
