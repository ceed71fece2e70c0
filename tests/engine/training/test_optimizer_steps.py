"""One optimizer step: learning rate, objective, weight decay, gradient clipping and weight averaging."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from engine.analysis.perplexity import evaluate
from engine.config import TrainingConfig
from engine.data.dataset import Dataset
from engine.events import Evaluated, Step
from engine.models.lstm import LSTMModel
from engine.training.batches import sample_bptt_length
from engine.training.optim import scheduled_lr
from tests.support import training
from tests.support.training import NO_DROPOUT, events_of, run_training, weights_equal, weights_of

# --- schedules and windows ------------------------------------------------------------------------------------


def test_one_cycle_warms_up_and_decays_to_almost_zero() -> None:
    options = TrainingConfig(schedule="one_cycle", lr=0.4, warmup_fraction=0.25)
    rates = [scheduled_lr(options, i / 400, 1.0) for i in range(401)]
    assert rates[0] == pytest.approx(0.04 * 0.4)
    assert max(rates) == rates[100] == pytest.approx(0.4)
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[250] == pytest.approx(0.4 * 0.5)  # middle of the cosine
    assert 0 < rates[-1] <= 0.4 * 1e-3
    assert rates[50] == pytest.approx(0.4 * 0.52)  # middle of the warm-up


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_one_cycle_can_be_only_warmup_or_only_decay(warmup: float) -> None:
    options = TrainingConfig(schedule="one_cycle", lr=1.0, warmup_fraction=warmup)
    rates = [scheduled_lr(options, i / 100, 1.0) for i in range(101)]
    assert rates == sorted(rates, reverse=warmup == 0)
    assert max(rates) == pytest.approx(1)


@pytest.mark.parametrize(("steps", "cut_fraction"), [(1000, 0.1), (640, 0.25), (40, 0.5)])
def test_slanted_triangular_follows_the_formula_of_the_paper(steps: int, cut_fraction: float) -> None:
    """Howard and Ruder 2018, equation 3, with a ratio of 32; step t is at the fraction t / T of the training."""
    options = TrainingConfig(schedule="slanted_triangular", lr=0.01, warmup_fraction=cut_fraction)
    cut = math.floor(steps * cut_fraction)
    for t in range(steps):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_fraction - 1))
        assert scheduled_lr(options, t / steps, 1.0) == pytest.approx(0.01 * (1 + p * (32 - 1)) / 32)


def test_slanted_triangular_starts_and_ends_at_a_32nd_of_its_peak() -> None:
    options = TrainingConfig(schedule="slanted_triangular", lr=3.2, warmup_fraction=0.1)
    rates = [scheduled_lr(options, progress, 1.0) for progress in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert rates == pytest.approx([0.1, 1.65, 3.2, 1.65, 0.1])
    for warmup, expected in [(0.0, [3.2, 0.1]), (1.0, [0.1, 3.2])]:
        options = TrainingConfig(schedule="slanted_triangular", lr=3.2, warmup_fraction=warmup)
        assert [scheduled_lr(options, progress, 1.0) for progress in (0.0, 1.0)] == pytest.approx(expected)


def test_constant_and_plateau_schedules() -> None:
    for progress in (0.0, 0.3, 1.0):
        assert scheduled_lr(TrainingConfig(schedule="constant", lr=0.1), progress, 0.25) == 0.1
        assert scheduled_lr(TrainingConfig(schedule="plateau", lr=0.1), progress, 0.25) == pytest.approx(0.025)


def test_steps_use_the_one_cycle_schedule(dataset: Dataset) -> None:
    """With fixed windows, the last step of each epoch starts at a known fraction of the epoch."""
    events = run_training(dataset, variable_bptt=False, shuffle_lines=False, epochs=4)
    last = len(dataset.train) // 4 - 1
    begin = (last - 1) // 12 * 12  # start of the last window
    options = training.make_config(epochs=4).training
    ends = [step for step in events_of(Step, events) if step.epoch == round(step.epoch)]
    assert len(ends) == 4
    for epoch, step in enumerate(ends):
        assert step.lr == pytest.approx(scheduled_lr(options, (epoch + begin / last) / 4, 1.0))


def test_plateau_halves_the_learning_rate_only_without_improvement(dataset: Dataset) -> None:
    improved = not_improved = 0
    for lr in (0.02, 0.15, 0.6):
        values = {"schedule": "plateau", "epochs": 8, "lr": lr, "clip": 0.0, "variable_bptt": False}
        events = run_training(dataset, **values)
        factor = 1.0
        evaluations = events_of(Evaluated, events)
        for evaluated, rates in zip(evaluations[:-1], training.learning_rates_by_epoch(events), strict=True):
            improved, not_improved = improved + evaluated.is_best, not_improved + (not evaluated.is_best)
            factor *= 1.0 if evaluated.is_best else 0.5
            assert rates == {lr * factor}
    assert improved >= 2, "this test needs evaluations that are the best so far"
    assert not_improved >= 2, "this test needs evaluations without improvement"


def test_the_learning_rate_is_scaled_by_the_window_length(dataset: Dataset) -> None:
    """The test draws the window lengths again from the same seed, and so knows the last window of each epoch."""
    values: dict[str, Any] = {"schedule": "constant", "lr": 0.01, "bptt": 20, "epochs": 4, "shuffle_lines": False}
    events = run_training(dataset, **values, variable_bptt=True, seed=3)
    options = training.make_config(**values, variable_bptt=True).training
    rng, last, num_steps = random.Random(3), len(dataset.train) // 4 - 1, 0
    ends = [step for step in events_of(Step, events) if step.epoch == round(step.epoch)]
    lengths = set()
    for step in ends:
        position = 0
        while position < last:
            length = min(sample_bptt_length(options, rng), last - position)
            position += length
            num_steps += 1
        assert step.step == num_steps
        assert step.lr == pytest.approx(0.01 * length / 20)
        lengths.add(length)
    assert len(lengths) > 1


# --- the objective --------------------------------------------------------------------------------------------

ONE_STEP: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 3,
    "bptt": 10_000,
    "variable_bptt": False,
    "shuffle_lines": False,
    "optimizer": "sgd",
    "schedule": "constant",
    "lr": 0.5,
    "clip": 0.0,
}


@pytest.mark.parametrize("output_dropout", [0.0, 0.5])
@pytest.mark.parametrize(
    ("ar", "tar", "smoothing"), [(0, 0, 0), (2.0, 0, 0), (0, 3.0, 0), (0, 0, 0.3), (2.0, 1.0, 0.2)]
)
def test_one_sgd_step_follows_the_gradient_of_the_objective(
    dataset: Dataset, ar: float, tar: float, smoothing: float, output_dropout: float
) -> None:
    """The test computes the objective from its formula; the step is its gradient times the learning rate."""
    values = {**NO_DROPOUT, **ONE_STEP, "output_dropout": output_dropout}
    values |= {"ar": float(ar), "tar": float(tar), "label_smoothing": float(smoothing), "seed": 4}
    events = run_training(dataset, **values)
    before, after = (weights_of(event) for event in events_of(Evaluated, events))

    network = LSTMModel(training.make_config(**values).model, len(dataset.tokenizer), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(before[name]))
    text = torch.from_numpy(dataset.train.astype(np.int64))
    rows = len(text) // 3
    columns = torch.stack([text[i * rows : (i + 1) * rows] for i in range(3)], dim=1)
    inputs, targets = columns[:-1], columns[1:]
    logits, _, raw, dropped = network(inputs, network.initial_state(3), torch.Generator().manual_seed(4))
    probs = torch.softmax(logits.double(), -1)
    frequencies = torch.bincount(text, minlength=len(dataset.tokenizer)).double() / len(text)
    target_probs = (1 - smoothing) * torch.nn.functional.one_hot(targets, len(frequencies)) + smoothing * frequencies
    objective = -(target_probs * probs.log()).sum(-1).mean()
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
    # The reported training perplexity contains no regularization terms.
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    (step,) = events_of(Step, events)
    assert step.train_perplexity == pytest.approx(math.exp(float(loss.detach())), rel=1e-5)
    norm = math.sqrt(sum(float(parameter.grad.pow(2).sum()) for parameter in network.parameters()))  # type: ignore[union-attr]
    assert step.gradient_norm == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_sgd_decays_all_weights(dataset: Dataset, tied: bool) -> None:
    values = {**NO_DROPOUT, **ONE_STEP, "tie_weights": tied}
    plain, decayed = (events_of(Evaluated, run_training(dataset, **values, weight_decay=decay)) for decay in (0.0, 0.1))
    before = weights_of(plain[0])
    assert weights_equal(before, weights_of(decayed[0]))
    for name, value in weights_of(plain[1]).items():
        assert weights_of(decayed[1])[name] == pytest.approx(value - 0.5 * 0.1 * before[name], abs=1e-6)


def test_adamw_decays_matrices_but_not_biases(dataset: Dataset) -> None:
    values = {**NO_DROPOUT, **ONE_STEP, "optimizer": "adamw", "lr": 0.01}
    plain, decayed = (events_of(Evaluated, run_training(dataset, **values, weight_decay=decay)) for decay in (0.0, 0.1))
    before = weights_of(plain[0])
    for name, value in weights_of(plain[1]).items():
        expected = value - (0.01 * 0.1 * before[name] if value.ndim == 2 else 0)
        assert weights_of(decayed[1])[name] == pytest.approx(expected, abs=1e-6)


def test_clipping_bounds_the_norm_of_all_gradients(dataset: Dataset) -> None:
    events = run_training(dataset, **{**NO_DROPOUT, **ONE_STEP, "clip": 0.001, "ar": 0.0, "tar": 0.0})
    before, after = (weights_of(event) for event in events_of(Evaluated, events))
    norm = math.sqrt(sum(float(((after[name] - before[name]) ** 2).sum()) for name in before))
    assert events_of(Step, events)[0].gradient_norm > 0.005
    assert norm == pytest.approx(0.5 * 0.001, rel=1e-2)


def test_lstm_state_is_carried_from_window_to_window(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tiny learning rate, many short windows have the same loss as one long window."""
    monkeypatch.setattr("engine.training.reporting.REPORT_INTERVAL", 1e9)  # one report on any machine
    values = {**NO_DROPOUT, **ONE_STEP, "batch_size": 3, "lr": 1e-9, "ar": 0.0, "tar": 0.0}
    expected = events_of(Step, run_training(dataset, **values))[-1].train_perplexity
    reports = events_of(Step, run_training(dataset, **(values | {"bptt": 11})))
    assert len(reports) == 1, "this test needs one report for the epoch"
    assert reports[0].step > 3
    assert reports[0].train_perplexity == pytest.approx(expected, rel=1e-5)


