"""How a training ends: stopped, out of patience, or with an error that says what would help."""

import math
from typing import Any

import pytest
import torch

from engine.data.dataset import Dataset
from engine.errors import ConfigError, TrainingError
from engine.events import Evaluated, Finished, Step, TrainingEvent
from engine.training.run import train
from tests.support.training import config_of, loop_of, of, run, same, weights_of


def test_stopping_ends_at_once_and_the_test_split_is_not_read(dataset: Dataset) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    events = run(dataset, cancelled, epochs=50)
    (finished,) = of(Finished, events)
    assert finished.reason == "stopped"
    assert math.isnan(finished.test_perplexity)
    assert 0 < finished.epochs < 1
    (evaluated,) = of(Evaluated, events)  # the one before the first update, so there is always a model
    assert finished.valid_perplexity == evaluated.valid_perplexity
    assert same(weights_of(finished), weights_of(evaluated))


def test_stopped_before_the_first_update(dataset: Dataset) -> None:
    events = run(dataset, lambda: True)
    assert not of(Step, events)
    assert of(Finished, events)[0].reason == "stopped"
    assert of(Finished, events)[0].epochs == 0
    assert of(Finished, events)[0].model is not None


def test_stopped_later_the_best_so_far_is_kept(dataset: Dataset) -> None:
    events: list[TrainingEvent] = []
    for event in train(config_of(epochs=50), dataset, "r", lambda: len(of(Evaluated, events)) == 3):
        events.append(event)
    assert len(of(Evaluated, events)) == 3
    assert of(Finished, events)[0].valid_perplexity == min(e.valid_perplexity for e in of(Evaluated, events))
    assert not of(Step, events[events.index(of(Evaluated, events)[-1]) :])


HARMFUL: dict[str, Any] = {"optimizer": "adamw", "lr": 1.0}
"""A rate that spoils the model in the first epoch for good, but leaves it finite."""


@pytest.mark.parametrize("patience", [1, 2])
def test_patience(dataset: Dataset, patience: int) -> None:
    events = run(dataset, epochs=20, schedule="constant", patience=patience, **HARMFUL)
    assert [event.best for event in of(Evaluated, events)] == [True] + [False] * patience
    (finished,) = of(Finished, events)
    assert (finished.reason, finished.epochs) == ("patience", patience)
    assert math.isfinite(finished.test_perplexity)


def test_without_patience_it_goes_on(dataset: Dataset) -> None:
    events = run(dataset, epochs=4, schedule="constant", patience=0, **HARMFUL)
    assert of(Finished, events)[0].reason == "done"
    assert len(of(Evaluated, events)) == 5


def test_a_loss_that_is_no_number_is_an_error_with_a_remedy(dataset: Dataset) -> None:
    with pytest.raises(TrainingError, match=r"--set lr="):
        run(dataset, optimizer="sgd", lr=1000.0, weight_decay=100.0, clip=0.0, schedule="constant")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, r"the rate is too high; try --set lr=0\.01$"),
        ({"clip": 0.0, "precision": "bf16"}, r"gradients are not clipped; try --set clip=1 or --set lr=0\.01$"),
        ({"precision": "bf16"}, r"torch\.bfloat16 too coarse; try --set lr=0\.01 or --precision fp32$"),
    ],
    ids=str,
)
def test_the_remedy_is_that_of_the_likeliest_cause(dataset: Dataset, values: dict[str, Any], said: str) -> None:
    loop = loop_of(dataset, **values)
    loop._check_finite(1e30)
    for loss in (math.nan, math.inf):
        with pytest.raises(TrainingError, match=f"the loss is {loss} at update 0, likely because .*{said}"):
            loop._check_finite(loss)


def test_weights_spoiled_by_the_last_update_are_the_same_error(dataset: Dataset) -> None:
    """The loss of the last window is finite, what its update leaves is not: no model to publish, nor a damaged file."""
    values = {"optimizer": "sgd", "lr": 1000.0, "weight_decay": 100.0, "clip": 0.0, "schedule": "constant"}
    config = config_of(epochs=1, window=75, variable_window=False, shuffle_lines=False, **values)
    events: list[TrainingEvent] = []
    with pytest.raises(TrainingError, match=r"--set lr="):
        events.extend(train(config, dataset, "r", lambda: False))  # keeps those before the error
    assert isinstance(events[-1], Step)
    assert math.isfinite(events[-1].train_perplexity)


def test_a_device_that_is_not_there_is_refused(dataset: Dataset) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has mps")
    with pytest.raises(ConfigError, match="mps"):
        run(dataset, device="mps")
