"""Corpus, models and lines of the class: trained once for each corpus, and nothing incomplete is kept."""

import sys
from dataclasses import replace

import pytest

from engine.data.tokenizers import EOS_ID, UNK_ID, WordTokenizer
from engine.errors import InvalidInputError, RunError
from engine.generation.generate import prefill_prompt
from engine.generation.settings import SamplerSettings
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.learn import material
from lotr_tui.learn.material import LABELS, Material, bundled_data_config, train_class_model
from lotr_tui.session.session_model import load_session_model
from tests.support.files import CYRILLIC, run_to_end, write_corpus
from tests.support.models import distributions

LINES = ["Der Ring", "Der neue Ring liegt im See", "Der alte Ring liegt im See", "Im See liegt der alte Ring"]


@pytest.fixture(autouse=True)
def quick_training(monkeypatch, home):
    """Train the small models of the class for one epoch only, with few parameters."""
    full = material.class_model_config

    def quick(name, data):
        sizes = {"num_layers": 1, "num_heads": 2} if name == "transformer" else {"hidden_size": 16}
        return full(name, data).with_values(epochs=1, threads=1, embedding_size=16, **sizes)

    monkeypatch.setattr(material, "class_model_config", quick)


@pytest.fixture
def data(tmp_path):
    return write_corpus(tmp_path / "own.csv")


def never():
    return False


def trained(home):
    return {path.name for path in home.glob("class/*/*")}


@pytest.mark.parametrize("name", LABELS)
def test_model_of_a_corpus_is_trained_once_and_then_needs_no_training_code(home, data, monkeypatch, name):
    run, lines = run_to_end(train_class_model(name, data, "abc", 1000, never))
    assert run.is_relative_to(home)
    assert lines[-1].startswith(f"training a small {LABELS[name]} on this corpus, once: epoch 1 of 1, perplexity ")
    assert "ring" in load_model(run).model.tokenizer.tokens
    monkeypatch.setitem(sys.modules, "engine.training.job", None)
    assert run_to_end(train_class_model(name, data, "abc", 1000, never)) == (run, [])
    assert trained(home) == {name}


def test_cancelled_training_leaves_nothing_behind_and_two_sessions_keep_one_model(home, data):
    is_cancelled = False
    loading = train_class_model("lstm", data, "abc", 1000, lambda: is_cancelled)
    assert next(loading).startswith("preparing a small LSTM")
    is_cancelled = True
    with pytest.raises(RunError, match="the training of a small LSTM was stopped; open the chapter again"):
        run_to_end(loading)
    assert not trained(home)
    first, second = (train_class_model("lstm", data, "abc", 1000, never) for _ in range(2))
    next(first), next(second)
    assert run_to_end(first)[0] == run_to_end(second)[0]
    assert trained(home) == {"lstm"}


def test_class_without_a_choice_uses_the_bundled_dialogues_and_models():
    bundled = Material()
    assert bundled.corpus_name == "the bundled dialogues"
    dataset, lines = run_to_end(bundled.words())
    assert lines == ["reading the bundled dialogues …"]
    small, lines = run_to_end(bundled.model(never))
    assert (small.name, small.note, lines) == ("small LSTM", "", [])
    assert small.model.tokenizer == dataset.tokenizer
    assert run_to_end(bundled.model_with("lstm", never))[0] is small
    assert run_to_end(bundled.model_with("transformer", never))[0].name == "small Transformer"


def test_corpus_in_cyrillic_is_split_at_white_space(tmp_path):
    cyrillic = Material(write_corpus(tmp_path / "own.csv", words=CYRILLIC))
    small, _ = run_to_end(cyrillic.model_with("lstm", never))
    assert cyrillic.data.tokenizer == "whitespace"
    assert "кольцо" in small.model.tokenizer.tokens
    assert isinstance(small.model, NumpyLSTM)
    # The next session does not know yet that the words tokenizer cannot read it.
    _, lines = run_to_end(Material(replace(cyrillic.data, tokenizer="words")).model_with("lstm", never))
    assert not any("training" in line for line in lines)


@pytest.mark.parametrize("num_lines", [0, 1, 5])
def test_corpus_that_is_too_small_gives_one_line(tmp_path, num_lines):
    with pytest.raises(InvalidInputError) as caught:
        run_to_end(Material(write_corpus(tmp_path / "own.csv", num_lines)).model(never))
    assert "\n" not in str(caught.value)
    assert any(text in str(caught.value) for text in ("rows", "at least 6", "0 lines"))


def test_run_with_an_lstm_is_used_with_its_corpus():
    own = load_session_model([str(assets_dir() / "lstm")], None)
    user = Material(session_model=own)
    assert user.data == bundled_data_config()
    for loading in (user.model(never), user.model_with("lstm", never)):
        used, _ = run_to_end(loading)
        assert (used.model, used.name, used.note) == (own.model, own.name, "")
    other, _ = run_to_end(user.model_with("transformer", never))
    assert other.note == "lstm has no attention, so this is the class's small Transformer"


@pytest.mark.parametrize(
    ("default", "options", "example"),
    [
        ("Der Ring", {}, "Der Ring"),
        ("The ring", {"start_words": 5}, "Der alte Ring liegt im"),
        ("The ring", {}, "Der alte Ring liegt im See"),
        ("Der Ring", {"is_suitable": lambda line: line.startswith("Im")}, LINES[3]),
        ("Der Ring", {"is_suitable": lambda line: False}, "Der Ring"),
    ],
)
def test_default_is_replaced_by_a_line_of_known_words_that_the_chapter_can_use(default, options, example):
    tokenizer = WordTokenizer(("<unk>", "<eos>", "der", "alte", "ring", "liegt", "im", "see"))
    assert material.find_example(default, LINES, tokenizer, **options) == example


@pytest.mark.parametrize("line", ["Frodo has the Ring, and Sam has the", ""])
def test_continuation_takes_the_most_likely_word_each_time(line):
    model = load_model(assets_dir() / "class" / "lstm").model
    ids, written = model.tokenizer.encode(line).tolist(), []
    while len(written) < 6 and written[-1:] != [EOS_ID]:
        probs = distributions(model, [*ids, *written])[-1]
        probs[UNK_ID] = 0
        written.append(int(probs.argmax()))
    words = " ".join("¶" if id == EOS_ID else model.tokenizer.tokens[id] for id in written)
    settings, state = SamplerSettings(temperature=0, max_tokens=6), prefill_prompt(model, ids)
    assert material.encode_line(model, line) == tuple(ids)
    assert material.continue_text(model, state, ids, settings, 0, to_line_end=True) == words
