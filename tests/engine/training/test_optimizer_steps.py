"""Windows, learning rates, objectives and single optimizer steps against formulas worked out by hand."""

import math
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.analysis.evaluation import evaluate
from engine.config import ModelConfig, TrainingConfig
from engine.data.dataset import batchify
from engine.data.tokenizers import EOS_ID
from engine.events import Evaluated, Step
from engine.models.lstm import LSTMModel
from engine.models.torch_ops import NetworkOutput
from engine.training.optim import Objective, SoftTargets, Window, scheduled_lr
from engine.training.state import sample_bptt_length
from tests.support import training
from tests.support.networks import seeded
from tests.support.training import NO_DROPOUT

pytestmark = pytest.mark.usefixtures("one_thread")


def test_variable_window_lengths_vary_around_bptt_and_half_of_it():
    rng = random.Random(0)
    lengths = [sample_bptt_length(70, rng) for _ in range(5000)]
    short = [length for length in lengths if length < 52]
    assert len(short) / len(lengths) == pytest.approx(0.05, abs=0.015)
    assert np.mean(short) == pytest.approx(34.5, abs=1.5)  # lengths are rounded down
    assert np.mean([length for length in lengths if length >= 52]) == pytest.approx(69.5, abs=0.5)
    for bptt in (1, 5, 8):
        assert min(sample_bptt_length(bptt, rng) for _ in range(300)) == 5


def test_batchify_cuts_the_text_into_columns():
    ids = np.arange(11, dtype=np.int32)
    assert batchify(ids, 3).tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]  # 9 and 10 do not fill a row
    assert batchify(ids, 11).tolist() == [list(range(11))]
    assert np.shares_memory(batchify(ids, 3), ids)  # a text may be larger than memory


def test_the_windows_of_an_epoch_are_its_columns_cut_at_any_lengths(dataset):
    reader = training.make_trainer(dataset, shuffle_lines=False, variable_bptt=True, bptt=12).state.windows
    columns = torch.from_numpy(batchify(dataset.train, 4)).long()
    windows = [reader.next_window()]
    while reader.epoch is not None:
        windows.append(reader.next_window())
    assert torch.equal(torch.cat([window.inputs for window in windows]), columns[:-1])
    assert torch.equal(torch.cat([window.targets for window in windows]), columns[1:])
    assert [window.start for window in windows] == [0, *[window.end for window in windows[:-1]]]
    assert windows[-1].end == 1
    assert len({len(window.inputs) for window in windows}) > 3
    assert torch.equal(reader.next_window().inputs[0], columns[0])


def lines_in(text):
    start = int(np.flatnonzero(text == EOS_ID)[0]) + 1
    lines = [()]
    for token in np.roll(text, -start).tolist():
        if token == EOS_ID:
            lines.append(())
        else:
            lines[-1] = (*lines[-1], token)
    return Counter(line for line in lines if line)


def test_shuffling_changes_only_the_order_of_the_lines(dataset):
    before = dataset.train.copy()
    reader = training.make_trainer(dataset, shuffle_lines=True, batch_size=1).state.windows
    texts = [reader.begin_epoch().columns.flatten().numpy() for _ in range(2)]
    for text in texts:
        assert lines_in(text) == lines_in(dataset.train)
        assert not np.array_equal(text, dataset.train)
    assert not np.array_equal(*texts)
    again = training.make_trainer(dataset, shuffle_lines=True, batch_size=1).state.windows.begin_epoch()
    assert np.array_equal(again.columns.flatten().numpy(), texts[0])
    assert np.array_equal(dataset.train, before)


