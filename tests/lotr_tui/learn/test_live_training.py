"""Tests of live trainings: real ones, their numbers, and their temporary folders."""

import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.analysis.perplexity import evaluate
from engine.config import Config, ModelConfig
from engine.control import ControlCommand
from engine.data.dataset import Dataset, load_dataset
from engine.errors import CorpusError, RunError
from engine.runs.loading import load_model
from engine.training.batches import Window, WindowReader
from lotr_tui.learn import live_training
from lotr_tui.learn.bptt_window import window_of_step
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.learn.live_training import (
    MAX_TRAIN_TOKENS,
    NUM_PIECES,
    PIECE_LENGTH,
    TEMPORARY_PREFIX,
    TemporaryTraining,
    limit_dataset,
    live_config,
    train_perplexity,
)
from tests.support.app import FakeJob, UseJob, make_decoder, training_events
from tests.support.kneser_ney import ReferenceKneserNey

SMALL_MODEL = ModelConfig(embedding_size=8, hidden_size=8, subword_embeddings=False, unigram_bias=False)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def short_config(monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return the configuration of a training on a small part of the bundled dialogues."""
    monkeypatch.setattr(live_training, "MAX_TRAIN_TOKENS", 3000)
    monkeypatch.setattr(live_training, "MAX_VALID_TOKENS", 300)
    return live_config(bundled_data_config(), 3000, epochs=2, evaluations_per_epoch=2, model=SMALL_MODEL, lr=0.02)


def folders(temporary: Path) -> list[Path]:
    return list(temporary.glob(f"{TEMPORARY_PREFIX}*"))


def wait(training: TemporaryTraining) -> None:
    """Wait for the end of a training, and read all its events."""
    assert training.join(60)
    training.poll()


def rows_of(run: Path, event: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == event]


@pytest.fixture
def kept_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the run directory of the next training, which is not removed."""

    @contextmanager
    def keep() -> Iterator[Path]:
        yield tmp_path / "kept"

    monkeypatch.setattr(live_training, "temporary_folder", keep)
    return tmp_path / "kept" / live_training.RUN_NAME


def test_numbers_of_a_real_training_are_those_of_its_run_directory_and_of_independent_models(
    short_config: Config, kept_run: Path
) -> None:
    training = TemporaryTraining(short_config, scores_train=True)
    wait(training)
    view, dataset = training.view, limit_dataset(load_dataset(bundled_data_config()))
    assert view.finished is not None
    evaluated = [(row["step"], row["epoch"], row["valid_perplexity"]) for row in rows_of(kept_run, "evaluated")]
    assert [(event.step, event.epoch, event.valid_perplexity) for event in view.evaluations] == evaluated
    assert len(evaluated) == 5
    assert view.steps.column("train_perplexity").tolist() == [
        row["train_perplexity"] for row in rows_of(kept_run, "step")
    ]
    best = load_model(kept_run).model
    assert view.best is not None
    assert evaluate(best, dataset.valid).perplexity == pytest.approx(view.best.valid_perplexity, rel=1e-4)
    scores = {score.step: score.train_perplexity for score in training.train_scores}
    assert list(scores) == [event.step for event in view.evaluations]
    assert scores[view.best.step] == pytest.approx(train_perplexity(best, dataset), rel=1e-6)
    assert view.started is not None
    assert view.started.train_tokens == 3000
    assert view.started.unigram_perplexity == pytest.approx(unigram_perplexity(dataset), rel=1e-6)
    assert view.started.kneser_ney_perplexity == pytest.approx(kneser_ney_perplexity(dataset), rel=1e-5)


def unigram_perplexity(dataset: Dataset) -> float:
    counts = Counter(dataset.train.tolist())
    size, total = len(dataset.tokenizer), len(dataset.train) + 1  # one more token, spread evenly over the vocabulary
    return math.exp(-float(np.mean([math.log((counts[id] + 1 / size) / total) for id in dataset.valid.tolist()])))


def kneser_ney_perplexity(dataset: Dataset) -> float:
    reference = ReferenceKneserNey(dataset.train.tolist(), len(dataset.tokenizer), 5)
    text = [1, *dataset.valid.tolist()]
    nlls = [-math.log(reference.prob(text[i], tuple(text[max(0, i - 4) : i]))) for i in range(1, len(text))]
    return math.exp(sum(nlls) / len(nlls))


def test_steps_read_the_windows_that_are_displayed(short_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[int]] = []
    next_window = WindowReader.next_window

    def spy(reader: WindowReader) -> Window:
        window = next_window(reader)
        read.append(window.inputs[:, 0].tolist())
        return window

    monkeypatch.setattr(WindowReader, "next_window", spy)
    wait(training := TemporaryTraining(short_config))
    assert len(read) == training.view.step > 10
    train = limit_dataset(load_dataset(bundled_data_config())).train
    for step, inputs in enumerate(read, 1):
        window = window_of_step(step, len(train), short_config.training)
        assert inputs == train[window.begin : window.end].tolist()


def test_rate_of_a_command_counts_from_the_next_step_on(short_config: Config) -> None:
    training = TemporaryTraining(short_config)
    training.send_command(ControlCommand("lr", "0.5"))
    wait(training)
    assert set(training.view.steps.column("lr").tolist()) == {0.01}


def test_folder_is_removed_at_the_end_and_after_a_failure(
    short_config: Config, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait(training := TemporaryTraining(short_config))
    assert training.view.finished is not None
    assert not folders(temporary)

    def fail(*_: object) -> None:
        assert folders(temporary)
        raise RunError("no room")

    monkeypatch.setattr("engine.training.job.prepare_job", fail)
    wait(training := TemporaryTraining(short_config))
    assert training.view.failure == "no room"
    assert not folders(temporary)


def test_stopped_training_ends_within_a_moment_and_removes_its_folder(short_config: Config, temporary: Path) -> None:
    training = TemporaryTraining(short_config.with_values(epochs=1000))
    while training.view.step < 3:
        training.poll()
    training.stop()
    start = time.monotonic()
    live_training.remove_temporary_folders(10)
    assert time.monotonic() - start < 2
    assert not folders(temporary)
    assert training.join(5)


def test_folder_of_a_thread_that_does_not_end_is_removed_after_the_timeout(
    short_config: Config, temporary: Path, use_job: UseJob
) -> None:
    job = use_job(FakeJob(training_events()).release())
    job._ended = lambda cancelled: job.stopped.is_set()  # type: ignore[method-assign]
    training = TemporaryTraining(short_config)
    while training.view.started is None:
        training.poll()
    training.stop()
    live_training.remove_temporary_folders(0.1)
    assert not folders(temporary)
    job.stopped.set()
    assert training.join(5)


def test_folders_of_killed_processes_are_removed_later(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = temporary / f"{TEMPORARY_PREFIX}old"
    (old / live_training.RUN_NAME).mkdir(parents=True)
    live_training.remove_abandoned()
    assert old.is_dir()
    monkeypatch.setattr(live_training, "ABANDONED_AFTER", -1.0)
    live_training.remove_abandoned()
    assert not old.exists()


def test_full_disk_is_one_line(short_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(prefix: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    wait(training := TemporaryTraining(short_config))
    assert training.view.failure == "cannot write a temporary folder: No space left on device; free some space"


def test_training_text_is_scored_in_pieces_of_different_places_of_their_rows() -> None:
    dataset = load_dataset(bundled_data_config())
    model = make_decoder()
    ids = np.arange(len(dataset.train)) % len(model.tokenizer)

    class Text:
        train = ids

    pieces = [ids[number * len(ids) // NUM_PIECES :][:PIECE_LENGTH] for number in range(NUM_PIECES)]
    expected = evaluate(model, np.concatenate(pieces)).perplexity
    assert train_perplexity(model, Text()) == expected  # type: ignore[arg-type]
    row_length = len(ids) // 20
    places = sorted(number * len(ids) // NUM_PIECES % row_length / row_length for number in range(NUM_PIECES))
    assert np.diff(places) == pytest.approx(1 / NUM_PIECES, abs=0.01)


@pytest.mark.parametrize(("tokens", "epochs", "interval"), [(MAX_TRAIN_TOKENS, 5, 60), (4000, 60, 75), (2000, 60, 60)])
def test_short_text_is_read_more_often(tokens: int, epochs: int, interval: int) -> None:
    config = live_config(bundled_data_config(), tokens, epochs=5, evaluations_per_epoch=4, model=SMALL_MODEL, lr=1.0)
    assert config.training.epochs == epochs
    assert config.training.eval_every_steps == pytest.approx(interval, rel=0.2)


def test_text_that_is_too_short_is_refused() -> None:
    dataset = load_dataset(bundled_data_config())
    assert len(limit_dataset(dataset).train) == len(dataset.train)
    with pytest.raises(CorpusError, match="has 1,999 words"):
        limit_dataset(replace(dataset, train=dataset.train[:1999]))
