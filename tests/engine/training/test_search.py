"""Hyperparameter search: ranges, pruning, records that survive damage, and trials as ordinary runs."""

import math
import os
from dataclasses import asdict, replace
from multiprocessing import active_children
from unittest.mock import ANY

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from engine.data.dataset import load_dataset
from engine.errors import ConfigError, RunError
from engine.runs.directory import read_config, summarize_run
from engine.training import search
from tests.support.files import sentences
from tests.support.training import make_config


def test_ranges_choices_and_single_values_are_told_apart():
    fixed, space = search.split_space(
        ["lr=0.002..0.02", "hidden_size=200..500", "optimizer=adamw,sgd", "tie_weights=yes,no", "epochs=40",
         "teachers=a,b", "corpus=../a..b.txt", "weight_decay=0..1", "input_dropout=0.1..0.9:log"]
    )  # fmt: skip
    assert fixed == ["epochs=40", "teachers=a,b", "corpus=../a..b.txt"]
    assert search.parse_space(space) == {
        "lr": FloatDistribution(0.002, 0.02, log=True),
        "hidden_size": IntDistribution(200, 500),
        "optimizer": CategoricalDistribution(("adamw", "sgd")),
        "tie_weights": CategoricalDistribution((True, False)),
        "weight_decay": FloatDistribution(0.0, 1.0),
        "input_dropout": FloatDistribution(0.1, 0.9, log=True),
    }
    assert make_plan("lr=0.002..0.02").round({"lr": 0.0123456}) == {"lr": 0.01235}


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
        search.parse_space([assignment])
    assert message in str(refused.value)


def make_plan(*assignments, **settings):
    config = make_config(**settings)
    corpus = load_dataset(config.data).corpus
    return search.SearchPlan(config, assignments, corpus.sha256)


@pytest.fixture
def config(tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(sentences(60)))
    return {"corpus": str(corpus), "corpus_format": "text", "epochs": 4, "bptt": 24}


RECORD = search.TrialRecord(0, "running", {"lr": 0.02}, "s-000")


def train(plan, runs_dir, record=RECORD, is_stopped=lambda: False, trial=None):
    """Train a trial whose proposals are those of `record`, in a study of its own."""
    return search.train_trial(
        plan, runs_dir, trial or optuna.create_study().ask(plan.distributions), record, is_stopped
    )


def test_a_trial_is_a_run_without_a_score_of_the_test_split(tmp_path, config):
    trial = train(make_plan("lr=0.01..0.1", **config), tmp_path)
    assert (trial.state, trial.fraction) == ("complete", 1.0)
    summary = summarize_run(tmp_path / "s-000")
    assert (summary.state, summary.test_perplexity) == ("finished", None)
    assert summary.valid_perplexity == trial.valid_perplexity
    saved = read_config(tmp_path / "s-000").training
    assert (saved.lr, saved.score_test) == (0.02, False)
    assert train(make_plan("lr=0.01..0.1", **config), tmp_path) == replace(trial, seconds=ANY)  # it has ended already


def test_the_worse_half_is_pruned_after_two_thirds_of_the_epochs(tmp_path, config):
    plan = make_plan("lr=0.01..0.1", **config)
    study = optuna.create_study(pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2))
    for value in (10.0, 12.0):
        better = study.ask(plan.distributions)
        better.report(1.5, 1)
        better.should_prune()
        study.tell(better, value)
    trial = study.ask(plan.distributions)
    pruned = train(plan, tmp_path, trial=trial)
    assert (pruned.state, pruned.fraction) == ("pruned", 0.75)
    assert not list(tmp_path.glob("s-*/resume*"))


def test_a_trial_that_diverges_or_cannot_be_trained_ends_with_its_reason(tmp_path, config):
    plan = make_plan("lr=0.01..0.1", **config, optimizer="sgd", clip=0.0)
    end = train(plan, tmp_path / "first", replace(RECORD, settings={"lr": 1000.0}))
    assert (end.state, end.message.startswith("the loss is")) == ("diverged", True)
    end = train(plan, tmp_path / "second", replace(RECORD, settings={"batch_size": 60_000}))
    assert (end.state, end.message.startswith("batch_size=60000 is too large")) == ("failed", True)


def test_a_trial_that_is_stopped_goes_on_where_it_was(tmp_path, config):
    plan = make_plan("lr=0.01..0.1", **config)
    whole = train(plan, tmp_path / "whole")
    looks = iter([False] * 6)
    stopped = train(plan, tmp_path / "parts", is_stopped=lambda: next(looks, None) is not False)
    assert stopped.state == "stopped"
    resumed = train(plan, tmp_path / "parts", stopped)
    assert (resumed.state, resumed.valid_perplexity) == ("complete", whole.valid_perplexity)


