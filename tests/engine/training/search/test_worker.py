"""Trials as ordinary runs: their results, their ends, and a test split that is never read."""

from dataclasses import replace
from threading import Event

import pytest

from engine.runs.directory import read_config
from engine.runs.summary import summarize_run
from engine.training.job import load_dataset_and_weights
from engine.training.search import worker
from engine.training.search.worker import Assignment, TrialEnd, TrialProgress, TrialTrainer
from tests.support.files import sentences
from tests.support.training import Untouchable, make_config


class Connection:
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
def config(tmp_path, monkeypatch):
    """Return the configuration of a small search. Every dataset that is loaded fails if its test split is read."""

    def load(config, runs_dir):
        dataset, weights = load_dataset_and_weights(config, runs_dir)
        return replace(dataset, test=Untouchable()), weights

    monkeypatch.setattr(worker, "load_dataset_and_weights", load)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(sentences(120)))
    return make_config(corpus=str(corpus), corpus_format="text", epochs=4)


def train_trial(config, runs_dir, connection, **settings):
    assignment = Assignment(0, config, settings, (1, 2), ("s-000-split1", "s-000-split2"))
    return TrialTrainer(connection, Event(), runs_dir).train_trial(assignment)


def test_a_trial_is_a_run_for_each_split_and_never_reads_the_test_split(tmp_path, config):
    connection = Connection()
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
    connection = Connection(lambda progress: progress.fraction < 0.5)
    assert train_trial(config, tmp_path, connection) == TrialEnd("pruned")
    summary = summarize_run(tmp_path / "s-000-split1")
    assert (summary.state, summary.epochs) == ("pruned", 2)
    assert not list(tmp_path.glob("s-*/resume*"))
    assert not (tmp_path / "s-000-split2").exists()


def test_a_trial_that_diverges_or_cannot_be_trained_ends_with_one_line(tmp_path, config):
    diverging = config.with_values(optimizer="sgd", lr=1000.0, clip=0.0)
    end = train_trial(diverging, tmp_path / "first", Connection())
    assert (end.state, end.message.startswith("the loss is")) == ("diverged", True)
    end = train_trial(config, tmp_path / "second", Connection(), batch_size=60_000)
    assert (end.state, end.message.startswith("batch_size=60000 is too large")) == ("failed", True)


def test_a_trial_whose_search_is_gone_is_stopped_and_goes_on_where_it_was(tmp_path, config):
    def fail(progress):
        raise EOFError

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = Connection()
    train_trial(config, whole, expected)
    assert train_trial(config, parts, Connection(fail)) == TrialEnd("stopped")
    assert summarize_run(parts / "s-000-split1").state == "stopped"
    actual = Connection()
    assert train_trial(config, parts, actual) == TrialEnd("complete")
    assert actual.reports == expected.reports[1:]
