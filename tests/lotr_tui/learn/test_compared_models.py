"""Tests of the comparison of models from counts to a real one, against naive sums of log-probabilities."""

from dataclasses import replace

import pytest

from lotr_tui.learn.compared_models import ScoredModel, load_comparison
from lotr_tui.learn.material import Material, bundled_data_config
from tests.support.files import run_to_end


@pytest.fixture(autouse=True, scope="module")
def without_smollm2(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTR_TUI_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def comparison_of(material):
    return run_to_end(load_comparison(material))[0]


@pytest.fixture(scope="module")
def scored():
    """Return the comparison on the bundled dialogues, with all models scored."""
    comparison = comparison_of(Material())
    for index in comparison.wanted:
        list(comparison.score(index, lambda: False))
    return comparison


def test_pre_training_needs_fewer_bits_than_the_twin_from_scratch(scored):
    bits = {scored.models[index].name: outcome.bits.bits_per_character for index, outcome in scored.outcomes.items()}
    assert sorted(bits, key=bits.get) == [
        *("LSTM, pre-trained", "LSTM, from scratch", "LSTM of words", "Transformer of words", "5-gram of words")
    ]
    assert scored.models[scored.best].name == "LSTM, pre-trained"


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