def propose_all(plan, path, result, budget=search.Budget(num_trials=30)):  # noqa: B008
    """Let the search in `path` propose trials without training them, with the results of `result(settings)`."""
    folder = (
        search.Search.open(path.name, path.parent)
        if path.exists()
        else search.Search.create(path.name, path.parent, plan)
    )
    study = search.open_study(path, plan, 0)
    while proposal := search.propose(study, plan, budget, path.name):
        trial, record = proposal
        value = result(record.settings)
        state = "diverged" if value is None else "complete"
        trial.set_user_attr("record", asdict(replace(record, state=state, valid_perplexity=value)))
        study.tell(trial, value, state=None if value else optuna.trial.TrialState.PRUNED)
    folder.close()
    return search.Search.open(path.name, path.parent)


def test_a_search_tries_the_good_settings_names_the_one_that_matters_and_is_resumed(tmp_path, config):
    plan = make_plan("lr=0.001..0.1", "num_layers=1..3", **config)
    distance = lambda settings: 1 + abs(math.log(settings["lr"] / 0.01))  # noqa: E731
    found = propose_all(plan, tmp_path / "s", distance)
    assert found.plan == plan
    assert [record.number for record in found.records()] == list(range(30))
    assert found.best() == min(found.records(), key=lambda record: record.valid_perplexity)
    assert found.best().valid_perplexity < 1.3
    assert next(iter(found.importances())) == "lr"
    with pytest.raises(RunError, match="another process runs the search"):
        search.Search.open("s", tmp_path)
    found.close()
    with pytest.raises(RunError, match="continue it with --resume"):
        search.Search.create("s", tmp_path, plan)


@pytest.mark.parametrize(
    ("assignments", "result", "num_trials"),
    [(["num_layers=1,2", "optimizer=adamw,sgd"], 9.5, 4), (["lr=0.091..0.1"], None, 5)],
)
def test_a_search_ends_when_all_combinations_are_tried_or_five_trials_in_a_row_fail(
    tmp_path, config, assignments, result, num_trials
):
    plan = make_plan(*assignments, **config)
    found = propose_all(plan, tmp_path / "s", lambda settings: result)
    records = found.records()
    assert len({str(record.settings) for record in records}) == len(records) == num_trials
    found.close()
    # The failures of an earlier budget, for example on a full disk, do not end the next one.
    resumed = propose_all(
        plan, tmp_path / "s", lambda settings: 9.5, search.Budget(num_trials=2, num_earlier=num_trials)
    )
    assert len(resumed.records()) == num_trials + 2 * (result is None)


@pytest.mark.slow
def test_a_worker_that_is_killed_stops_its_trial_and_says_so(tmp_path, config):
    folder = search.Search.create("s", tmp_path, make_plan("lr=0.01..0.1", **config | {"epochs": 1000}))
    is_training = (tmp_path / "s-000" / "metrics.jsonl").exists

    def kill_worker():
        if is_training():
            for worker in active_children():  # none once it is dead
                worker.kill()
        return False

    ((record, _),) = folder.run(search.Budget(), 1, kill_worker)
    assert (record.state, "its process ended by SIGKILL" in record.message) == ("stopped", True)


def test_a_killed_search_loses_no_trial_and_a_damaged_one_is_refused(tmp_path, config):
    plan = make_plan("lr=0.01..0.1", **config)
    path = tmp_path / "s"
    propose_all(plan, path, lambda settings: 9.5, search.Budget(num_trials=2)).close()
    study = search.open_study(path, plan, 0)
    _, running = search.propose(study, plan, search.Budget(num_trials=3), "s")
    with (path / search.TRIALS_FILE).open("ab") as file:
        file.write(b'{"op_code": 5, "torn')
    opened = search.Search.open("s", tmp_path)
    assert [record.state for record in opened.records()] == ["complete", "complete", "stopped"]
    assert opened.records()[2].settings == running.settings
    opened.close()
    (path / search.TRIALS_FILE).write_bytes(b'{"op_code": 99}\n')
    with pytest.raises(RunError, match="is damaged"):
        search.Search.open("s", tmp_path)
    for make in (os.mkfifo, lambda file: file.symlink_to(tmp_path / "elsewhere"), os.mkdir):
        (path / search.TRIALS_FILE).unlink()
        make(path / search.TRIALS_FILE)
        with pytest.raises(RunError, match=r"trials\.log cannot be written: "):
            search.Search.open("s", tmp_path)
    (path / search.TRIALS_FILE).rmdir()
    (path / "search.json").write_text("{")
    with pytest.raises(RunError, match="search 's' in"):
        search.Search.open("s", tmp_path)
