"""What training makes small, against formulas written out here, and a softmax over some words against that over all."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.config import Config, ModelConfig, TrainingConfig, preset
from engine.errors import ConfigError
from engine.models.lstm import Network
from engine.training.loss import Objective, as_if_over_all

WORDS = 12
TEXT = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 10, 10], np.int32)
"""The last word, 11, is never seen."""
NO_DROPOUT = dict.fromkeys(("dropout_words", "dropout_input", "dropout_between", "dropout_output", "weight_drop"), 0.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def objective_of(size: int = WORDS, text: np.ndarray = TEXT, **values: Any) -> Objective:
    return Objective(TrainingConfig(**({"smoothing": 0.0} | values)), text, size, torch.device("cpu"))


def window(time: int = 5, batch: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, targets, and outputs before and after dropout."""
    chance = seeded(1)
    raw = torch.randn(time, batch, 4, generator=chance)
    dropped = raw * (torch.rand(raw.shape, generator=chance) < 0.5) * 2
    targets = torch.randint(WORDS, (time, batch), generator=chance)
    return 2 * torch.randn(time, batch, WORDS, generator=chance), targets, raw, dropped


def log_probs_of(logits: Tensor) -> np.ndarray:
    values = logits.double().numpy()
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def cross_entropy(logits: Tensor, targets: Tensor) -> float:
    log_probs = log_probs_of(logits)
    time, batch = targets.shape
    return -float(np.mean([log_probs[t, b, targets[t, b]] for t in range(time) for b in range(batch)]))


def test_without_penalties_the_objective_is_the_loss_to_the_bit() -> None:
    logits, targets, raw, dropped = window()
    loss, objective = objective_of(ar=0.0, tar=0.0)(logits, targets, None, raw, dropped)
    assert float(loss) == float(objective)
    assert float(loss) == pytest.approx(cross_entropy(logits, targets), rel=1e-6)


@pytest.mark.parametrize(("ar", "tar"), [(2.0, 0.0), (0.0, 1.0), (2.0, 1.0), (0.3, 7.0)])
def test_penalties_add_what_the_paper_says_and_leave_the_loss(ar: float, tar: float) -> None:
    """Section 4.6: alpha times the mean square of the dropped outputs, beta times that of the raw ones' changes."""
    logits, targets, raw, dropped = window()
    plain, _ = objective_of()(logits, targets, None, raw, dropped)
    loss, objective = objective_of(ar=ar, tar=tar)(logits, targets, None, raw, dropped)
    assert float(loss) == float(plain)
    sizes = [value**2 for value in dropped.flatten().tolist()]
    changes = [(b - a) ** 2 for t in range(4) for a, b in zip(raw[t].flatten(), raw[t + 1].flatten(), strict=True)]
    expected = ar * sum(sizes) / len(sizes) + tar * float(sum(changes)) / len(changes)
    assert float(objective - loss) == pytest.approx(expected, rel=1e-5)


def test_a_window_of_one_step_has_no_change_to_penalise() -> None:
    logits, targets, raw, dropped = window(time=1)
    loss, objective = objective_of(tar=5.0)(logits, targets, None, raw, dropped)
    assert float(loss) == float(objective)


@pytest.mark.parametrize("smoothing", [0.05, 0.4])
def test_smoothing_spreads_a_share_of_each_target_over_the_frequencies(smoothing: float) -> None:
    logits, targets, raw, dropped = window()
    loss, objective = objective_of(smoothing=smoothing)(logits, targets, None, raw, dropped)
    log_probs, total = log_probs_of(logits), 0.0
    for t in range(5):
        for b in range(3):
            for word in range(WORDS):
                wanted = smoothing * TEXT.tolist().count(word) / len(TEXT)
                wanted += 1 - smoothing if word == targets[t, b] else 0
                total -= wanted * log_probs[t, b, word]
    assert float(objective) == pytest.approx(total / 15, rel=1e-5)
    assert float(loss) == pytest.approx(cross_entropy(logits, targets), rel=1e-6)


# --- a softmax over some of the words -------------------------------------------------------------------------


def test_smoothing_and_a_softmax_over_some_words_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="softmax_samples and smoothing"):
        TrainingConfig(softmax_samples=10, smoothing=0.1)
    with pytest.raises(ConfigError, match="softmax_samples and smoothing"):
        Config().with_settings(["smoothing=0.1", "softmax_samples=10"])
    assert TrainingConfig(softmax_samples=10).smoothing == 0


@pytest.mark.parametrize("assignments", [["smoothing=0", "softmax_samples=9"], ["softmax_samples=9", "smoothing=0"]])
def test_it_is_the_whole_configuration_that_is_refused_in_whatever_order_it_is_set(assignments: list[str]) -> None:
    assert preset("tiny").training.smoothing > 0
    training = preset("tiny").with_settings(assignments).training
    assert (training.smoothing, training.softmax_samples) == (0, 9)


