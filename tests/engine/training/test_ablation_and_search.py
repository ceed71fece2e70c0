"""Variants that change one technique, and searches of settings: ranges, pruning, records, trials as runs."""

import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import active_children
from unittest.mock import ANY

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from engine.config import Config
from engine.data.dataset import load_dataset
from engine.errors import ConfigError, RunError
from engine.presets import PRESETS
from engine.runs.directory import read_config, summarize_run
from engine.training.ablation import Trial, list_variants, run_ablation, select_variants, summarize_trials
from engine.training.search import (
    TRIALS_FILE,
    Budget,
    Search,
    SearchPlan,
    TrialRecord,
    open_study,
    parse_space,
    propose,
    split_space,
    train_trial,
)
from tests.support.files import sentences
from tests.support.models import random_weights
from tests.support.training import make_config, train_with, write_initial_run


def changed(config, overrides):
    before, after = (asdict(each) for each in (config, config.with_values(*overrides)))
    parts = ("data", "model", "training")
    return {name: new for part in parts for name, new in after[part].items() if new != before[part][name]}


@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_comes_first_and_every_variant_changes_only_its_settings(name):
    config = PRESETS[name]
    first, *others = list_variants(config).items()
    assert first == (name, [])
    assert len(others) >= 5
    for variant, overrides in others:
        assert changed(config, overrides), f"{variant} changes nothing"
        assert changed(config, overrides).keys() <= {setting.partition("=")[0] for setting in overrides}
    results = {config.with_values(*overrides).to_json() for _, overrides in others}
    assert len(results) == len(others), "two variants are the same training"


def test_techniques_in_use_are_removed_and_others_added():
    config = Config("one").with_values(
        num_layers=1, hidden_dropout=0.3, weight_drop=0.5, ar=2.0, clip=0.0, schedule="constant", variable_bptt=False
    )
    names = list_variants(config).keys()
    assert names >= {"without weight drop", "without AR and TAR", "with variable BPTT", "with a second layer"}
    assert not names & {"without dropout between layers", "without gradient clipping", "without variable BPTT"}
    lstm_only = {"weight_drop", "subword_embeddings", "punctuation", "variable_bptt", "mogrifier_rounds"}
    gpt, fine_tuning = PRESETS["gpt"], list_variants(PRESETS["finetune"])
    assert not any(lstm_only & changed(gpt, overrides).keys() for overrides in list_variants(gpt).values())
    ulmfit = {"layer_lr_decay": 2.6, "unfreeze_epochs": 1, "schedule": "slanted_triangular", "warmup_fraction": 0.1}
    assert changed(PRESETS["finetune"], fine_tuning["with all three techniques of ULMFiT"]) == ulmfit


def test_an_unknown_variant_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="'without weight drip'; did you mean without weight drop"):
        select_variants(PRESETS["default"], ["default", "without weight drip"])
    assert select_variants(PRESETS["default"], []) == list_variants(PRESETS["default"])


