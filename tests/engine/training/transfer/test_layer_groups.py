"""Discriminative learning rates and gradual unfreezing."""

import numpy as np
import pytest

from tests.support.training import NO_DROPOUT, make_trainer, run_training
from tests.support.training_spies import record_steps

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


def changes(before, after):
    return {name: after[name] - before[name] for name in before}


def test_each_lower_layer_moves_by_the_learning_rate_divided_once_more(dataset, monkeypatch):
    """One SGD step from the same weights with and without the decay: the gradients are equal, the rates are not."""
    steps = record_steps(monkeypatch)
    for decay in (1.0, 2.6):
        make_trainer(dataset, **THREE_LAYERS, **ONE_STEP, layer_lr_decay=decay).train_step()
    plain, decayed = (changes(step.before, step.after) for step in steps)
    depths = {"output.weight": 0, "output.bias": 0, "embedding.weight": 4}
    depths |= {name: 3 - layer for layer in range(3) for name in lstm_parameters(layer)}
    assert depths.keys() == plain.keys()
    for name, depth in depths.items():
        assert np.abs(plain[name]).max() > 0
        assert decayed[name] == pytest.approx(plain[name] / 2.6**depth, rel=1e-3, abs=1e-7), name
    assert [step.lr for step in steps] == [0.5, 0.5]  # the reported rate is that of the top


def test_adamw_decays_a_lower_layer_by_its_own_rate(dataset, monkeypatch):
    """Decoupled weight decay is the learning rate times the decay times the weight."""
    steps = record_steps(monkeypatch)
    for weight_decay in (0.0, 0.5):
        values = {**THREE_LAYERS, "lr": 0.01, "schedule": "constant", "variable_bptt": False, "layer_lr_decay": 2.0}
        make_trainer(dataset, **values, weight_decay=weight_decay).train_step()
    plain, decayed = steps
    for name, depth in {"output.weight": 0, "layers.1.weight_hh_l0": 2, "embedding.weight": 4}.items():
        expected = plain.after[name] - 0.01 / 2**depth * 0.5 * plain.before[name]
        assert decayed.after[name] == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(plain.after["layers.0.bias_ih_l0"], decayed.after["layers.0.bias_ih_l0"])


def moved(step):
    return {name for name in step.before if not np.array_equal(step.before[name], step.after[name])}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_more_group_moves_after_every_unfreeze_epochs(dataset, monkeypatch, optimizer):
    """Weight decay does not move a frozen group either."""
    steps = record_steps(monkeypatch)
    run_training(
        dataset, **THREE_LAYERS, optimizer=optimizer, lr=0.01, weight_decay=0.1, unfreeze_epochs=2, epochs=9, bptt=200,
        variable_bptt=False, schedule="constant",
    )  # fmt: skip
    groups = names(dataset, **THREE_LAYERS)
    steps_per_epoch = len(steps) // 9
    assert steps_per_epoch >= 1
    for epoch in range(9):
        expected = set().union(*groups[: 1 + epoch // 2])
        for step in steps[epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch]:
            assert moved(step) == expected == step.gradients.keys()


def test_zero_unfreeze_epochs_trains_all_groups_from_the_start(dataset, monkeypatch):
    steps = record_steps(monkeypatch)
    make_trainer(dataset, **THREE_LAYERS, unfreeze_epochs=0).train_step()
    assert moved(steps[0]) == steps[0].before.keys()
