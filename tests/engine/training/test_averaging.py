"""Weight averages, the non-monotone trigger, NT-ASGD and fine-tuning."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.events import Evaluated
from engine.models.lstm import LSTMModel
from engine.training.optim import WeightAverage, nonmonotone_trigger
from tests.support import training

pytestmark = pytest.mark.usefixtures("one_thread")


def make_network(value, **values):
    network = LSTMModel(
        ModelConfig(embedding_size=2, hidden_size=2, num_layers=1, **values), 3, torch.Generator().manual_seed(0)
    )
    fill(network, value)
    return network


def fill(network, value):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def values_of(average):
    return {round(value, 4) for parameter in average.network.parameters() for value in parameter.flatten().tolist()}


@pytest.mark.parametrize("tied", [True, False])
def test_without_decay_the_average_is_the_mean_since_its_creation(tied):
    network = make_network(100.0, tie_weights=tied)  # the weights before the first update do not count
    average = WeightAverage(network)
    assert values_of(average) == {100.0}
    for weight, mean in [(4.0, 4.0), (8.0, 6.0), (0.0, 4.0), (-8.0, 1.0), (6.0, 2.0)]:
        fill(network, weight)
        average.update(network)
        assert values_of(average) == {mean}
    assert all((parameter == 6).all() for parameter in network.parameters())  # the average is a copy
    assert (average.network.output.weight is average.network.embedding.weight) == tied


@given(st.lists(st.integers(0, 9), max_size=15), st.integers(0, 9), st.integers(1, 6))
def test_the_trigger_follows_the_paper(history, perplexity, interval):
    """T > n and v_t > min of v_0 .. v_(T-n-1), in a plain loop."""
    expected = False
    for index, value in enumerate(history):
        if index + interval < len(history) and perplexity > value:
            expected = True
    assert nonmonotone_trigger(history, perplexity, interval) == expected


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return training.make_sentence_dataset(tmp_path_factory.mktemp("corpus"), 90)


SGD = {"optimizer": "sgd", "schedule": "constant", "weight_decay": 1e-3}


def evaluations_of_each_step(dataset, initial_weights=None, **values):
    fixed = {**training.NO_DROPOUT, "shuffle_lines": False, "variable_bptt": False, "bptt": 24, "eval_every_steps": 1}
    config = training.make_config(**(fixed | values))
    events = training.train_with(config, dataset, initial_weights)
    return training.events_of(Evaluated, events), events[-1]


def assert_averaged(evaluated, raw_weights):
    """Check that each evaluation has the mean of the weights after all steps up to its own."""
    assert len(evaluated) > 5
    for number, event in enumerate(evaluated, 1):
        for name, value in training.weights_of(event).items():
            mean = np.mean([weights[name] for weights in raw_weights[:number]], axis=0, dtype=np.float64)
            assert value == pytest.approx(mean, abs=1e-5), name


def first_trigger(perplexities, interval):
    """Return the index of the first perplexity that exceeds the best of all but the latest `interval` before it."""
    return next(t for t, value in enumerate(perplexities) if t > interval and value > min(perplexities[: t - interval]))


def test_nt_asgd_starts_averaging_when_the_trigger_fires(dataset):
    values = {**SGD, "lr": 4.0, "epochs": 2}
    plain, _ = evaluations_of_each_step(dataset, **values, averaging="none")
    evaluated, finished = evaluations_of_each_step(dataset, **values, averaging="nt_asgd", nonmonotone_interval=2)
    # The evaluation before the first step does not count.
    switch = 1 + first_trigger([event.valid_perplexity for event in evaluated[1:]], 2)
    for event, raw in zip(evaluated[: switch + 1], plain, strict=False):
        assert training.weights_equal(training.weights_of(event), training.weights_of(raw))
    assert_averaged(evaluated[switch + 1 :], [training.weights_of(event) for event in plain[switch + 1 :]])
    best = min(evaluated, key=lambda event: event.valid_perplexity)
    assert training.weights_equal(training.weights_of(finished), training.weights_of(best))


def test_fine_tuning_is_averaged_sgd_from_the_best_weights(dataset):
    values = {"optimizer": "adamw", "lr": 0.6, "schedule": "constant", "weight_decay": 1e-3, "averaging": "none"}
    fine_tuning = {"fine_tune_epochs": 1, "fine_tune_lr": 0.5, "nonmonotone_interval": 10_000}
    before, _ = evaluations_of_each_step(dataset, epochs=1, **values)
    evaluated, finished = evaluations_of_each_step(dataset, epochs=1, **values, **fine_tuning)
    best = min(before, key=lambda event: event.valid_perplexity)
    assert best is not before[-1], "this test needs a training whose latest weights are not its best"
    plain, _ = evaluations_of_each_step(dataset, training.weights_of(best), **SGD, lr=0.5, epochs=1, averaging="none")
    assert_averaged(evaluated[len(before) :], [training.weights_of(event) for event in plain[1:]])
    assert (finished.reason, finished.epochs) == ("done", 2)


def test_fine_tuning_ends_when_the_trigger_fires(dataset):
    values = {"epochs": 1, "fine_tune_epochs": 5, "fine_tune_lr": 20.0, "nonmonotone_interval": 2, "clip": 0.0}
    evaluated, finished = evaluations_of_each_step(dataset, **values)
    perplexities = [event.valid_perplexity for event in evaluated if event.epoch > 1]
    assert first_trigger(perplexities, 2) == len(perplexities) - 1
    assert finished.reason == "patience"
    assert finished.valid_perplexity == min(event.valid_perplexity for event in evaluated)
