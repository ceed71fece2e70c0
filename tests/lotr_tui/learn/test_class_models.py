"""Tests of the small models of the class: they are trained once for each corpus, and nothing incomplete is kept."""

import os
import re
from pathlib import Path

import pytest

from engine.config import DataConfig
from engine.errors import RunError
from engine.events import Step
from engine.runs.directory import read_config
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from engine.storage.lock import FileLock
from engine.training import job
from lotr_tui.learn import class_models
from lotr_tui.learn.class_models import (
    LABELS,
    LOCK_FILE,
    TRAINING_DIR,
    ClassModelName,
    bundled_data_config,
    class_data_config,
    class_model_config,
    class_models_dir,
    describe_seconds_left,
    estimate_seconds_left,
    fit_to_corpus,
    train_class_model,
)
from tests.support.small_corpora import run_to_end, write_corpus

pytestmark = pytest.mark.usefixtures("home", "quick_training")


def never() -> bool:
    return False


def folders(home: Path) -> set[str]:
    return {path.name for path in (home / "class").iterdir()} - {LOCK_FILE}


@pytest.mark.parametrize("name", LABELS)
def test_bundled_models_have_the_configuration_of_the_class(name: ClassModelName) -> None:
    run, lines = run_to_end(train_class_model(name, bundled_data_config(), "", 1000, never))
    assert run == assets_dir() / "class" / name
    assert not lines
    assert read_config(run).data == bundled_data_config()
    assert load_model(run).config.model == class_model_config(name, bundled_data_config()).model


@pytest.mark.parametrize("name", LABELS)
def test_model_of_a_corpus_is_trained_once(home: Path, tmp_path: Path, name: ClassModelName) -> None:
    data = write_corpus(tmp_path / "own.csv")
    run, lines = run_to_end(train_class_model(name, data, "abc", 1000, never))
    assert run.is_relative_to(home)
    assert lines[-1].startswith(f"training a small {LABELS[name]} on this corpus, once: epoch 1 of 1, perplexity ")
    assert "ring" in load_model(run).model.tokenizer
    assert run_to_end(train_class_model(name, data, "abc", 1000, never)) == (run, [])
    assert folders(home) == {class_models_dir(data, "abc").name}


def test_progress_says_about_how_many_seconds_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        class_models, "class_model_config", lambda name, data: class_model_config(name, data).with_values(epochs=3)
    )
    data = write_corpus(tmp_path / "own.csv", 1000)
    _, lines = run_to_end(train_class_model("lstm", data, "abc", 1000, never))
    assert any(re.search(r"epoch \d of 3, perplexity \S+, about \d+ s left …$", line) for line in lines)


def test_remaining_time_is_that_of_the_remaining_epochs() -> None:
    step = Step(10, 2.0, 100.0, 0.01, 1.0, 1000.0, 8.0, 0.0)
    assert estimate_seconds_left(step, 10) == pytest.approx(32)
    assert describe_seconds_left(32) == "about 35 s left"
    assert estimate_seconds_left(step, 2) == 0
    assert describe_seconds_left(0) == "about 5 s left"


def test_another_content_or_split_of_a_corpus_has_models_of_its_own() -> None:
    data = DataConfig(corpus="own.csv")
    folder = class_models_dir(data, "abc")
    assert class_models_dir(data, "abd") != folder
    assert class_models_dir(DataConfig(corpus="own.csv", split_seed=5), "abc") != folder
    assert class_models_dir(class_data_config(DataConfig(corpus="own.csv", tokenizer="bpe")), "abc") == folder


def test_cancelled_training_leaves_nothing_behind(home: Path, tmp_path: Path) -> None:
    data = write_corpus(tmp_path / "own.csv")
    is_cancelled = False
    loading = train_class_model("lstm", data, "abc", 1000, lambda: is_cancelled)
    assert next(loading).startswith("preparing a small LSTM")
    is_cancelled = True
    with pytest.raises(RunError, match="the training of the small LSTM was stopped; open the chapter again"):
        run_to_end(loading)
    assert not folders(home)
    run_to_end(train_class_model("lstm", data, "abc", 1000, never))


def test_training_that_is_closed_leaves_nothing_behind(home: Path, tmp_path: Path) -> None:
    loading = train_class_model("lstm", write_corpus(tmp_path / "own.csv"), "abc", 1000, never)
    next(loading)
    loading.close()
    assert not folders(home)
    assert FileLock(home / "class" / LOCK_FILE).acquire()


def test_what_a_killed_process_has_left_is_removed(home: Path, tmp_path: Path) -> None:
    abandoned = home / "class" / TRAINING_DIR / "lstm"
    abandoned.mkdir(parents=True)
    (abandoned / "config.json").write_text("{")
    data = write_corpus(tmp_path / "own.csv")
    run, _ = run_to_end(train_class_model("lstm", data, "abc", 1000, never))
    assert folders(home) == {run.parent.name}


def test_two_sessions_train_a_model_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_models, "LOCK_INTERVAL", 0.01)
    started = []
    prepare_job = job.prepare_job
    monkeypatch.setattr(job, "prepare_job", lambda *args: started.append(args) or prepare_job(*args))
    data = write_corpus(tmp_path / "own.csv")
    first, second = (train_class_model("lstm", data, "abc", 1000, never) for _ in range(2))
    next(first)
    assert next(second) == "waiting for a training in another window …"
    run, _ = run_to_end(first)
    assert run_to_end(second)[0] == run
    assert len(started) == 1


def test_session_that_waits_can_be_left(tmp_path: Path) -> None:
    data = write_corpus(tmp_path / "own.csv")
    first, second = (
        train_class_model("lstm", data, "abc", 1000, never),
        train_class_model("lstm", data, "abc", 1000, lambda: True),
    )
    next(first)
    with pytest.raises(RunError, match="was stopped"):
        next(second)
    first.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written_gives_one_line(home: Path, tmp_path: Path) -> None:
    home.mkdir(mode=0o500)
    with pytest.raises(RunError, match="cannot write"):
        run_to_end(train_class_model("lstm", write_corpus(tmp_path / "own.csv"), "abc", 1000, never))


def test_file_in_place_of_the_folder_gives_one_line(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / "class").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*class: File exists; free some space"):
        run_to_end(train_class_model("lstm", write_corpus(tmp_path / "own.csv"), "abc", 1000, never))


def test_training_on_a_large_corpus_has_fewer_epochs() -> None:
    config = class_model_config("lstm", bundled_data_config())
    assert fit_to_corpus(config, "lstm", 20_000) == config
    assert fit_to_corpus(config, "lstm", 300_000).training.epochs == 5
    single = fit_to_corpus(config, "lstm", 50_000_000).training
    assert (single.epochs, single.eval_every_steps) == (1, 200)


def test_training_that_takes_too_long_ends_and_its_model_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_models, "MAX_TRAINING_SECONDS", 0.0)
    run, _ = run_to_end(train_class_model("lstm", write_corpus(tmp_path / "own.csv"), "abc", 1000, never))
    assert "ring" in load_model(run).model.tokenizer