class TestLearningRates:
    def test_one_cycle_warms_up_and_decays_to_almost_zero(self):
        options = TrainingConfig(schedule="one_cycle", lr=0.4, warmup_fraction=0.25)
        rates = [scheduled_lr(options, i / 400, 1.0) for i in range(401)]
        assert rates[:101] == sorted(rates[:101])
        assert rates[100:] == sorted(rates[100:], reverse=True)
        # The start, the middle of the warm-up, the peak, and the middle of the cosine.
        assert [rates[i] for i in (0, 50, 100, 250)] == pytest.approx([0.4 * 0.04, 0.4 * 0.52, 0.4, 0.4 * 0.5])
        assert 0 < rates[-1] <= 0.4 * 1e-3

    @pytest.mark.parametrize(("steps", "cut_fraction"), [(1000, 0.1), (40, 0.5)])
    def test_slanted_triangular_follows_the_formula_of_the_paper(self, steps, cut_fraction):
        """Howard and Ruder 2018, equation 3, with a ratio of 32; step t is at the fraction t / T of the training."""
        options = TrainingConfig(schedule="slanted_triangular", lr=0.01, warmup_fraction=cut_fraction)
        cut = math.floor(steps * cut_fraction)
        for t in range(steps):
            p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_fraction - 1))
            assert scheduled_lr(options, t / steps, 1.0) == pytest.approx(0.01 * (1 + p * (32 - 1)) / 32)

    @pytest.mark.parametrize(
        ("schedule", "lowest"), [("one_cycle", (0.04, 1e-4)), ("slanted_triangular", (1 / 32, 1 / 32))]
    )
    def test_a_schedule_can_be_only_warmup_or_only_decay(self, schedule, lowest):
        start, end = lowest
        for warmup, expected in [(0.0, [1.0, end]), (1.0, [start, 1.0])]:
            options = TrainingConfig(schedule=schedule, lr=1.0, warmup_fraction=warmup)
            assert [scheduled_lr(options, progress, 1.0) for progress in (0.0, 1.0)] == pytest.approx(expected)

    @pytest.mark.parametrize("variable_bptt", [False, True])
    def test_each_step_uses_the_schedule_and_the_length_of_its_window(self, dataset, variable_bptt):
        """The test draws the window lengths again from the same seed."""
        values = {"epochs": 2, "bptt": 20, "shuffle_lines": False, "variable_bptt": variable_bptt, "seed": 3}
        steps = training.events_of(Step, training.run_training(dataset, **values, **training.REPORT_EACH_STEP))
        options = training.make_config(**values).training
        rng, last, expected = random.Random(3), len(dataset.train) // 4 - 1, []
        for epoch in range(2):
            position = 0
            while position < last:
                length = min(sample_bptt_length(20, rng) if variable_bptt else 20, last - position)
                lr = scheduled_lr(options, (epoch + position / last) / 2, 1.0)
                expected.append(lr * length / 20 if variable_bptt else lr)
                position += length
        assert [step.lr for step in steps] == pytest.approx(expected)

    def test_plateau_halves_the_learning_rate_only_without_improvement(self, dataset):
        values = {"schedule": "plateau", "epochs": 3, "lr": 0.15, "clip": 0.0, "variable_bptt": False}
        best, factor, halved, kept = math.inf, 1.0, 0, 0
        for event in training.run_training(dataset, **values, eval_every_steps=3, **training.REPORT_EACH_STEP):
            if isinstance(event, Step):
                assert event.lr == 0.15 * factor
            elif isinstance(event, Evaluated) and event.step:  # the evaluation of random weights does not count
                is_worse = event.valid_perplexity >= best
                best, factor = min(best, event.valid_perplexity), factor * (0.5 if is_worse else 1)
                halved, kept = halved + is_worse, kept + (not is_worse)
        assert halved >= 2, "this test needs evaluations without improvement"
        assert kept >= 2, "this test needs evaluations that are the best so far"


ONE_STEP = {
    **training.NO_DROPOUT, "epochs": 1, "batch_size": 3, "bptt": 10_000, "variable_bptt": False, "shuffle_lines": False,
    "optimizer": "sgd", "schedule": "constant", "lr": 0.5, "clip": 0.0,
}  # fmt: skip


def before_and_after(dataset, **values):
    return [
        training.weights_of(event)
        for event in training.events_of(Evaluated, training.run_training(dataset, **(ONE_STEP | values)))
    ]


