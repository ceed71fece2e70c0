"""Ends of a training: stopped, out of patience, or an error with a remedy."""

import math
from dataclasses import replace

import pytest
import torch

from engine.control import CommandQueue, ControlCommand
from engine.errors import ConfigError, TrainingError
from engine.events import Evaluated, Finished, Snapshot, Step
from engine.training.reporting import check_finite
from engine.training.run import train
from tests.support.training import (
    Untouchable,
    events_of,
    make_config,
    make_trainer,
    run_training,
    weights_equal,
    weights_of,
)


def test_stop_ends_at_once_and_does_not_score_the_test_split(dataset):
    calls = 0

    def cancelled():
        nonlocal calls
        calls += 1
        return calls > 3

    events = run_training(dataset, cancelled, epochs=50)
    (finished,) = events_of(Finished, events)
    assert finished.reason == "stopped"
    assert math.isnan(finished.test_perplexity)
    assert 0 < finished.epochs < 1
    (evaluated,) = events_of(Evaluated, events)  # the validation before the first step, so that there is always a model
    assert finished.valid_perplexity == evaluated.valid_perplexity
    assert weights_equal(weights_of(finished), weights_of(evaluated))


def test_a_training_without_score_test_never_reads_the_test_split(dataset):
    untouchable = replace(dataset, test=Untouchable())
    events = list(train(make_config(epochs=1, score_test=False), untouchable, "r", lambda: False))
    (finished,) = events_of(Finished, events)
    assert (finished.reason, math.isnan(finished.test_perplexity)) == ("done", True)
    with pytest.raises(pytest.fail.Exception):  # the same training with the score
        list(train(make_config(epochs=1), untouchable, "r", lambda: False))


def test_prune_ends_without_a_checkpoint_and_without_the_test_split(dataset):
    queue, events = CommandQueue(), []
    for event in train(make_config(epochs=50), dataset, "r", lambda: False, queue):
        events.append(event)
        if isinstance(event, Evaluated) and event.epoch == 1:
            queue.send(ControlCommand("prune"))
    (finished,) = events_of(Finished, events)
    assert (finished.reason, finished.epochs) == ("pruned", 1)
    assert math.isnan(finished.test_perplexity)
    assert not events_of(Snapshot, events)


def test_stop_before_the_first_step_still_returns_a_model(dataset):
    events = run_training(dataset, lambda: True)
    assert not events_of(Step, events)
    assert events_of(Finished, events)[0].reason == "stopped"
    assert events_of(Finished, events)[0].epochs == 0
    assert events_of(Finished, events)[0].model is not None


def test_stop_returns_the_best_model_so_far(dataset):
    events = []
    for event in train(make_config(epochs=50), dataset, "r", lambda: len(events_of(Evaluated, events)) == 3):
        events.append(event)
    assert len(events_of(Evaluated, events)) == 3
    assert events_of(Finished, events)[0].valid_perplexity == min(
        e.valid_perplexity for e in events_of(Evaluated, events)
    )
    assert not events_of(Step, events[events.index(events_of(Evaluated, events)[-1]) :])


HARMFUL = {"optimizer": "adamw", "lr": 1.0}
"""A learning rate that ruins the model in the first epoch, but leaves the loss finite."""


@pytest.mark.parametrize("patience", [1, 2])
def test_training_stops_after_patience_evaluations_without_improvement(dataset, patience):
    events = run_training(dataset, epochs=20, schedule="constant", patience=patience, **HARMFUL)
    assert [event.is_best for event in events_of(Evaluated, events)] == [True] + [False] * patience
    (finished,) = events_of(Finished, events)
    assert (finished.reason, finished.epochs) == ("patience", patience)
    assert math.isfinite(finished.test_perplexity)


def test_without_patience_training_continues(dataset):
    events = run_training(dataset, epochs=4, schedule="constant", patience=0, **HARMFUL)
    assert events_of(Finished, events)[0].reason == "done"
    assert len(events_of(Evaluated, events)) == 5


def test_a_loss_that_is_not_finite_is_an_error_with_a_remedy(dataset):
    with pytest.raises(TrainingError, match=r"--set lr="):
        run_training(dataset, optimizer="sgd", lr=1000.0, weight_decay=100.0, clip=0.0, schedule="constant")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"the learning rate is too high; try --set lr=0\.01$"),
        ({"clip": 0.0, "precision": "bf16"}, r"gradients are not clipped; try --set clip=1 or --set lr=0\.01$"),
        ({"precision": "bf16"}, r"torch\.bfloat16 too coarse; try --set lr=0\.01 or --precision fp32$"),
    ],
    ids=str,
)
def test_the_remedy_fits_the_likely_cause(dataset, values, message):
    state = make_trainer(dataset, **values).state
    check_finite(1e30, state)
    for loss in (math.nan, math.inf):
        with pytest.raises(TrainingError, match=f"the loss is {loss} at step 0, likely because .*{message}"):
            check_finite(loss, state)


def test_weights_ruined_by_the_last_step_are_the_same_error(dataset):
    """The loss of the last window is finite, but the weights after its step are not and must not be saved."""
    values = {"optimizer": "sgd", "lr": 1000.0, "weight_decay": 100.0, "clip": 0.0, "schedule": "constant"}
    config = make_config(epochs=1, bptt=75, variable_bptt=False, shuffle_lines=False, **values)
    events = []
    with pytest.raises(TrainingError, match=r"--set lr="):
        events.extend(train(config, dataset, "r", lambda: False))  # keeps the events before the error
    assert isinstance(events[-1], Step)
    assert math.isfinite(events[-1].train_perplexity)


def test_a_missing_device_is_refused(dataset):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has mps")
    with pytest.raises(ConfigError, match="mps"):
        run_training(dataset, device="mps")
