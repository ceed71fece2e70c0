"""The training loop on a corpus of a few hundred words: events, determinism, schedules, the objective."""

import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import Config, TrainingConfig
from engine.dataset import Dataset, columns_of, prepare
from engine.decoder import Decoder
from engine.errors import ConfigError, TrainingError
from engine.evaluation import evaluate
from engine.events import Evaluated, Finished, Preparing, Sampled, Started, Step, TrainingEvent
from engine.network import Network
from engine.ngram import KneserNey, Unigram
from engine.sampler_settings import SamplerSettings
from engine.sampling import TokenEvent, stream
from engine.schedule import scheduled_lr, window_length
from engine.training import train
from engine.training_loop import Loop
from engine.vocabulary import EOS_ID, Ids

NO_DROPOUT: dict[str, Any] = {
    "dropout_words": 0.0,
    "dropout_input": 0.0,
    "dropout_between": 0.0,
    "dropout_output": 0.0,
    "weight_drop": 0.0,
}
SMALL: dict[str, Any] = {
    "embedding_size": 16,
    "hidden_size": 16,
    "layers": 1,
    "tied": True,
    "locked": True,
    "dropout_words": 0.1,
    "dropout_input": 0.1,
    "dropout_between": 0.1,
    "dropout_output": 0.1,
    "weight_drop": 0.1,
    "initialisation": "uniform",
    "spelling": False,
    "pauses": False,
    "unigram_bias": True,
    "epochs": 3,
    "batch_size": 4,
    "window": 12,
    "variable_window": True,
    "shuffle_lines": True,
    "optimizer": "adamw",
    "lr": 0.03,
    "schedule": "one_cycle",
    "warmup": 0.1,
    "beta2": 0.999,
    "weight_decay": 0.0,
    "clip": 0.25,
    "ar": 0.1,
    "tar": 0.1,
    "smoothing": 0.0,
    "average": 0.0,
    "evaluate_every": 1,
    "patience": 0,
    "seed": 0,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
    "sample_prompt": "the old hobbit",
}
"""All that a default could change: these tests are of the loop, not of the presets."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """140 lines of a small grammar, in which the word before tells much of the next."""
    chance = random.Random(5)
    who = ["the old hobbit", "a tall ranger", "the grey wizard", "my cousin"]
    does = ["walks slowly to", "remembers", "never speaks of", "waits beside"]
    where = ["the mill by the water", "an empty road", "the hill", "the last bridge in the north"]
    lines = [f"{chance.choice(who)} {chance.choice(does)} {chance.choice(where)} {i % 7}" for i in range(140)]
    path: Path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("\n".join(lines))
    return prepare(config_of(corpus=str(path), corpus_format="text").data)


def config_of(**values: Any) -> Config:
    return Config("test").with_values(**(SMALL | values))


def run(dataset: Dataset, cancelled: Callable[[], bool] = lambda: False, **values: Any) -> list[TrainingEvent]:
    return list(train(config_of(**values), dataset, "a-run", cancelled))


def of(kind: type, events: list[TrainingEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def weights_of(event: Any) -> dict[str, np.ndarray]:
    assert isinstance(event.model, Decoder)
    return dict(event.model.weights)


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def usual(dataset: Dataset) -> list[TrainingEvent]:
    return run(dataset)


# --- events ---------------------------------------------------------------------------------------------------


def test_the_order_of_events(usual: list[TrainingEvent]) -> None:
    kinds = [type(event) for event in usual if not isinstance(event, Step)]
    assert kinds == [Preparing, Started, *[Evaluated, Sampled] * 4, Finished]
    places = [i for i, event in enumerate(usual) if isinstance(event, Evaluated)]
    for before, after in pairwise(places):
        assert any(isinstance(event, Step) for event in usual[before:after])
    assert not any(isinstance(event, Step) for event in usual[: places[0]])


def test_started_tells_what_is_trained_and_the_lines_to_beat(usual: list[TrainingEvent], dataset: Dataset) -> None:
    (started,) = of(Started, usual)
    assert (started.run, started.preset, started.epochs, started.device) == ("a-run", "test", 3, "cpu")
    assert started.vocabulary == len(dataset.vocabulary)
    assert (started.train_tokens, started.valid_tokens) == (len(dataset.train), len(dataset.valid))
    assert started.parameters == sum(value.size for value in weights_of(of(Finished, usual)[0]).values())
    assert started.corpus_sha256 == dataset.corpus.sha256
    unigram, kneser_ney = (model(dataset.train, dataset.vocabulary) for model in (Unigram, KneserNey))
    assert started.unigram_perplexity == evaluate(unigram, dataset.valid).perplexity
    assert started.kneser_ney_perplexity == evaluate(kneser_ney, dataset.valid).perplexity


def test_progress_is_told_in_order(usual: list[TrainingEvent]) -> None:
    steps = of(Step, usual)
    assert [step.step for step in steps] == sorted({step.step for step in steps})
    assert [step.epoch for step in steps] == sorted({step.epoch for step in steps})
    assert all(step.tokens_per_second > 0 and step.gradient_norm > 0 for step in steps)
    assert steps[-1].epoch == pytest.approx(3)
    assert steps[-1].eta_seconds == pytest.approx(0)
    seconds = [event.seconds for event in usual if isinstance(event, (Step, Evaluated, Finished))]
    assert seconds == sorted(seconds)
    assert [event.epoch for event in of(Evaluated, usual)] == [0, 1, 2, 3]


def test_perplexity_falls(usual: list[TrainingEvent]) -> None:
    perplexities = [event.valid_perplexity for event in of(Evaluated, usual)]
    assert perplexities[-1] < 0.6 * perplexities[0]
    steps = of(Step, usual)
    assert steps[-1].train_perplexity < steps[0].train_perplexity
    # Before the first update it knows the frequencies of words and no more.
    assert perplexities[0] == pytest.approx(of(Started, usual)[0].unigram_perplexity, rel=0.1)


def test_evaluations_are_those_of_the_model_they_carry(usual: list[TrainingEvent], dataset: Dataset) -> None:
    for event in of(Evaluated, usual):
        assert evaluate(event.model, dataset.valid).perplexity == pytest.approx(event.valid_perplexity, rel=1e-4)


def test_finished_has_the_best_model_and_its_figures(dataset: Dataset) -> None:
    """A rate so high that the best is not the last."""
    events = run(dataset, lr=0.3, schedule="constant", epochs=6, clip=0.0)
    evaluated, (finished,) = of(Evaluated, events), of(Finished, events)
    perplexities = [event.valid_perplexity for event in evaluated]
    best = evaluated[perplexities.index(min(perplexities))]
    assert best is not evaluated[-1], "this test needs a training whose last model is not its best"
    assert finished.valid_perplexity == best.valid_perplexity == min(perplexities)
    assert same(weights_of(finished), weights_of(best))
    assert finished.test_perplexity == pytest.approx(evaluate(best.model, dataset.test).perplexity)
    lowest = [min(perplexities[: i + 1]) for i in range(len(perplexities))]
    expected = [i == 0 or low < lowest[i - 1] for i, low in enumerate(lowest)]
    assert [event.best for event in evaluated] == expected
    assert (finished.reason, finished.epochs) == ("done", 6)


def test_the_fixed_prompt_is_continued_with_the_fixed_seed(dataset: Dataset) -> None:
    events = run(dataset, epochs=1, sample_seed=9, sample_temperature=0.5, sample_prompt="The old XYZZY hobbit")
    for sampled, evaluated in zip(of(Sampled, events), of(Evaluated, events), strict=True):
        assert (sampled.prompt, sampled.seed, sampled.temperature) == ("the old hobbit", 9, 0.5)
        assert (sampled.step, sampled.epoch) == (evaluated.step, evaluated.epoch)
        ids = dataset.vocabulary.encode(["the", "old", "hobbit"]).tolist()
        settings = SamplerSettings(temperature=0.5, max_tokens=25)
        again = stream(evaluated.model, ids, settings, 9)
        assert sampled.text == " ".join(event.text for event in again if isinstance(event, TokenEvent))
        assert sampled.text


def test_a_sample_prompt_without_a_known_word_does_not_stop_a_training(dataset: Dataset) -> None:
    events = run(dataset, epochs=1, sample_prompt="xyzzy plugh")
    assert all(sampled.prompt == "" and sampled.text for sampled in of(Sampled, events))
    assert of(Finished, events)


def test_evaluate_every(dataset: Dataset) -> None:
    events = run(dataset, epochs=5, evaluate_every=2)
    assert [event.epoch for event in of(Evaluated, events)] == [0, 2, 4, 5]


# --- determinism ----------------------------------------------------------------------------------------------


def test_one_seed_the_same_bits(usual: list[TrainingEvent], dataset: Dataset) -> None:
    again = run(dataset)
    for first, second in zip(of(Evaluated, usual), of(Evaluated, again), strict=True):
        assert first.valid_perplexity == second.valid_perplexity
        assert same(weights_of(first), weights_of(second))
    assert [sampled.text for sampled in of(Sampled, usual)] == [sampled.text for sampled in of(Sampled, again)]
    assert of(Finished, usual)[0].test_perplexity == of(Finished, again)[0].test_perplexity


def test_another_seed_is_another_training(usual: list[TrainingEvent], dataset: Dataset) -> None:
    other = run(dataset, seed=1)
    for first, second in zip(of(Evaluated, usual), of(Evaluated, other), strict=True):
        assert not same(weights_of(first), weights_of(second))
        assert first.valid_perplexity != second.valid_perplexity


# --- ends -----------------------------------------------------------------------------------------------------


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


def epoch_rates(events: list[TrainingEvent]) -> list[set[float]]:
    """The rates of the steps before each evaluation but the first."""
    rates: list[set[float]] = []
    for event in events:
        if isinstance(event, Evaluated):
            rates.append(set())
        elif isinstance(event, Step):
            rates[-1].add(event.lr)
    return rates[:-1]


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


def test_window_lengths_are_drawn_around_the_full_one_and_its_half() -> None:
    options = TrainingConfig(window=70, variable_window=True)
    chance = random.Random(0)
    lengths = [window_length(options, chance) for _ in range(20_000)]
    assert min(lengths) >= 5
    short = [length for length in lengths if length < 52]
    assert len(short) / len(lengths) == pytest.approx(0.05, abs=0.01)
    assert np.mean(short) == pytest.approx(34.5, abs=1)  # a whole number below the one drawn
    assert np.mean([length for length in lengths if length >= 52]) == pytest.approx(69.5, abs=0.5)


@pytest.mark.parametrize("window", [1, 5, 8])
def test_drawn_windows_have_at_least_five_steps(window: int) -> None:
    chance = random.Random(1)
    assert min(window_length(TrainingConfig(window=window, variable_window=True), chance) for _ in range(2000)) == 5


def test_fixed_windows() -> None:
    chance = random.Random(1)
    before = chance.getstate()
    assert {window_length(TrainingConfig(window=33, variable_window=False), chance) for _ in range(50)} == {33}
    assert chance.getstate() == before


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


# --- what is read ---------------------------------------------------------------------------------------------


def test_columns_by_hand() -> None:
    ids = np.arange(11, dtype=np.int32)
    assert columns_of(ids, 3).tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]  # 9 and 10 fill no row
    assert columns_of(ids, 1).tolist() == [[i] for i in range(11)]
    assert columns_of(ids, 11).tolist() == [list(range(11))]
    assert np.shares_memory(columns_of(ids, 3), ids)  # a text may be larger than memory


def loop_of(dataset: Dataset, **values: Any) -> Loop:
    return Loop(config_of(**values), dataset, torch.device("cpu"), 0.0)


def lines_in(text: Ids) -> Counter[tuple[int, ...]]:
    """The lines of a text that may begin in the middle of one."""
    start = int(np.flatnonzero(text == EOS_ID)[0]) + 1
    lines: list[tuple[int, ...]] = [()]
    for token in np.roll(text, -start).tolist():
        if token == EOS_ID:
            lines.append(())
        else:
            lines[-1] = (*lines[-1], token)
    return Counter(line for line in lines if line)


def test_shuffling_changes_the_order_of_the_lines_and_nothing_else(dataset: Dataset) -> None:
    loop = loop_of(dataset, shuffle_lines=True)
    texts = [loop._epoch_text()[0] for _ in range(3)]
    for text in texts:
        assert Counter(text.tolist()) == Counter(dataset.train.tolist())
        assert lines_in(text) == lines_in(dataset.train)
        assert not np.array_equal(text, dataset.train)
    assert not np.array_equal(texts[0], texts[1])
    again = loop_of(dataset, shuffle_lines=True)
    assert np.array_equal(again._epoch_text()[0], texts[0])
    # Nothing of the data set itself was moved.
    assert np.array_equal(np.concatenate([[*line, EOS_ID] for line in dataset.train_lines]), dataset.train)


def test_without_shuffling_the_text_is_read_as_it_stands(dataset: Dataset) -> None:
    loop = loop_of(dataset, shuffle_lines=False)
    assert np.array_equal(loop._epoch_text()[0], dataset.train)
    assert np.array_equal(loop._epoch_text()[0], dataset.train)


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
    monkeypatch.setattr("engine.training_loop.REPORT_SECONDS", 1e9)  # however slow the machine
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


def test_stream_mode_trains_as_well(dataset: Dataset) -> None:
    config = config_of(corpus=dataset.corpus.source, corpus_format="text", mode="stream", epochs=1)
    events = list(train(config, prepare(config.data), "r", lambda: False))
    first, last = (event.valid_perplexity for event in of(Evaluated, events))
    assert last < first
