"""What an update does: its rate by each schedule, the objective by its formulas, decay, clipping and the average."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from engine.analysis.perplexity import evaluate
from engine.config import TrainingConfig
from engine.data.dataset import Dataset
from engine.events import Evaluated, Step, TrainingEvent
from engine.models.lstm import Network
from engine.training.schedule import scheduled_lr, window_length
from tests.support.training import NO_DROPOUT, config_of, epoch_rates, of, run, same, weights_of

# --- schedules and windows ------------------------------------------------------------------------------------


def test_one_cycle_rises_then_falls_to_nothing() -> None:
    options = TrainingConfig(schedule="one_cycle", lr=0.4, warmup=0.25)
    rates = [scheduled_lr(options, i / 400, 1.0) for i in range(401)]
    assert rates[0] == pytest.approx(0.04 * 0.4)
    assert max(rates) == rates[100] == pytest.approx(0.4)
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[250] == pytest.approx(0.4 * 0.5)  # half of the cosine
    assert 0 < rates[-1] <= 0.4 * 1e-3
    assert rates[50] == pytest.approx(0.4 * 0.52)  # half of the way up


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_one_cycle_all_of_one_kind(warmup: float) -> None:
    options = TrainingConfig(schedule="one_cycle", lr=1.0, warmup=warmup)
    rates = [scheduled_lr(options, i / 100, 1.0) for i in range(101)]
    assert rates == sorted(rates, reverse=warmup == 0)
    assert max(rates) == pytest.approx(1)


def test_constant_and_plateau_rates() -> None:
    for progress in (0.0, 0.3, 1.0):
        assert scheduled_lr(TrainingConfig(schedule="constant", lr=0.1), progress, 0.25) == 0.1
        assert scheduled_lr(TrainingConfig(schedule="plateau", lr=0.1), progress, 0.25) == pytest.approx(0.025)


def test_one_cycle_is_what_the_updates_use(usual: list[TrainingEvent], dataset: Dataset) -> None:
    """With fixed windows the last update of each epoch begins a known share of the way through it."""
    events = run(dataset, variable_window=False, shuffle_lines=False, epochs=4)
    last = len(dataset.train) // 4 - 1
    begin = (last - 1) // 12 * 12  # of the last window of 12
    options = config_of(epochs=4).training
    ends = [step for step in of(Step, events) if step.epoch == round(step.epoch)]
    assert len(ends) == 4
    for epoch, step in enumerate(ends):
        assert step.lr == pytest.approx(scheduled_lr(options, (epoch + begin / last) / 4, 1.0))


def test_plateau_halves_the_rate_only_when_validation_got_no_better(dataset: Dataset) -> None:
    better = worse = 0
    for lr in (0.02, 0.15, 0.6):
        values = {"schedule": "plateau", "epochs": 8, "lr": lr, "clip": 0.0, "variable_window": False}
        events = run(dataset, **values)
        factor = 1.0
        evaluations = of(Evaluated, events)
        for evaluated, rates in zip(evaluations[:-1], epoch_rates(events), strict=True):
            better, worse = better + evaluated.best, worse + (not evaluated.best)
            factor *= 1.0 if evaluated.best else 0.5
            assert rates == {lr * factor}
    assert better >= 2, "this test needs evaluations that are the best so far"
    assert worse >= 2, "this test needs evaluations that are not"


def test_the_rate_is_scaled_by_the_length_of_the_window(dataset: Dataset) -> None:
    """The windows of an epoch, drawn again here from the same seed, fix the rate of its last update."""
    values: dict[str, Any] = {"schedule": "constant", "lr": 0.01, "window": 20, "epochs": 4, "shuffle_lines": False}
    events = run(dataset, **values, variable_window=True, seed=3)
    options = config_of(**values, variable_window=True).training
    chance, last, updates = random.Random(3), len(dataset.train) // 4 - 1, 0
    ends = [step for step in of(Step, events) if step.epoch == round(step.epoch)]
    seen = set()
    for step in ends:
        position = 0
        while position < last:
            length = min(window_length(options, chance), last - position)
            position += length
            updates += 1
        assert step.step == updates
        assert step.lr == pytest.approx(0.01 * length / 20)
        seen.add(length)
    assert len(seen) > 1


# --- the objective --------------------------------------------------------------------------------------------

ONE_UPDATE: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 3,
    "window": 10_000,
    "variable_window": False,
    "shuffle_lines": False,
    "optimizer": "sgd",
    "schedule": "constant",
    "lr": 0.5,
    "clip": 0.0,
}


@pytest.mark.parametrize("dropout_output", [0.0, 0.5])
@pytest.mark.parametrize(
    ("ar", "tar", "smoothing"), [(0, 0, 0), (2.0, 0, 0), (0, 3.0, 0), (0, 0, 0.3), (2.0, 1.0, 0.2)]
)
def test_the_objective_is_what_the_formulas_say(
    dataset: Dataset, ar: float, tar: float, smoothing: float, dropout_output: float
) -> None:
    """One update of plain SGD: the weights after it are those before it less the rate times the gradient."""
    values = {**NO_DROPOUT, **ONE_UPDATE, "dropout_output": dropout_output}
    values |= {"ar": float(ar), "tar": float(tar), "smoothing": float(smoothing), "seed": 4}
    events = run(dataset, **values)
    before, after = (weights_of(event) for event in of(Evaluated, events))

    network = Network(config_of(**values).model, len(dataset.vocabulary), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(before[name]))
    text = torch.from_numpy(dataset.train.astype(np.int64))
    rows = len(text) // 3
    columns = torch.stack([text[i * rows : (i + 1) * rows] for i in range(3)], dim=1)
    inputs, targets = columns[:-1], columns[1:]
    logits, _, raw, dropped = network(inputs, network.start(3), torch.Generator().manual_seed(4))
    probs = torch.softmax(logits.double(), -1)
    frequencies = torch.bincount(text, minlength=len(dataset.vocabulary)).double() / len(text)
    wanted = (1 - smoothing) * torch.nn.functional.one_hot(targets, len(frequencies)) + smoothing * frequencies
    objective = -(wanted * probs.log()).sum(-1).mean()
    objective = objective + ar * (dropped.double() ** 2).mean()
    objective = objective + tar * ((raw[1:].double() - raw[:-1].double()) ** 2).mean()
    objective.backward()
    changes = 0.0
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        expected = before[name] - 0.5 * parameter.grad.numpy()
        assert after[name] == pytest.approx(expected, abs=2e-6)
        changes += float(np.abs(after[name] - before[name]).sum())
    assert changes > 0.05
    # What is told as the perplexity of training is that of the words alone.
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    (step,) = of(Step, events)
    assert step.train_perplexity == pytest.approx(math.exp(float(loss.detach())), rel=1e-5)
    norm = math.sqrt(sum(float(parameter.grad.pow(2).sum()) for parameter in network.parameters()))  # type: ignore[union-attr]
    assert step.gradient_norm == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_weight_decay_of_sgd_shrinks_everything(dataset: Dataset, tied: bool) -> None:
    values = {**NO_DROPOUT, **ONE_UPDATE, "tied": tied}
    plain, decayed = (of(Evaluated, run(dataset, **values, weight_decay=decay)) for decay in (0.0, 0.1))
    before = weights_of(plain[0])
    assert same(before, weights_of(decayed[0]))
    for name, value in weights_of(plain[1]).items():
        assert weights_of(decayed[1])[name] == pytest.approx(value - 0.5 * 0.1 * before[name], abs=1e-6)


def test_weight_decay_of_adamw_shrinks_matrices_and_no_bias(dataset: Dataset) -> None:
    values = {**NO_DROPOUT, **ONE_UPDATE, "optimizer": "adamw", "lr": 0.01}
    plain, decayed = (of(Evaluated, run(dataset, **values, weight_decay=decay)) for decay in (0.0, 0.1))
    before = weights_of(plain[0])
    for name, value in weights_of(plain[1]).items():
        expected = value - (0.01 * 0.1 * before[name] if value.ndim == 2 else 0)
        assert weights_of(decayed[1])[name] == pytest.approx(expected, abs=1e-6)


def test_clipping_bounds_the_whole_gradient(dataset: Dataset) -> None:
    events = run(dataset, **{**NO_DROPOUT, **ONE_UPDATE, "clip": 0.001, "ar": 0.0, "tar": 0.0})
    before, after = (weights_of(event) for event in of(Evaluated, events))
    length = math.sqrt(sum(float(((after[name] - before[name]) ** 2).sum()) for name in before))
    assert of(Step, events)[0].gradient_norm > 0.005
    assert length == pytest.approx(0.5 * 0.001, rel=1e-2)


def test_states_are_carried_from_window_to_window(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second window starts where the first ended: two windows see what one window of double length sees."""
    monkeypatch.setattr("engine.training.trainer.REPORT_SECONDS", 1e9)  # however slow the machine
    values = {**NO_DROPOUT, **ONE_UPDATE, "batch_size": 3, "lr": 1e-9, "ar": 0.0, "tar": 0.0}
    whole = of(Step, run(dataset, **values))[-1].train_perplexity
    parts = of(Step, run(dataset, **(values | {"window": 11})))
    assert len(parts) == 1, "one report is needed, a mean over the epoch"
    assert parts[0].step > 3
    assert parts[0].train_perplexity == pytest.approx(whole, rel=1e-5)