def test_the_words_compared_are_the_targets_and_about_so_many_more() -> None:
    size, samples = 2000, 500
    objective = objective_of(size, np.arange(size, dtype=np.int32), softmax_samples=samples)
    chance, counts = seeded(3), []
    drawn = torch.zeros(size)
    for i in range(60):
        targets = torch.randint(100, (7, 5), generator=seeded(i))  # of the first hundred words alone
        words = objective.words_to_compare(targets, chance)
        assert words is not None
        found = words.tolist()
        assert found == sorted(set(found))
        assert set(targets.flatten().tolist()) <= set(found)
        assert all(0 <= word < size for word in found)
        drawn[words] += 1
        counts.append(sum(word >= 100 for word in found))
    # 1,900 others with probability 1/4: the mean of 60 draws has a standard error of 18.9/sqrt(60) = 2.4.
    assert np.mean(counts) == pytest.approx(475, abs=10)
    assert np.std(counts) == pytest.approx(math.sqrt(1900 / 4 * 3 / 4), rel=0.35)
    assert (drawn[100:] > 0).all(), "no word is never drawn"
    assert objective_of().words_to_compare(torch.zeros(1, 1, dtype=torch.int64), chance) is None


def test_a_compared_word_is_weighted_but_never_a_positions_own_target() -> None:
    words = torch.tensor([2, 5, 7, 9])
    log_shares = torch.log(torch.tensor([0.5, 0.25, 1.0, 0.1]))
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, -1.0, 5.0, 2.0]])
    weighted, places = as_if_over_all(logits, torch.tensor([5, 9]), words, log_shares)
    assert places.tolist() == [1, 3]
    expected = [[math.exp(1) / 0.5, math.exp(2), math.exp(3), math.exp(4) / 0.1], [1 / 0.5, math.exp(-1) / 0.25]]
    assert weighted[0].exp().tolist() == pytest.approx(expected[0], rel=1e-5)
    assert weighted[1].exp().tolist() == pytest.approx([*expected[1], math.exp(5), math.exp(2)], rel=1e-5)


@pytest.mark.parametrize("target", [3, 8, 11])
def test_the_sum_of_exponentials_is_right_in_the_mean(target: int) -> None:
    """Windows of other targets are drawn by frequency, words to compare by the objective; only chance may differ."""
    options: dict[str, Any] = {"softmax_samples": 3, "window": 4, "batch_size": 2}
    objective, chance = objective_of(**options), seeded(11)
    logits = 1.5 * torch.randn(WORDS, generator=seeded(2))
    text, outputs = torch.from_numpy(TEXT.astype(np.int64)), torch.zeros(1, 1, 4)
    estimates, sizes = [], set()
    for _ in range(4000):
        others = text[torch.randint(len(text), (4 * 2,), generator=chance)]
        words = objective.words_to_compare(torch.cat([others, torch.tensor([target])])[:, None], chance)
        assert words is not None
        sizes.add(len(words))
        loss, _ = objective(logits[words][None, None], torch.tensor([[target]]), words, outputs, outputs)
        estimates.append(math.exp(float(loss) + float(logits[target])))
    true = float(logits.double().exp().sum())
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert error < 0.02 * true
    assert abs(np.mean(estimates) - true) < 3.5 * error
    assert min(sizes) < 8, "this test needs words that are not compared"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("samples", [WORDS, 1000])
def test_with_as_many_samples_as_words_it_is_the_full_softmax(samples: int, tied: bool) -> None:
    config = ModelConfig(embedding_size=4, hidden_size=4, tied=tied, spelling=False, **NO_DROPOUT)
    _, targets, _, _ = window()
    inputs = torch.randint(WORDS, targets.shape, generator=seeded(8))
    results = []
    for number in (0, samples):
        network = Network(config, WORDS, seeded(0))
        objective = objective_of(softmax_samples=number, ar=1.0, tar=1.0)
        words = objective.words_to_compare(targets, seeded(5))
        assert (words is None) == (number == 0)
        logits, _, raw, dropped = network(inputs, network.start(3), None, words)
        loss, whole = objective(logits, targets, words, raw, dropped)
        whole.backward()
        results.append((loss.detach(), {name: parameter.grad for name, parameter in network.named_parameters()}))
    (full, gradients), (some, others) = results
    assert float(some) == pytest.approx(float(full), abs=1e-5)
    for name, gradient in gradients.items():
        assert gradient is not None
        assert gradient.abs().max() > 0
        torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-4)


def test_logits_of_some_words_are_those_columns_of_all() -> None:
    network = Network(ModelConfig(embedding_size=4, hidden_size=4, **NO_DROPOUT), WORDS, seeded(0))
    with torch.no_grad():
        network.output.bias.copy_(torch.randn(WORDS, generator=seeded(1)))
    ids, words = torch.arange(6).reshape(3, 2), torch.tensor([1, 4, 5, 11])
    torch.testing.assert_close(
        network(ids, network.start(2), None, words)[0], network(ids, network.start(2))[0][..., words]
    )
