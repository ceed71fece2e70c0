"""Fixtures of dialogue runs."""

import sys

import pytest

from engine.runs.loading import load_model
from tests.support.commands import run_process
from tests.support.dialogue_runs import write_dialogue_run, write_distinct_dialogues

TRAIN = "train --preset tiny --threads 1 --no-tui --csv dialogues.csv --mode dialogue --split scenes --run distinct"
SETTINGS = {"epochs": 20, "lr": 0.02, "bptt": 20, "batch_size": 8, "embedding_size": 24, "hidden_size": 24}


@pytest.fixture
def run(tmp_path):
    """Return the path of a dialogue run with random weights."""
    return write_dialogue_run(tmp_path / "scenes")


@pytest.fixture
def model(run):
    """Return the dialogue model of `run`, as people play with it."""
    return load_model(run).model


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory, environment):
    """Train the run `distinct`, whose speakers have words of their own; return its home."""
    folder = tmp_path_factory.mktemp("distinct")
    write_distinct_dialogues(folder / "dialogues.csv")
    settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    run_process([sys.executable, "-m", "lotr_tui", *TRAIN.split(), *settings], folder, environment(folder / "home"))
    return folder / "home"


@pytest.fixture
def distinct(trained_home, command):
    """Return a function that runs a command in the home of the run `distinct`."""

    def run(*arguments, **options):
        return command(*arguments, LOTR_TUI_HOME=str(trained_home), **options)

    return run