def test_the_average_of_the_weights_is_what_is_evaluated(dataset: Dataset) -> None:
    """One update an epoch, so that each evaluation shows one value of the mean; it does not change the training."""
    values = {**NO_DROPOUT, **ONE_UPDATE, "epochs": 5}
    plain = [weights_of(event) for event in of(Evaluated, run(dataset, **values))]
    averaged_events = run(dataset, **values, average=0.12)
    averaged = [weights_of(event) for event in of(Evaluated, averaged_events)]
    mean = plain[0]
    assert same(averaged[0], plain[0])
    for update, weights in enumerate(plain[1:]):
        decay = min(0.12, update / (update + 10))  # a running mean at first, then the decay asked for
        mean = {name: decay * mean[name] + (1 - decay) * weights[name] for name in mean}
        for name in mean:
            assert averaged[update + 1][name] == pytest.approx(mean[name], abs=1e-6)
    assert not same(averaged[-1], plain[-1])
    for event in of(Evaluated, averaged_events):
        assert event.valid_perplexity == pytest.approx(evaluate(event.model, dataset.valid).perplexity, rel=1e-4)


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 0.03), ("adam", 0.03), ("sgd", 2.0)])
@pytest.mark.parametrize("tied", [True, False])
def test_every_optimizer_learns(dataset: Dataset, optimizer: str, lr: float, tied: bool) -> None:
    values = {"optimizer": optimizer, "lr": lr, "clip": 0.0, "schedule": "constant", "unigram_bias": False}
    first, *_, last = (event.valid_perplexity for event in of(Evaluated, run(dataset, tied=tied, epochs=2, **values)))
    assert first == pytest.approx(len(dataset.vocabulary), rel=0.05)  # it begins with knowing nothing
    assert last < 0.9 * first
