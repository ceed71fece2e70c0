"""Tests of the comparison of models from counts to a real one, against naive sums of log-probabilities."""

from dataclasses import replace

import pytest

from lotr_tui.learn.compared_models import ScoredModel, load_comparison
from lotr_tui.learn.material import Material, bundled_data_config
from tests.support.files import run_to_end

pytestmark = pytest.mark.usefixtures("home")  # without SmolLM2


def comparison_of(material):
    return run_to_end(load_comparison(material))[0]


def test_pre_training_needs_fewer_bits_than_the_twin_from_scratch():
    comparison, bits = comparison_of(Material()), {}
    for index in comparison.wanted:
        list(comparison.score(index, lambda: False))
        bits[comparison.models[index].name] = comparison.outcomes[index].bits.bits_per_character
    names = ["LSTM, pre-trained", "LSTM, from scratch", "LSTM of words", "Transformer of words", "5-gram of words"]
    assert sorted(bits, key=bits.get) == names
    assert comparison.models[comparison.best].name == names[0]


def test_models_that_have_read_the_held_out_lines_of_another_split_are_not_compared():
    comparison = comparison_of(Material(replace(bundled_data_config(), split="lines")))
    assert [model.name for model in comparison.models] == ["5-gram of words", "LSTM of words", "Transformer of words"]


def test_model_that_fails_does_not_stop_the_others():
    comparison = comparison_of(Material())

    def fail(_):
        yield "loading …"
        raise ValueError("the file\nis broken")

    models = comparison.models
    comparison.models = (replace(models[0], load=fail), models[1])
    assert list(comparison.score(0, lambda: False)) == ["loading …"]
    assert comparison.best is None
    list(comparison.score(1, lambda: False))
    assert comparison.outcomes[0].count("\n") == 0
    assert "broken" in comparison.outcomes[0]
    assert isinstance(comparison.outcomes[1], ScoredModel)
    assert comparison.best == 1
    assert not list(comparison.score(1, lambda: False))  # outcomes are kept