def test_validation_scores_the_averaged_weights(dataset: Dataset) -> None:
    """One step an epoch, so that each evaluation shows one more value of the average."""
    values = {**NO_DROPOUT, **ONE_STEP, "epochs": 5}
    plain = [weights_of(event) for event in events_of(Evaluated, run_training(dataset, **values))]
    averaged_events = run_training(dataset, **values, ema_decay=0.12)
    averaged = [weights_of(event) for event in events_of(Evaluated, averaged_events)]
    mean = plain[0]
    assert weights_equal(averaged[0], plain[0])
    for update, weights in enumerate(plain[1:]):
        decay = min(0.12, update / (update + 10))  # a running mean at first, then the configured decay
        mean = {name: decay * mean[name] + (1 - decay) * weights[name] for name in mean}
        for name in mean:
            assert averaged[update + 1][name] == pytest.approx(mean[name], abs=1e-6)
    assert not weights_equal(averaged[-1], plain[-1])
    for event in events_of(Evaluated, averaged_events):
        assert event.valid_perplexity == pytest.approx(evaluate(event.model, dataset.valid).perplexity, rel=1e-4)


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 0.03), ("adam", 0.03), ("sgd", 2.0)])
@pytest.mark.parametrize("tied", [True, False])
def test_every_optimizer_learns(dataset: Dataset, optimizer: str, lr: float, tied: bool) -> None:
    values = {"optimizer": optimizer, "lr": lr, "clip": 0.0, "schedule": "constant", "unigram_bias": False}
    first, *_, last = (
        event.valid_perplexity
        for event in events_of(Evaluated, run_training(dataset, tie_weights=tied, epochs=2, **values))
    )
    assert first == pytest.approx(len(dataset.tokenizer), rel=0.05)  # the untrained model is almost uniform
    assert last < 0.9 * first
