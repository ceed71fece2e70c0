"""`search`: trials as runs, the command for the best settings, continuing, and bad input."""

import json
import shlex

import pytest

from engine.config import describe_settings
from engine.data.tokenizers.words import WordTokenizer
from engine.runs.summary import list_runs
from lotr_tui.cli.search.train_command import format_train_command
from lotr_tui.cli.training_options import parse_training
from tests.support.files import sentences
from tests.support.initial_runs import write_initial_run

SMALL = (
    *("--set", "embedding_size=16", "--set", "subword_embeddings=false", "--set", "punctuation=false"),
    *("--precision", "fp32", "--epochs", "4", "--jobs", "1"),
)


@pytest.fixture
def corpus(tmp_path):
    """Return the path of a text with 120 lines."""
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(sentences(120)))
    return path


def settings_of(command, *options):
    """Return the value of each setting as text."""
    process = command("train", "--list-settings", *options)
    assert process.returncode == 0, process.stderr
    settings = {}
    for line in process.stdout.splitlines():
        name, _, rest = line.partition("=")
        settings[name] = rest.removesuffix(describe_settings()[name][1]).rstrip()
    return settings


def test_trials_are_runs_and_the_best_settings_become_a_command_for_train(command, home, corpus):
    options = ("--text", corpus, "--set", "lr=0.002..0.1", "--set", "optimizer=adamw,sgd", "--name", "s", *SMALL)
    process = command("search", "--trials", 3, "--json", *options)
    assert process.returncode == 0, process.stderr
    *trials, summary = map(json.loads, process.stdout.splitlines())
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    best = min((trial for trial in trials if trial["state"] == "complete"), key=lambda row: row["valid_perplexity"])
    assert (summary["reason"], summary["best"]["number"]) == ("trials", best["number"])
    runs = {run.name: run for run in list_runs(home / "runs")}
    assert sorted(runs) == ["s-000", "s-001", "s-002"]
    for trial in trials:
        run = runs[trial["runs"][0]]
        assert run.state == ("finished" if trial["state"] == "complete" else trial["state"])
        assert (run.valid_perplexity, run.test_perplexity) == (trial["valid_perplexity"], None)

    _, _, *printed = shlex.split(summary["command"])
    found = settings_of(command, *printed)
    fixed = settings_of(command, *options[:2], *SMALL[:-2])
    assert found == fixed | {name: str(value) for name, value in best["settings"].items()}
    assert found["score_test"] == "True"

    process = command("search", "--resume", "s", "--trials", 1, "--jobs", 1)
    assert process.returncode == 0, process.stderr
    assert "after 3 earlier trials" in process.stdout
    assert summary["command"] in process.stdout or "s-003" in {run.name for run in list_runs(home / "runs")}
    assert len(list_runs(home / "runs")) == 4
    corpus.write_text("\n".join(sentences(121)))
    refused = command("search", "--resume", "s", "--trials", 1)
    assert (refused.returncode, "has changed since the search was started" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (["--preset", "notebook", "--mode", "stream"], {"preset": "notebook", "mode": "stream"}),
        (["--init", "words", "--set", "patience=0"], {"init": "words", "assignments": ["patience=0"]}),
        (
            ["--tokenizer", "bpe", "--set", "punctuation=true"],
            {"tokenizer": "bpe", "assignments": ["punctuation=true"]},
        ),
        (
            ["--set", "architecture=transformer", "--set", "sample_prompt=a b"],
            {"assignments": ["architecture=transformer", "sample_prompt=a b"]},
        ),
    ],
)
def test_the_command_repeats_any_configuration(command, home, options, values):
    (home / "runs").mkdir(parents=True)
    write_initial_run(home / "runs" / "words", WordTokenizer(("<unk>", "<eos>", "the", "miller")))
    printed = format_train_command(parse_training(**values).configure())
    assert settings_of(command, *shlex.split(printed)[2:]) == settings_of(command, *options)


def test_a_budget_shorter_than_a_trial_is_one_line_and_can_be_continued(command, home, corpus):
    process = command(
        "search", "--minutes", "0.02", "--text", corpus, "--set", "lr=0.01..0.1", "--name", "s", *SMALL,
        "--epochs", 90_000, "--set", "eval_every_epochs=90000",
    )  # fmt: skip
    assert process.returncode == 1
    error = process.stderr.splitlines()[-1]
    assert error == (
        "lotr-tui: no trial reached its first validation; give it more time: lotr-tui search --resume s --minutes 0.02"
    )
    (run,) = list_runs(home / "runs")
    assert run.state == "stopped"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "lr=0.01..0.1"], "a search needs a budget"),
        (["--minutes", "0", "--set", "lr=0.01..0.1"], "--minutes 0 is out of range"),
        (["--minutes", "nan", "--set", "lr=0.01..0.1"], "--minutes nan is out of range"),
        (["--minutes", "1", "--set", "lr=0.1..0.01"], "is reversed; use lr=0.01..0.1"),
        (["--minutes", "1", "--set", "lr=0.1"], "nothing to search"),
        (["--minutes", "1", "--set", "lr=0.1,1", "--split-seeds", "1,x"], "is not a list of whole numbers"),
        (["--minutes", "1", "--set", "lr=0.1,1", "--split-seeds", "1,1"], "has a seed twice"),
        (["--minutes", "1", "--set", "lr=0.1,1", "--name", "-x"], "run name '-x' is not allowed"),
        (["--minutes", "1", "--set", "lr=0.1,1", "--csv", "nowhere.csv"], "nowhere.csv"),
        (["--minutes", "1", "--init", "base", "--set", "hidden_size=10..20"], "hidden_size cannot be searched"),
        (["--minutes", "1", "--resume", "nothing"], "there is no search 'nothing'"),
        (["--minutes", "1", "--resume", "s", "--set", "lr=0.1,1"], "keeps the settings of that search"),
    ],
)
def test_bad_input_is_refused_in_one_line(refused, options, message):
    assert message in refused("search", *options)


def test_a_missing_optuna_is_one_line_with_the_remedy(refused, tmp_path):
    (tmp_path / "optuna.py").write_text("raise ImportError('not installed')")
    line = refused("search", "--minutes", "1", "--set", "lr=0.01..0.1", PYTHONPATH=str(tmp_path))
    assert line == "lotr-tui: search needs optuna; pip install 'lotr-tui[search]'"
