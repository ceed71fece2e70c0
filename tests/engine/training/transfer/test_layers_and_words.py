"""Discriminative learning rates, gradual unfreezing, and weights mapped from one vocabulary to another."""

import numpy as np
import pytest

from engine.data.tokenizers.words import WordTokenizer
from engine.training.transfer.word_mapping import map_to_vocabulary
from tests.support.training import NO_DROPOUT, make_trainer, take_step

pytestmark = pytest.mark.usefixtures("one_thread")

THREE_LAYERS = {**NO_DROPOUT, "num_layers": 3, "tie_weights": False}
ONE_STEP = {"optimizer": "sgd", "lr": 0.5, "schedule": "constant", "clip": 0.0, "variable_bptt": False}


def names(dataset, **values):
    return [set(group) for group in make_trainer(dataset, **values).state.network.layer_groups()]


def lstm_parameters(layer):
    return {f"layers.{layer}.{kind}_l0" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}


def test_groups_of_an_untied_model_end_with_the_embedding(dataset):
    output = {"output.weight", "output.bias"}
    expected = [output, lstm_parameters(1), lstm_parameters(0), {"embedding.weight", "subword_embedding"}]
    assert names(dataset, num_layers=2, tie_weights=False, subword_embeddings=True) == expected


def test_a_tied_embedding_belongs_to_the_output_layer(dataset):
    top, lstm = names(dataset, subword_embeddings=True, punctuation=True)
    assert {"embedding.weight", "subword_embedding", "output.bias", "punctuation_softmax.bias"} <= top
    assert lstm == lstm_parameters(0)


def test_each_lower_layer_moves_by_the_learning_rate_divided_once_more(dataset):
    """One step from the same weights with and without the decay: the gradients are equal, the rates are not."""
    plain, decayed = (
        take_step(make_trainer(dataset, **THREE_LAYERS, **ONE_STEP, layer_lr_decay=decay)) for decay in (1.0, 2.6)
    )
    depths = {"output.weight": 0, "output.bias": 0, "embedding.weight": 4}
    depths |= {name: 3 - layer for layer in range(3) for name in lstm_parameters(layer)}
    assert depths.keys() == plain.before.keys()
    for name, depth in depths.items():
        change, slower = plain.after[name] - plain.before[name], decayed.after[name] - decayed.before[name]
        assert np.abs(change).max() > 0
        assert slower == pytest.approx(change / 2.6**depth, rel=1e-3, abs=1e-7), name
    assert plain.lr == decayed.lr == 0.5  # the reported rate is that of the top


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_more_group_moves_after_every_unfreeze_epochs(dataset, optimizer):
    """Weight decay does not move a frozen group either."""
    values = {"lr": 0.01, "weight_decay": 0.1, "bptt": 10_000, "variable_bptt": False, "schedule": "constant"}
    trainer = make_trainer(dataset, **THREE_LAYERS, **values, optimizer=optimizer, unfreeze_epochs=2)
    groups = names(dataset, **THREE_LAYERS)
    for epoch in range(9):  # each of one step
        step = take_step(trainer)
        moved = {name for name in step.before if not np.array_equal(step.before[name], step.after[name])}
        assert moved == set().union(*groups[: 1 + epoch // 2]) == step.gradients.keys()


OLD = WordTokenizer(("<unk>", "<eos>", "ring", "road"))
NEW = WordTokenizer(("<unk>", "<eos>", "road", "hobbit", "ring"))


def test_known_words_keep_their_rows_and_a_new_word_gets_the_mean():
    """Worked by hand: the mean of 1, 3, 5, 7 is 4, and that of 10, 20, 30, 60 is 30."""
    weights = {
        "embedding.weight": np.array([[1, 10], [3, 20], [5, 30], [7, 60]], np.float32),
        "output.weight": np.array([[1], [3], [5], [7]], np.float32),
        "output.bias": np.array([0, 2, 4, 6], np.float32),
        "punctuation_softmax.bias": np.array([[0, 1, 2, 3], [8, 8, 8, 0]], np.float32),
        "layers.0.weight_hh_l0": np.array([[1, 2, 3, 4]], np.float32),
    }
    mapped = map_to_vocabulary(weights, OLD, NEW)
    assert {name: value.tolist() for name, value in mapped.items()} == {
        "embedding.weight": [[1, 10], [3, 20], [7, 60], [4, 30], [5, 30]],
        "output.weight": [[1], [3], [7], [4], [5]],
        "output.bias": [0, 2, 6, 3, 4],
        "punctuation_softmax.bias": [[0, 1, 3, 1.5, 2], [8, 8, 0, 6, 8]],
        "layers.0.weight_hh_l0": [[1, 2, 3, 4]],
    }
    assert {value.dtype for value in mapped.values()} == {np.dtype(np.float32)}
    assert map_to_vocabulary(weights, OLD, WordTokenizer(OLD.tokens)) == weights
