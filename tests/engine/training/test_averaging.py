"""Weight averages, the non-monotone trigger, NT-ASGD and fine-tuning."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.events import Evaluated, Finished, Started, Step
from engine.models.lstm import LSTMModel
from engine.training.averaging import WeightAverage, nonmonotone_trigger
from tests.support import training
from tests.support.training import events_of, run_training, weights_equal, weights_of
from tests.support.training_spies import record_steps, script_validation

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
    assert all((parameter == 6).all() for parameter in network.parameters())


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.4, 0.98])
def test_with_decay_the_average_is_a_running_mean_at_first_and_then_moves(decay):
    rng = np.random.default_rng(0)
    network = make_network(7.0)
    average, expected = WeightAverage(network, decay), 7.0
    for n in range(40):
        weight = float(rng.normal())
        fill(network, weight)
        average.update(network)
        weight_of_new = 1 - min(decay, n / (n + 10))
        expected += weight_of_new * (weight - expected)
        assert all(
            parameter.detach().numpy() == pytest.approx(expected, abs=1e-5) for parameter in parameters_of(average)
        )


def test_the_average_of_a_pretrained_network_starts_at_its_weights():
    network = make_network(10.0)
    average = WeightAverage(network, 0.9, is_pretrained=True)
    assert values_of(average) == {10.0}
    for weight, mean in [(0.0, 9.0), (0.0, 8.1), (108.1, 18.1)]:
        fill(network, weight)
        average.update(network)
        assert values_of(average) == {mean}


def parameters_of(average):
    return list(average.network.parameters())


def test_the_average_is_a_copy_of_the_network_and_keeps_tied_weights():
    network = make_network(1.0, tie_weights=True)
    average = WeightAverage(network)
    fill(network, 3.0)
    assert values_of(average) == {1.0}
    assert average.network.output.weight is average.network.embedding.weight


def test_the_trigger_waits_and_ignores_the_latest_evaluations():
    """Algorithm 1 of Merity et al. 2017 with n=2: compares with the best of all evaluations but the latest two."""
    validation = [100, 90, 95, 99, 85, 88, 90, 86, 84]
    # The trigger compares each value, from the fourth on, with 100, 90, 90, 90, 85, 85.
    fired = [nonmonotone_trigger(validation[:i], now, 2) for i, now in enumerate(validation)]
    assert fired == [False, False, False, False, False, False, False, True, False]
    assert not nonmonotone_trigger([1.0, 2.0], 1000.0, 2)  # only two evaluations before
    assert nonmonotone_trigger([1.0, 2.0, 2.0], 1.5, 2)
    assert not nonmonotone_trigger([1.5, 1.0, 1.0], 1.5, 2)  # an equal value does not trigger


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
    """Return a dataset of sentences that the model does not learn by heart."""
    return training.make_sentence_dataset(tmp_path_factory.mktemp("corpus"), 90)


def run(dataset, **values):
    return run_training(dataset, **({"shuffle_lines": False, "variable_bptt": False} | values))


def mean_weights(steps):
    assert steps
    return {name: np.mean([step.after[name] for step in steps], axis=0, dtype=np.float64) for name in steps[0].after}


def assert_close(actual, expected):
    assert actual.keys() == expected.keys()
    for name in actual:
        assert actual[name] == pytest.approx(expected[name], abs=1e-5)


SGD = {"optimizer": "sgd", "lr": 1.0, "schedule": "constant", "clip": 0.25, "weight_decay": 1e-3}


def test_nt_asgd_starts_averaging_when_the_trigger_fires(dataset, monkeypatch):
    """The evaluation of 99 is compared with 100; the evaluation of 91 is worse than 90, and starts the average."""
    script = [50.0, 100.0, 90.0, 95.0, 99.0, 91.0, 40.0, 30.0]  # the first one is before any step and does not count
    script_validation(monkeypatch, script)
    steps = record_steps(monkeypatch)
    events = run(dataset, averaging="nt_asgd", nonmonotone_interval=2, epochs=7, **SGD)
    evaluated = events_of(Evaluated, events)
    assert [event.valid_perplexity for event in evaluated] == script
    for event in evaluated[1:6]:
        assert weights_equal(weights_of(event), steps[event.step - 1].after)  # not averaged yet
    switch = evaluated[5].step
    for event in evaluated[6:]:
        assert_close(weights_of(event), mean_weights(steps[switch : event.step]))
        assert not weights_equal(weights_of(event), steps[event.step - 1].after)
    (finished,) = events_of(Finished, events)
    assert (finished.valid_perplexity, finished.reason) == (30.0, "done")
    assert_close(weights_of(finished), mean_weights(steps[switch:]))

    # The average does not influence the training.
    averaged, steps[:] = list(steps), []
    script_validation(monkeypatch, script)
    run(dataset, averaging="none", epochs=7, **SGD)
    assert len(steps) == len(averaged)
    assert all(weights_equal(plain.after, other.after) for plain, other in zip(steps, averaged, strict=True))


def test_fine_tuning_is_averaged_sgd_from_the_best_weights(dataset, monkeypatch):
    script = [100.0, 50.0, 60.0, 55.0, 54.0, 56.0, 53.0, 54.5]  # 54.5 is worse than 54, which is three evaluations back
    script_validation(monkeypatch, script)
    steps = record_steps(monkeypatch)
    values = {**training.NO_DROPOUT, "optimizer": "adamw", "lr": 0.03, "weight_decay": 0.01, "averaging": "none"}
    events = run(dataset, epochs=2, fine_tune_epochs=9, fine_tune_lr=0.5, nonmonotone_interval=2, **values)
    evaluated, (finished,) = events_of(Evaluated, events), events_of(Finished, events)
    assert events_of(Started, events)[0].epochs == 11
    assert [event.epoch for event in evaluated] == list(range(8))
    assert [event.valid_perplexity for event in evaluated] == script
    assert (finished.reason, finished.epochs, finished.valid_perplexity) == ("patience", 7, 50.0)
    assert weights_equal(weights_of(finished), weights_of(evaluated[1]))

    begin = evaluated[2].step
    assert not weights_equal(steps[begin - 1].after, steps[begin].before)  # does not continue from the latest weights
    assert weights_equal(steps[begin].before, weights_of(evaluated[1]))  # starts from the best weights
    for step in steps[begin:]:
        assert step.lr == 0.5
        expected = {name: value - 0.5 * (step.gradients[name] + 0.01 * value) for name, value in step.before.items()}
        assert_close(step.after, expected)
    for first, second in zip(steps[begin:], steps[begin + 1 :], strict=False):
        assert weights_equal(first.after, second.before)
    for event in evaluated[3:]:
        assert_close(weights_of(event), mean_weights(steps[begin : event.step]))


def test_fine_tuning_that_keeps_improving_lasts_for_all_its_epochs(dataset, monkeypatch):
    script_validation(monkeypatch, [100.0, 90.0, 80.0, 70.0, 60.0, 50.0])
    events = run(dataset, epochs=2, fine_tune_epochs=3, fine_tune_lr=0.1, nonmonotone_interval=1)
    (finished,) = events_of(Finished, events)
    assert (finished.reason, finished.epochs, finished.valid_perplexity) == ("done", 5, 50.0)
    assert events_of(Step, events)[-1].eta_seconds == pytest.approx(0, abs=1e-6)
