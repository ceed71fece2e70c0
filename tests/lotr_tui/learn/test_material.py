"""Corpus and models of the class: trained once for each corpus, shared by chapters, and nothing incomplete is kept."""

import sys
from dataclasses import replace

import pytest

from engine.errors import InvalidInputError, RunError
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.learn.material import LABELS, Material, bundled_data_config, train_class_model
from lotr_tui.session.session_model import load_session_model
from tests.support.files import CYRILLIC, run_to_end, write_corpus

pytestmark = pytest.mark.usefixtures("home", "quick_training")


def never():
    return False


def trained(home):
    return {path.name for path in home.glob("class/*/*")}


@pytest.mark.parametrize("name", LABELS)
def test_model_of_a_corpus_is_trained_once_and_then_needs_no_training_code(home, tmp_path, monkeypatch, name):
    data = write_corpus(tmp_path / "own.csv")
    run, lines = run_to_end(train_class_model(name, data, "abc", 1000, never))
    assert run.is_relative_to(home)
    assert lines[-1].startswith(f"training a small {LABELS[name]} on this corpus, once: epoch 1 of 1, perplexity ")
    assert "ring" in load_model(run).model.tokenizer.tokens
    monkeypatch.setitem(sys.modules, "engine.training.job", None)
    assert run_to_end(train_class_model(name, data, "abc", 1000, never)) == (run, [])
    assert trained(home) == {name}


def test_cancelled_training_leaves_nothing_behind(home, tmp_path):
    data = write_corpus(tmp_path / "own.csv")
    is_cancelled = False
    loading = train_class_model("lstm", data, "abc", 1000, lambda: is_cancelled)
    assert next(loading).startswith("preparing a small LSTM")
    is_cancelled = True
    with pytest.raises(RunError, match="the training of a small LSTM was stopped; open the chapter again"):
        run_to_end(loading)
    assert not trained(home)
    run_to_end(train_class_model("lstm", data, "abc", 1000, never))


def test_two_sessions_that_train_a_model_keep_one(home, tmp_path):
    data = write_corpus(tmp_path / "own.csv")
    first, second = (train_class_model("lstm", data, "abc", 1000, never) for _ in range(2))
    next(first), next(second)
    assert run_to_end(first)[0] == run_to_end(second)[0]
    assert trained(home) == {"lstm"}


def session_model_of(run):
    return load_session_model([str(assets_dir() / run)], None)


def test_class_without_a_choice_uses_the_bundled_dialogues_and_models():
    material = Material()
    assert material.corpus_name == "the bundled dialogues"
    dataset, lines = run_to_end(material.words())
    assert lines == ["reading the bundled dialogues …"]
    small, lines = run_to_end(material.model(never))
    assert (small.name, small.note, lines) == ("small LSTM", "", [])
    assert small.model.tokenizer == dataset.tokenizer
    assert run_to_end(material.model_with("lstm", never))[0] is small
    assert run_to_end(material.model_with("transformer", never))[0].name == "small Transformer"


def test_corpus_in_cyrillic_is_split_at_white_space(tmp_path):
    material = Material(write_corpus(tmp_path / "own.csv", words=CYRILLIC))
    dataset, _ = run_to_end(material.words())
    assert "кольцо" in dataset.tokenizer.tokens
    assert material.data.tokenizer == "whitespace"
    small, _ = run_to_end(material.model_with("lstm", never))
    assert "кольцо" in small.model.tokenizer.tokens
    assert isinstance(small.model, NumpyLSTM)
    # The next session does not know yet that the words tokenizer cannot read it.
    _, lines = run_to_end(Material(replace(material.data, tokenizer="words")).model_with("lstm", never))
    assert not any("training" in line for line in lines)


@pytest.mark.parametrize("num_lines", [0, 1, 5])
def test_corpus_that_is_too_small_gives_one_line(tmp_path, num_lines):
    data = write_corpus(tmp_path / "own.csv", num_lines)
    with pytest.raises(InvalidInputError) as caught:
        run_to_end(Material(data).model(never))
    assert "\n" not in str(caught.value)
    assert any(text in str(caught.value) for text in ("rows", "at least 6", "0 lines"))


def test_run_with_an_lstm_is_used_with_its_corpus():
    own = session_model_of("lstm")
    material = Material(session_model=own)
    assert material.data == bundled_data_config()
    for loading in (material.model(never), material.model_with("lstm", never)):
        used, _ = run_to_end(loading)
        assert (used.model, used.name, used.note) == (own.model, own.name, "")
    other, _ = run_to_end(material.model_with("transformer", never))
    assert other.note == "lstm has no attention, so this is the class's small Transformer"
    assert other.name == "small Transformer"