@pytest.mark.parametrize(
    ("ar", "tar", "smoothing", "output_dropout"), [(0.0, 0.0, 0.0, 0.0), (0.0, 3.0, 0.0, 0.5), (2.0, 1.0, 0.2, 0.5)]
)
def test_one_sgd_step_follows_the_gradient_of_the_objective(dataset, ar, tar, smoothing, output_dropout):
    """The test computes the objective from its formula; the step is its gradient times the learning rate."""
    values = {**ONE_STEP, "output_dropout": output_dropout}
    values |= {"ar": ar, "tar": tar, "label_smoothing": smoothing, "seed": 4}
    events = training.run_training(dataset, **values)
    before, after = (training.weights_of(event) for event in training.events_of(Evaluated, events))

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
    for name, parameter in network.named_parameters():
        assert after[name] == pytest.approx(before[name] - 0.5 * parameter.grad.numpy(), abs=2e-6)
    assert sum(float(np.abs(after[name] - before[name]).sum()) for name in before) > 0.05
    # The reported training perplexity contains no regularization terms.
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    (step,) = training.events_of(Step, events)
    assert step.train_perplexity == pytest.approx(math.exp(float(loss.detach())), rel=1e-5)
    norm = math.sqrt(sum(float(parameter.grad.pow(2).sum()) for parameter in network.parameters()))
    assert step.gradient_norm == pytest.approx(norm, rel=1e-4)


def test_sgd_decays_all_weights(dataset):
    before, plain = before_and_after(dataset)
    _, decayed = before_and_after(dataset, weight_decay=0.1)
    for name, value in plain.items():
        assert decayed[name] == pytest.approx(value - 0.5 * 0.1 * before[name], abs=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_first_step_of_adam_is_the_learning_rate_against_the_gradient(dataset, optimizer):
    """Bias-corrected moments of one gradient are the gradient and its square; AdamW decays matrices, but not biases."""
    before, after_sgd = before_and_after(dataset, lr=1.0)
    values = {"optimizer": optimizer, "lr": 0.01}
    _, plain = before_and_after(dataset, **values)
    _, decayed = before_and_after(dataset, **values, weight_decay=0.1)
    for name, value in plain.items():
        gradient = before[name] - after_sgd[name]
        is_clear = np.abs(gradient) > 1e-4  # far larger than the rounding errors of the difference
        expected = before[name] - 0.01 * np.sign(gradient)
        assert value[is_clear] == pytest.approx(expected[is_clear], abs=2e-5)
        if optimizer == "adamw":
            decay = 0.01 * 0.1 * before[name] if value.ndim == 2 else 0
            assert decayed[name] == pytest.approx(value - decay, abs=1e-6)


def test_clipping_bounds_the_norm_of_all_gradients(dataset):
    events = training.run_training(dataset, **(ONE_STEP | {"clip": 0.001, "ar": 0.0, "tar": 0.0}))
    before, after = (training.weights_of(event) for event in training.events_of(Evaluated, events))
    norm = math.sqrt(sum(float(((after[name] - before[name]) ** 2).sum()) for name in before))
    assert training.events_of(Step, events)[0].gradient_norm > 0.005
    assert norm == pytest.approx(0.5 * 0.001, rel=1e-2)


def test_lstm_state_is_carried_from_window_to_window(dataset):
    """With a tiny learning rate, many short windows have the same loss as one long window."""
    values = ONE_STEP | training.REPORT_EACH_STEP | {"lr": 1e-9, "ar": 0.0, "tar": 0.0}
    (whole,) = training.events_of(Step, training.run_training(dataset, **values))
    losses = [
        math.log(step.train_perplexity)
        for step in training.events_of(Step, training.run_training(dataset, **(values | {"bptt": 11})))
    ]
    length = len(dataset.train) // 3 - 1
    lengths = [min(11, length - begin) for begin in range(0, length, 11)]
    assert len(losses) == len(lengths) > 3
    assert np.average(losses, weights=lengths) == pytest.approx(math.log(whole.train_perplexity), rel=1e-5)


def test_validation_scores_the_moving_average_of_the_weights(dataset):
    """One step an epoch, so that each evaluation shows one more value of the average."""
    values = ONE_STEP | {"epochs": 5}
    plain = training.events_of(Evaluated, training.run_training(dataset, **values, averaging="none"))
    averaged = training.events_of(Evaluated, training.run_training(dataset, **values, averaging="ema", ema_decay=0.12))
    mean = training.weights_of(plain[0])
    for update, event in enumerate(plain[1:]):
        decay = min(0.12, update / (update + 10))  # a running mean at first, then the configured decay
        mean = {name: decay * mean[name] + (1 - decay) * value for name, value in training.weights_of(event).items()}
        for name, value in training.weights_of(averaged[update + 1]).items():
            assert value == pytest.approx(mean[name], abs=1e-6)
        perplexity = evaluate(averaged[update + 1].model, dataset.valid).perplexity
        assert averaged[update + 1].valid_perplexity == pytest.approx(perplexity, rel=1e-4)
    assert not training.weights_equal(training.weights_of(averaged[-1]), training.weights_of(plain[-1]))


VOCABULARY_SIZE = 12
TEXT = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 10, 10], np.int32)
"""A text without the last token of the vocabulary, 11."""


