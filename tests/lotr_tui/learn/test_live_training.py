"""Live trainings: their numbers, verdicts and temporary folders, and the run without regularization."""

import math
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from engine.analysis.evaluation import evaluate
from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.errors import RunError
from engine.events import Step
from engine.runs.loading import load_model
from lotr_tui.learn import live_training
from lotr_tui.learn.live_training import LiveTraining, Verdict, judge, limit_dataset, train_perplexity
from lotr_tui.learn.material import bundled_data_config, class_data_config, class_models_dir
from lotr_tui.monitor.training_view import TrainingView
from tests.support.files import run_to_end, write_corpus
from tests.support.live_training import live_events
from tests.support.pretrained import save_model

SMALL_MODEL = ModelConfig(embedding_size=8, hidden_size=8, subword_embeddings=False, unigram_bias=False)


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    return Path(tempfile.tempdir)


@pytest.fixture
def short_config(monkeypatch):
    """Return the configuration of a training on a small part of the bundled dialogues."""
    monkeypatch.setattr(live_training, "MAX_TRAIN_TOKENS", 3000)
    monkeypatch.setattr(live_training, "MAX_VALID_TOKENS", 300)
    data = bundled_data_config()
    return live_training.live_config(data, 3000, epochs=2, evaluations_per_epoch=2, model=SMALL_MODEL, lr=0.02)


def test_real_training_scores_both_texts_and_follows_the_learning_rate(short_config, tmp_path, monkeypatch):
    monkeypatch.setattr(live_training, "TemporaryDirectory", lambda **_: nullcontext(tmp_path / "kept"))
    training = LiveTraining(short_config)
    training.scale_lr(0.5)
    for event in training.events(lambda: False):
        training.view.apply(event)
        training.scale_lr(0.25)
    view, dataset = training.view, limit_dataset(load_dataset(bundled_data_config()))
    assert view.finished is not None
    assert training.has_ended.is_set()
    assert view.steps.column("lr")[-1] == pytest.approx(0.25 * 0.02)
    best = load_model(tmp_path / "kept" / live_training.RUN_NAME).model
    assert view.best is not None
    assert evaluate(best, dataset.valid).perplexity == pytest.approx(view.best.valid_perplexity, rel=1e-4)
    assert list(training.train_scores) == [event.step for event in view.evaluations]
    assert len(training.train_scores) == 5
    assert training.train_scores[view.best.step] == pytest.approx(train_perplexity(best, dataset), rel=1e-6)
    assert view.started is not None
    assert view.started.train_tokens == 3000
    saved, latest = training.save(tmp_path), view.evaluations[-1]
    assert saved.run.name.startswith("learn-")
    assert evaluate(saved.model, dataset.valid).perplexity == pytest.approx(latest.valid_perplexity, rel=1e-4)


@pytest.mark.slow
def test_the_character_brings_the_files_of_a_run_that_keeps_the_adapter(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    from engine.models.pretrained import folders

    save_model(tmp_path / "tiny", "llama")
    base = folders.read_base(f"hf:{tmp_path / 'tiny'}")
    monkeypatch.setattr(folders, "read_base", lambda name: base)
    character, _ = run_to_end(live_training.load_character())
    assert {"base.json", "cast.json", "dialogue.json", "who.json"} <= set(character.files)
    assert (character.config.training.init, character.config.data.tokenizer) == ("smollm2", "pretrained")
    assert character.config.training.max_eval_tokens  # a part of the split, whose characters are not counted


def test_stopped_and_failed_trainings_remove_their_folders(short_config, temporary, monkeypatch):
    training, stopped = LiveTraining(short_config.with_values(epochs=1000)), threading.Event()
    for event in training.events(stopped.is_set):
        if isinstance(event, Step):
            stopped.set()
            assert list(temporary.iterdir())
    assert stopped.is_set()
    assert not list(temporary.iterdir())

    def fail(*_):
        assert list(temporary.iterdir())
        raise RunError("no room")

    monkeypatch.setattr("engine.training.job.prepare_job", fail)
    with pytest.raises(RunError, match="no room"):
        list(LiveTraining(short_config).events(lambda: False))
    assert not list(temporary.iterdir())


GOOD = [2247.0, 295.0, 208.0, 170.0, 146.0, 135.0, 127.0, 120.0, 114.5, 111.0, 108.0]
SLOW = [2247.0, *[700.0] * 7, 286.0]
JUMPED = [2247.0, 1e9, 1e8, 1e7, 1e6, 1e5, 1e5, 1e5, 1e5, 1e5]
EARLY = [2247.0, 290.0, 250.0, 240.0]


@pytest.mark.parametrize(
    ("valid", "train", "verdict"),
    [
        (GOOD, None, Verdict(beats_ngram=True)),
        (GOOD[:-1], None, Verdict()),  # above the 5-gram model
        (SLOW, None, Verdict(is_too_slow=True)),
        (SLOW[:-1], None, Verdict()),
        ([*SLOW[:-1], 285.0], None, Verdict()),  # below the unigram model
        (EARLY, [300.0, 250.0, 400.0], Verdict()),  # the text differs, too
        (EARLY, [300.0, 250.0, 760.0], Verdict(has_jumped=True)),
        (EARLY, [math.nan, 250.0, 200.0], Verdict(has_jumped=True)),
        (JUMPED[:3], None, Verdict(has_jumped=True)),
        (JUMPED, None, Verdict(has_jumped=True)),  # but not too slow
    ],
)
def test_a_training_is_good_too_slow_or_has_jumped(valid, train, verdict):
    view = TrainingView()
    for event in live_events(valid, train):
        view.apply(event)
    assert judge(view) == verdict


def test_run_of_a_corpus_of_the_user_is_trained_once(tmp_path, monkeypatch):
    monkeypatch.setattr(live_training, "MAX_TRAIN_TOKENS", 3000)
    data = class_data_config(write_corpus(tmp_path / "own.csv", 500))
    dataset = load_dataset(data)
    curves, lines = run_to_end(live_training.load_overfitting_run(data, dataset, lambda: False))
    assert any("training a network without regularization on this corpus, once" in line for line in lines)
    path = class_models_dir(data, dataset.corpus.sha256) / "overfitting.json"
    assert run_to_end(live_training.load_overfitting_run(data, dataset, lambda: False)) == (curves, [])
    path.write_text("{")  # a damaged file is written again, with the same numbers
    again, lines = run_to_end(live_training.load_overfitting_run(data, dataset, lambda: False))
    assert again == curves
    assert lines
