"""Estimate of the time of a training, with a clock that a test moves."""

import math
from itertools import count
from types import SimpleNamespace

import pytest

from engine.training import trainer as training
from engine.training.job import load_training_input
from engine.training.trainer import estimate_training_seconds
from tests.support.training import make_config


class StepClock:
    """Clock on which a step takes one second for each layer of the network and two more for its output."""

    def __init__(self, trainers):
        self.trainers, self.now, self.is_start = trainers, 0.0, True

    def perf_counter(self):
        if not self.is_start:
            self.now += 2.0 + self.trainers[-1].state.config.model.num_layers
        self.is_start = not self.is_start
        return self.now


@pytest.fixture
def trainers(monkeypatch):
    made = []

    def make(*arguments, **options):
        made.append(make_trainer(*arguments, **options))
        return made[-1]

    make_trainer = training.Trainer
    monkeypatch.setattr(training, "Trainer", make)
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=StepClock(made).perf_counter))
    return made


TRANSFORMER = {"architecture": "transformer", "embedding_size": 12, "num_heads": 2, "context_size": 12}
TRANSFORMER |= {"variable_bptt": False, "variational_dropout": False, "weight_drop": 0.0, "unigram_bias": False}


@pytest.mark.parametrize(
    ("settings", "measured_layers", "seconds_of_a_step"),
    [
        ({"num_layers": 2, "variable_bptt": False}, [2], 4.0 / 48),
        (TRANSFORMER | {"num_layers": 3}, [3], 5.0 / 48),
        (TRANSFORMER | {"num_layers": 30}, [1, 3], 32.0 / 24),
    ],
    ids=["lstm", "transformer", "deep transformer"],
)
def test_the_time_follows_from_the_tokens_the_epochs_and_all_layers(
    small_csv, trainers, settings, measured_layers, seconds_of_a_step
):
    config = make_config(corpus=str(small_csv), epochs=5, **settings)
    source = load_training_input(config)
    expected = 5 * (len(source.dataset.train) + len(source.dataset.valid) / 3) * seconds_of_a_step
    assert estimate_training_seconds(config, source, lambda: False) == pytest.approx(expected)
    assert [trainer.state.config.model.num_layers for trainer in trainers] == measured_layers


def test_a_cancelled_estimate_is_not_a_number_and_trains_no_further(small_csv, trainers):
    calls = count()
    config = make_config(corpus=str(small_csv))
    assert math.isnan(estimate_training_seconds(config, load_training_input(config), lambda: next(calls) >= 1))
    assert trainers[0].state.progress.step == 1
