"""Tests of the corpus and the models that the chapters work on."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import BUNDLED, DataConfig
from engine.errors import InvalidInputError
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import NumpyLSTM
from engine.runtime.worker import GeneratorThread
from engine.storage.files import assets_dir
from engine.training import job
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.learn.material import Material
from lotr_tui.session.session_model import SessionModel, load_session_model
from tests.support.small_corpora import CYRILLIC, run_to_end, write_corpus

pytestmark = pytest.mark.usefixtures("home", "quick_training")


def never() -> bool:
    return False


def session_model_of(run: str) -> SessionModel:
    return load_session_model([str(assets_dir() / run)], None)


def test_class_without_a_choice_uses_the_bundled_dialogues_and_models() -> None:
    material = Material()
    assert material.corpus_name == "the bundled dialogues"
    dataset, lines = run_to_end(material.words())
    assert lines == ["reading the bundled dialogues …"]
    small, lines = run_to_end(material.model(never))
    assert (small.name, small.note, lines) == ("small LSTM", "", [])
    assert small.tokenizer == dataset.tokenizer
    assert run_to_end(material.lstm(never))[0] is small
    assert run_to_end(material.transformer(never))[0].name == "small Transformer"


def test_bundled_model_of_a_session_counts_as_no_choice() -> None:
    assert Material.from_session(None).session_model is None
    assert Material.from_session(load_session_model([None], None)).session_model is None
    own = session_model_of("class/lstm")
    assert Material.from_session(own).session_model is own


def test_corpus_of_the_user_is_read_once_and_counted(tmp_path: Path) -> None:
    material = Material(write_corpus(tmp_path / "own.csv"))
    assert material.corpus_name == "own.csv"
    dataset, lines = run_to_end(material.words())
    assert lines == ["reading own.csv …"]
    assert "ring" in dataset.tokenizer
    counts, lines = run_to_end(material.counts(3))
    assert lines == ["counting the 3-grams of own.csv …"]
    assert isinstance(counts, KneserNey)
    assert run_to_end(material.counts(3)) == (counts, [])


def test_model_of_a_corpus_is_found_by_the_next_session(tmp_path: Path) -> None:
    data = write_corpus(tmp_path / "own.csv")
    small, lines = run_to_end(Material(data).model(never))
    assert any(line.startswith("training a small LSTM on this corpus, once") for line in lines)
    assert small.name == "small LSTM"
    assert isinstance(small.model, NumpyLSTM)
    again, lines = run_to_end(Material(data).model(never))
    assert not any("training" in line for line in lines)
    assert again.tokenizer == small.tokenizer


def test_changed_corpus_is_trained_again(tmp_path: Path) -> None:
    data = write_corpus(tmp_path / "own.csv")
    run_to_end(Material(data).model(never))
    changed = write_corpus(tmp_path / "own2.csv", num_lines=200)
    _, lines = run_to_end(Material(changed).model(never))
    assert any("training" in line for line in lines)


def test_corpus_in_cyrillic_is_split_at_white_space(tmp_path: Path) -> None:
    material = Material(write_corpus(tmp_path / "own.csv", words=CYRILLIC))
    dataset, _ = run_to_end(material.words())
    assert "кольцо" in dataset.tokenizer
    assert material.data.tokenizer == "whitespace"
    small, _ = run_to_end(material.lstm(never))
    assert "кольцо" in small.tokenizer
    # The next session does not know yet that the words tokenizer cannot read it.
    _, lines = run_to_end(Material(replace(material.data, tokenizer="words")).lstm(never))
    assert not any("training" in line for line in lines)


@pytest.mark.parametrize("num_lines", [0, 1, 5])
def test_corpus_that_is_too_small_gives_one_line(tmp_path: Path, num_lines: int) -> None:
    data = write_corpus(tmp_path / "own.csv", num_lines)
    with pytest.raises(InvalidInputError) as caught:
        run_to_end(Material(data).model(never))
    assert "\n" not in str(caught.value)
    assert "rows" in str(caught.value) or "at least 6" in str(caught.value)


def test_missing_corpus_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"gone\.csv"):
        run_to_end(Material(DataConfig(corpus=str(tmp_path / "gone.csv"))).words())


def test_run_with_an_lstm_is_used_with_its_corpus() -> None:
    own = session_model_of("model")
    material = Material(session_model=own)
    assert material.data == bundled_data_config()
    for loading in (material.model, material.lstm):
        used, _ = run_to_end(loading(never))
        assert (used.model, used.name, used.note) == (own.model, own.name, "")
    other, _ = run_to_end(material.transformer(never))
    assert other.note == "bundled has no attention, so this is the class's small Transformer"
    assert other.name == "small Transformer"


def test_run_with_a_transformer_gets_a_note_where_gates_are_needed() -> None:
    own = session_model_of("class/transformer")
    material = Material(session_model=own)
    used, _ = run_to_end(material.transformer(never))
    assert (used.model, used.note) == (own.model, "")
    other, _ = run_to_end(material.lstm(never))
    assert other.note == "transformer has no gates, so this is the class's small LSTM"
    assert isinstance(other.model, NumpyLSTM)
    # The model is kept without the note, which belongs to this chapter alone.
    assert run_to_end(material.class_model("lstm", never))[0].note == ""


def test_model_without_a_run_has_the_bundled_corpus() -> None:
    counts, _ = run_to_end(Material().counts(2))
    material = Material(session_model=SessionModel("counts", "", counts))
    assert material.data.corpus == BUNDLED
    assert run_to_end(material.model(never))[0].model is counts
    assert run_to_end(material.lstm(never))[0].note.startswith("counts has no gates")


class PreparedJobs:
    """Trainings that wait until `can_begin` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.can_begin = threading.Event()
        self.starts = threading.Semaphore(0)
        self.num_started = 0
        prepare_job = job.prepare_job

        def prepare(*args: Any) -> job.TrainingJob:
            self.num_started += 1
            self.starts.release()
            assert self.can_begin.wait(10)
            return prepare_job(*args)

        monkeypatch.setattr(job, "prepare_job", prepare)


def test_training_goes_on_when_its_chapter_is_left_and_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = PreparedJobs(monkeypatch)
    material = Material(write_corpus(tmp_path / "own.csv"))
    chapter = GeneratorThread("chapter", material.model).start()
    assert prepared.starts.acquire(timeout=10)
    chapter.cancel()
    assert chapter.join(10)
    assert str(chapter.exception) == "the chapter was left"
    assert material.jobs.is_running
    prepared.can_begin.set()
    small, _ = run_to_end(material.lstm(never))  # the next chapter
    assert isinstance(small.model, NumpyLSTM)
    assert prepared.num_started == 1
    assert not material.jobs.is_running


def test_closed_class_stops_its_training(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = PreparedJobs(monkeypatch)
    material = Material(write_corpus(tmp_path / "own.csv"))
    chapter = GeneratorThread("chapter", material.model).start()
    assert prepared.starts.acquire(timeout=10)
    material.jobs.cancel()
    prepared.can_begin.set()
    assert chapter.join(10)
    assert "the training of the small LSTM was stopped" in str(chapter.exception)
    assert not list((home / "class").glob("*/lstm"))
    run_to_end(material.model(never))  # a class that is opened again trains again