def objective_of(size=VOCABULARY_SIZE, text=TEXT, **values):
    return Objective(TrainingConfig(**({"label_smoothing": 0.0} | values)), text, size, torch.device("cpu"))


class FixedNetwork:
    """A network with the same logits and outputs for every window."""

    base = None

    def __init__(self, logits, raw, dropped, gate_log_probs=None):
        self.output = NetworkOutput(logits, [], raw, dropped)
        self.punctuation_softmax = gate_log_probs and SimpleNamespace(gate_log_probs=lambda dropped: gate_log_probs())

    def __call__(self, *arguments, **options):
        return self.output


def losses_of(objective, logits, targets, raw, dropped, classes=None, soft_targets=None):
    """Return the loss and the objective of a window with these outputs."""
    window, network = Window(targets, targets), FixedNetwork(logits, raw, dropped)
    return objective(network, window, [], seeded(0), classes, soft_targets)[:2]


def make_window():
    """Return logits, targets, and outputs before and after dropout."""
    generator, time, batch = seeded(1), 5, 3
    raw = torch.randn(time, batch, 4, generator=generator)
    dropped = raw * (torch.rand(raw.shape, generator=generator) < 0.5) * 2
    targets = torch.randint(VOCABULARY_SIZE, (time, batch), generator=generator)
    return 2 * torch.randn(time, batch, VOCABULARY_SIZE, generator=generator), targets, raw, dropped


def log_probs_of(logits):
    values = logits.double().numpy()
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def cross_entropy(logits, targets):
    log_probs = log_probs_of(logits)
    time, batch = targets.shape
    return -float(np.mean([log_probs[t, b, targets[t, b]] for t in range(time) for b in range(batch)]))


@pytest.mark.parametrize(("ar", "tar"), [(0.0, 0.0), (2.0, 0.0), (0.0, 1.0), (0.3, 7.0)])
def test_ar_and_tar_follow_the_paper_and_do_not_change_the_loss(ar, tar):
    """Merity et al. 2017, section 4.6: AR penalizes squared dropped outputs, TAR squared changes of raw outputs."""
    logits, targets, raw, dropped = make_window()
    loss, objective = losses_of(objective_of(ar=ar, tar=tar), logits, targets, raw, dropped)
    assert float(loss) == pytest.approx(cross_entropy(logits, targets), rel=1e-6)
    sizes = [value**2 for value in dropped.flatten().tolist()]
    changes = [(b - a) ** 2 for t in range(4) for a, b in zip(raw[t].flatten(), raw[t + 1].flatten(), strict=True)]
    expected = ar * sum(sizes) / len(sizes) + tar * float(sum(changes)) / len(changes)
    assert float(objective - loss) == pytest.approx(expected, rel=1e-5)
    one_step = losses_of(objective_of(tar=5.0), *(each[:1] for each in (logits, targets, raw, dropped)))
    assert float(one_step[0]) == float(one_step[1])  # without a change there is no penalty of changes