def test_summaries_are_means_and_ranges():
    trials = [
        Trial("b", [], 0, 13.0, 20.0, 1.0),
        Trial("a", ["x=1"], 0, 7.0, 9.0, 1.0),
        Trial("b", [], 1, 10.0, 18.0, 2.0),
        Trial("b", [], 2, 16.0, 25.0, 3.0),
    ]
    assert list(summarize_trials(trials).items()) == [("b", [13.0, 6.0, 21.0, 7.0]), ("a", [7.0, 0.0, 9.0, 0.0])]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(sentences(60)))
    values = {"embedding_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 4, "threads": 1, "device": "cpu"}
    return PRESETS["tiny"].with_values(corpus=str(path), corpus_format="text", **values)


def train_alone(config, initial_weights=None):
    return train_with(config, load_dataset(config.data), initial_weights)[-1]


class ThreadPool(ThreadPoolExecutor):
    """Pool that runs tasks in threads, since processes start slowly."""

    def __init__(self, jobs, context, max_tasks_per_child):
        super().__init__(jobs)


def test_every_variant_is_trained_with_every_seed_like_a_single_training(config, home, one_thread, monkeypatch):
    """Fine-tuning variants start from the initial run, and the last one from random weights."""
    monkeypatch.setattr("engine.training.ablation.ProcessPoolExecutor", ThreadPool)
    (home / "runs").mkdir(parents=True)
    tokenizer = load_dataset(config.data).tokenizer
    weights = random_weights(config.model, tokenizer)
    write_initial_run(home / "runs" / "old", tokenizer, weights, embedding_size=8, hidden_size=8, punctuation=True)
    config = config.with_values(init="old")
    names = ["tiny", "without pre-training (random weights)"]  # in the given order
    trials = list(run_ablation(config, select_variants(config, names), [3, 4], jobs=1))
    assert [(trial.variant, trial.seed) for trial in trials] == [(name, seed) for name in names for seed in (3, 4)]
    for trial in trials:
        values = {"seed": trial.seed} | ({} if trial.variant == "tiny" else {"init": ""})
        finished = train_alone(config.with_values(**values), weights if trial.variant == "tiny" else None)
        assert trial.valid_perplexity == finished.valid_perplexity
        assert trial.test_perplexity == finished.test_perplexity
        assert trial.seconds > 0
    assert len({trial.valid_perplexity for trial in trials}) == 4
    taught = config.with_values(init="", teachers=" old ,")
    (trial,) = run_ablation(taught, {"tiny": []}, [3], jobs=1)
    assert trial.valid_perplexity not in {each.valid_perplexity for each in trials}


@pytest.mark.slow
def test_a_worker_process_gives_the_same_perplexities(config, one_thread):
    (trial,) = run_ablation(config, select_variants(config, ["without weight drop"]), [5], jobs=1)
    finished = train_alone(config.with_values(seed=5, weight_drop=0.0))
    assert trial.valid_perplexity == pytest.approx(finished.valid_perplexity, rel=1e-6)
    assert trial.test_perplexity == pytest.approx(finished.test_perplexity, rel=1e-6)


def test_ranges_choices_and_single_values_are_told_apart():
    fixed, space = split_space(
        ["lr=0.002..0.02", "hidden_size=200..500", "optimizer=adamw,sgd", "tie_weights=yes,no", "epochs=40",
         "teachers=a,b", "corpus=../a..b.txt", "weight_decay=0..1", "input_dropout=0.1..0.9:log"]
    )  # fmt: skip
    assert fixed == ["epochs=40", "teachers=a,b", "corpus=../a..b.txt"]
    assert parse_space(space) == {
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
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_space([assignment])


def make_plan(*assignments, **settings):
    small_config = make_config(**settings)
    corpus = load_dataset(small_config.data).corpus
    return SearchPlan(small_config, assignments, corpus.sha256)


@pytest.fixture
def small_config(tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(sentences(60)))
    return {"corpus": str(corpus), "corpus_format": "text", "epochs": 4, "bptt": 24}


RECORD = TrialRecord(0, "running", {"lr": 0.02}, "s-000")


def train(plan, runs_dir, record=RECORD, is_stopped=lambda: False, trial=None):
    """Train a trial whose proposals are those of `record`, in a study of its own."""
    return train_trial(plan, runs_dir, trial or optuna.create_study().ask(plan.distributions), record, is_stopped)


def test_a_trial_is_a_run_without_a_score_of_the_test_split(tmp_path, small_config):
    trial = train(make_plan("lr=0.01..0.1", **small_config), tmp_path)
    assert (trial.state, trial.fraction) == ("complete", 1.0)
    summary = summarize_run(tmp_path / "s-000")
    assert (summary.state, summary.test_perplexity) == ("finished", None)
    assert summary.valid_perplexity == trial.valid_perplexity
    saved = read_config(tmp_path / "s-000").training
    assert (saved.lr, saved.score_test) == (0.02, False)
    again = train(make_plan("lr=0.01..0.1", **small_config), tmp_path)  # it has ended already
    assert again == replace(trial, seconds=ANY)


def test_the_worse_half_is_pruned_after_two_thirds_of_the_epochs(tmp_path, small_config):
    plan = make_plan("lr=0.01..0.1", **small_config)
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


def test_a_trial_that_diverges_or_cannot_be_trained_ends_with_its_reason(tmp_path, small_config):
    plan = make_plan("lr=0.01..0.1", **small_config, optimizer="sgd", clip=0.0)
    end = train(plan, tmp_path / "first", replace(RECORD, settings={"lr": 1000.0}))
    assert (end.state, end.message.startswith("the loss is")) == ("diverged", True)
    end = train(plan, tmp_path / "second", replace(RECORD, settings={"batch_size": 60_000}))
    assert (end.state, end.message.startswith("batch_size=60000 is too large")) == ("failed", True)


def test_a_trial_that_is_stopped_goes_on_where_it_was(tmp_path, small_config):
    plan = make_plan("lr=0.01..0.1", **small_config)
    whole = train(plan, tmp_path / "whole")
    looks = iter([False] * 6)
    stopped = train(plan, tmp_path / "parts", is_stopped=lambda: next(looks, None) is not False)
    assert stopped.state == "stopped"
    resumed = train(plan, tmp_path / "parts", stopped)
    assert (resumed.state, resumed.valid_perplexity) == ("complete", whole.valid_perplexity)


def propose_all(plan, path, result, budget=Budget(num_trials=30)):  # noqa: B008
    """Let the search in `path` propose trials without training them, with the results of `result(settings)`."""
    folder = Search.open(path.name, path.parent) if path.exists() else Search.create(path.name, path.parent, plan)
    study = open_study(path, plan, 0)
    while proposal := propose(study, plan, budget, path.name):
        trial, record = proposal
        value = result(record.settings)
        state = "diverged" if value is None else "complete"
        trial.set_user_attr("record", asdict(replace(record, state=state, valid_perplexity=value)))
        study.tell(trial, value, state=None if value else optuna.trial.TrialState.PRUNED)
    folder.close()
    return Search.open(path.name, path.parent)


def test_a_search_tries_the_good_settings_and_is_resumed(tmp_path, small_config):
    plan = make_plan("lr=0.001..0.1", "num_layers=1..3", **small_config)
    distance = lambda settings: 1 + abs(math.log(settings["lr"] / 0.01))  # noqa: E731
    found = propose_all(plan, tmp_path / "s", distance)
    assert found.plan == plan
    assert [record.number for record in found.records()] == list(range(30))
    assert found.best() == min(found.records(), key=lambda record: record.valid_perplexity)
    assert found.best().valid_perplexity < 1.3
    with pytest.raises(RunError, match="another process runs the search"):
        Search.open("s", tmp_path)
    found.close()
    with pytest.raises(RunError, match="continue it with --resume"):
        Search.create("s", tmp_path, plan)


@pytest.mark.parametrize(
    ("assignments", "result", "num_trials"),
    [(["num_layers=1,2", "optimizer=adamw,sgd"], 9.5, 4), (["lr=0.091..0.1"], None, 5)],
)
def test_a_search_ends_when_all_combinations_are_tried_or_five_trials_in_a_row_fail(
    tmp_path, small_config, assignments, result, num_trials
):
    plan = make_plan(*assignments, **small_config)
    found = propose_all(plan, tmp_path / "s", lambda settings: result)
    records = found.records()
    assert len({str(record.settings) for record in records}) == len(records) == num_trials
    found.close()
    # The failures of an earlier budget, for example on a full disk, do not end the next one.
    resumed = propose_all(plan, tmp_path / "s", lambda settings: 9.5, Budget(num_trials=2, num_earlier=num_trials))
    assert len(resumed.records()) == num_trials + 2 * (result is None)


@pytest.mark.slow
def test_a_worker_that_is_killed_stops_its_trial_and_says_so(tmp_path, small_config):
    folder = Search.create("s", tmp_path, make_plan("lr=0.01..0.1", **small_config | {"epochs": 1000}))
    is_training = (tmp_path / "s-000" / "metrics.jsonl").exists

    def kill_worker():
        if is_training():
            for worker in active_children():  # none once it is dead
                worker.kill()
        return False

    ((record, _),) = folder.run(Budget(), 1, kill_worker)
    assert (record.state, "its process ended by SIGKILL" in record.message) == ("stopped", True)


def test_a_killed_search_loses_no_trial_and_a_damaged_one_is_refused(tmp_path, small_config):
    plan = make_plan("lr=0.01..0.1", **small_config)
    path = tmp_path / "s"
    propose_all(plan, path, lambda settings: 9.5, Budget(num_trials=2)).close()
    study = open_study(path, plan, 0)
    _, running = propose(study, plan, Budget(num_trials=3), "s")
    with (path / TRIALS_FILE).open("ab") as file:
        file.write(b'{"op_code": 5, "torn')
    opened = Search.open("s", tmp_path)
    assert [record.state for record in opened.records()] == ["complete", "complete", "stopped"]
    assert opened.records()[2].settings == running.settings
    opened.close()
    (path / TRIALS_FILE).write_bytes(b'{"op_code": 99}\n')
    with pytest.raises(RunError, match="is damaged"):
        Search.open("s", tmp_path)
    for make in (os.mkfifo, lambda file: file.symlink_to(tmp_path / "elsewhere"), os.mkdir):
        (path / TRIALS_FILE).unlink()
        make(path / TRIALS_FILE)
        with pytest.raises(RunError, match=r"trials\.log cannot be written: "):
            Search.open("s", tmp_path)
    (path / TRIALS_FILE).rmdir()
    (path / "search.json").write_text("{")
    with pytest.raises(RunError, match="search 's' in"):
        Search.open("s", tmp_path)
