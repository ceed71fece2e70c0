"""Tests of the run without regularization: the bundled one, and that of a corpus of the user."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from engine.data.dataset import load_dataset
from engine.errors import RunError
from engine.events import Evaluated
from engine.runs.directory import read_config
from engine.storage.files import assets_dir
from lotr_tui.learn import live_training, overfitting_run
from lotr_tui.learn.class_models import bundled_data_config, class_data_config, class_models_dir
from lotr_tui.learn.live_training import TrainScore
from lotr_tui.learn.overfitting_run import (
    Regularization,
    RunCurves,
    load_overfitting_run,
    overfitting_config,
    read_curves,
)
from tests.support.live_training import live_events
from tests.support.small_corpora import run_to_end, write_corpus

pytestmark = pytest.mark.usefixtures("home")
BUNDLED_RUN = assets_dir() / "class/overfitting"


def never() -> bool:
    return False


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for one pass over the text, with few numbers."""
    monkeypatch.setattr(live_training, "MAX_TRAIN_TOKENS", 3000)
    monkeypatch.setattr(overfitting_run, "EPOCHS", 1)


def test_bundled_run_has_the_configuration_of_this_version_and_no_regularization() -> None:
    data = bundled_data_config()
    config = read_config(BUNDLED_RUN)
    assert config == overfitting_config(data, len(load_dataset(data).train), Regularization())
    model = config.model
    assert (model.embedding_dropout, model.input_dropout, model.output_dropout, model.weight_drop) == (0, 0, 0, 0)
    assert not model.tie_weights
    assert sum(path.stat().st_size for path in BUNDLED_RUN.iterdir()) < 10_000


def test_bundled_run_overfits() -> None:
    data = bundled_data_config()
    curves, lines = run_to_end(load_overfitting_run(data, load_dataset(data), never))
    assert lines == []
    assert curves == read_curves(BUNDLED_RUN)
    rows = [json.loads(line) for line in (BUNDLED_RUN / "metrics.jsonl").read_text().splitlines()]
    assert curves.valid == tuple(row["valid_perplexity"] for row in rows[1:])
    best = curves.valid.index(curves.best)
    assert curves.epochs[best] < 4
    assert curves.valid[-1] > 1.15 * curves.best
    assert curves.train[-1] < 0.75 * curves.train[best]


@pytest.mark.usefixtures("quick")
def test_run_of_a_corpus_of_the_user_is_trained_once(tmp_path: Path) -> None:
    data = class_data_config(write_corpus(tmp_path / "own.csv", 500))
    dataset = load_dataset(data)
    curves, lines = run_to_end(load_overfitting_run(data, dataset, never))
    assert any("training without regularization on this corpus, once" in line for line in lines)
    folder = class_models_dir(data, dataset.corpus.sha256) / "overfitting"
    assert {path.name for path in folder.iterdir()} == {"config.json", "metrics.jsonl", "train.jsonl"}
    assert run_to_end(load_overfitting_run(data, dataset, never)) == (curves, [])
    (folder / "config.json").unlink()  # a damaged run is trained again, with the same numbers
    again, lines = run_to_end(load_overfitting_run(data, dataset, never))
    assert again == curves
    assert lines


@pytest.mark.usefixtures("quick")
def test_run_that_was_cancelled_is_not_kept(tmp_path: Path) -> None:
    data = class_data_config(write_corpus(tmp_path / "own.csv", 500))
    dataset = load_dataset(data)
    with pytest.raises(RunError, match="stopped; open the chapter again"):
        run_to_end(load_overfitting_run(data, dataset, lambda: True))
    assert not (class_models_dir(data, dataset.corpus.sha256) / "overfitting").exists()


@pytest.mark.parametrize("content", ["", "{", '{"step": "x"}', "[1]", "\udcff"])
def test_damaged_curves_are_one_line(tmp_path: Path, content: str) -> None:
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((BUNDLED_RUN / name).read_bytes())
    (tmp_path / "train.jsonl").write_text(content, errors="surrogateescape")
    with pytest.raises(RunError, match="remove"):
        read_curves(tmp_path)


def test_curves_combine_evaluations_and_scores_of_the_same_step() -> None:
    evaluations = [event for event in live_events([2000.0, 300.0, 200.0]) if isinstance(event, Evaluated)]
    scores = [TrainScore(0, 0.0, 2000.0), TrainScore(56, 0.25, 280.0)]
    assert RunCurves.from_evaluations(evaluations, scores) == RunCurves((0.25,), (280.0,), (300.0,))
    assert RunCurves.from_evaluations([], []) == RunCurves((), (), ())


def test_settings_are_in_the_configuration() -> None:
    data = bundled_data_config()
    model = overfitting_config(data, 100_000, Regularization(0.3, 0.4, True)).model
    assert (model.input_dropout, model.output_dropout, model.weight_drop, model.tie_weights) == (0.3, 0.3, 0.4, True)
    plain = overfitting_config(data, 100_000, Regularization())
    assert asdict(plain.training) == asdict(overfitting_config(data, 100_000, Regularization(0.3)).training)


def test_network_of_the_bundled_run_begins_with_equally_likely_words() -> None:
    dataset = load_dataset(bundled_data_config())
    first = json.loads((BUNDLED_RUN / "train.jsonl").read_text().splitlines()[0])
    assert first["train_perplexity"] == pytest.approx(len(dataset.tokenizer), rel=0.01)