def test_label_smoothing_spreads_a_part_of_each_target_over_the_token_frequencies():
    smoothing = 0.4
    logits, targets, raw, dropped = make_window()
    loss, objective = losses_of(objective_of(label_smoothing=smoothing), logits, targets, raw, dropped)
    log_probs, total = log_probs_of(logits), 0.0
    for t in range(5):
        for b in range(3):
            for token in range(VOCABULARY_SIZE):
                wanted = smoothing * TEXT.tolist().count(token) / len(TEXT)
                wanted += 1 - smoothing if token == targets[t, b] else 0
                total -= wanted * log_probs[t, b, token]
    assert float(objective) == pytest.approx(total / 15, rel=1e-5)
    assert float(loss) == pytest.approx(cross_entropy(logits, targets), rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_teachers_replace_a_part_of_the_targets(weight):
    logits, targets, raw, dropped = make_window()
    teacher = torch.softmax(torch.randn(logits.shape, generator=seeded(5)), -1)
    objective = objective_of(ar=0.0, tar=0.0)
    weights = torch.full((targets.shape[1],), weight)
    soft_targets = SoftTargets(teacher, None, weights, targets.shape[1])
    loss, distilled = losses_of(objective, logits, targets, raw, dropped, soft_targets=soft_targets)
    expected = -float((teacher.double().numpy() * log_probs_of(logits)).sum(-1).mean())
    assert float(loss) == pytest.approx(cross_entropy(logits, targets), rel=1e-6)
    assert float(distilled) == pytest.approx((1 - weight) * float(loss) + weight * expected, rel=1e-5)


@pytest.mark.parametrize(("samples", "tied"), [(VOCABULARY_SIZE, True), (1000, False)])
def test_with_as_many_samples_as_tokens_the_softmax_is_full(samples, tied):
    config = ModelConfig(embedding_size=4, hidden_size=4, tie_weights=tied, subword_embeddings=False, **NO_DROPOUT)
    _, targets, _, _ = make_window()
    inputs = torch.randint(VOCABULARY_SIZE, targets.shape, generator=seeded(8))
    results = []
    for number in (0, samples):
        network = LSTMModel(config, VOCABULARY_SIZE, seeded(0))
        objective = objective_of(softmax_samples=number, ar=1.0, tar=1.0)
        classes = objective.sample_classes(targets, seeded(5)) if number else None
        logits, _, raw, dropped = network(inputs, network.initial_state(3), None, classes)
        loss, total = losses_of(objective, logits, targets, raw, dropped, classes)
        total.backward()
        results.append((loss.detach(), {name: parameter.grad for name, parameter in network.named_parameters()}))
    (full, gradients), (some, others) = results
    assert float(some) == pytest.approx(float(full), abs=1e-5)
    for name, gradient in gradients.items():
        assert gradient is not None
        assert gradient.abs().max() > 0
        torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-4)


def test_the_punctuation_after_each_token_is_a_part_of_the_objective():
    logits, targets, raw, dropped = make_window()
    log_probs = torch.log_softmax(torch.randn(*targets.shape, 3, generator=seeded(6)), -1)
    punctuation = torch.randint(3, targets.shape, generator=seeded(7))
    network = FixedNetwork(logits, raw, dropped, lambda: log_probs)
    loss, objective, _ = objective_of(ar=0.0, tar=0.0)(network, Window(targets, targets, punctuation), [], seeded(0))
    expected = -sum(log_probs[t, b, punctuation[t, b]] for t in range(5) for b in range(3)) / 15
    assert float(objective - loss) == pytest.approx(float(expected), rel=1e-5)
