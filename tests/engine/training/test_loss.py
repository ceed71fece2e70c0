"""The training objective and softmax regression against formulas in plain Python."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.config import ModelConfig, TrainingConfig
from engine.models.lstm import LSTMModel
from engine.models.torch_ops import NetworkOutput
from engine.training.optim import Objective, SoftTargets, Window
from tests.support.training import NO_DROPOUT

VOCABULARY_SIZE = 12
TEXT = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 10, 10], np.int32)
"""A text without the last token of the vocabulary, 11."""


def seeded(seed):
    return torch.Generator().manual_seed(seed)


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
