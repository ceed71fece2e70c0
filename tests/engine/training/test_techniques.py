"""Each technique and its effect on the steps: weight averages, NT-ASGD, fine-tuning, the notebook's perplexity."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers import WordTokenizer
from engine.events import Evaluated, Finished, Started, Step
from engine.models.lstm import LSTMModel
from engine.presets import PRESETS
from engine.training.optim import WeightAverage, nonmonotone_trigger
from engine.training.trainer import notebook_perplexity
from tests.support import training
from tests.support.training import REPORT_EACH_STEP, events_of, run_training

pytestmark = pytest.mark.usefixtures("one_thread")


def run(dataset, **values):
    return run_training(dataset, **({"averaging": "none", "ema_decay": 0.9, "clip": 0.0, "epochs": 2} | values))


def steps_of(dataset, **values):
    steps = events_of(Step, run(dataset, **values, **REPORT_EACH_STEP))
    return [(step.step, step.train_perplexity, step.gradient_norm, step.lr) for step in steps]


PLAIN_SGD = {"optimizer": "sgd", "lr": 1.0, "schedule": "constant"}


def test_settings_of_evaluation_averaging_and_fine_tuning_do_not_change_the_steps(dataset):
    before = steps_of(dataset, **PLAIN_SGD)
    assert len(before) > 10
    for change in (
        {"averaging": "ema"},
        {"averaging": "nt_asgd", "nonmonotone_interval": 1, "eval_every_steps": 3},
        {"patience": 3, "sample_seed": 4, "sample_temperature": 0.0, "eval_every_epochs": 2},
        {"beta2": 0.5, "warmup_fraction": 0.9, "clip": 1e6},
        {"fine_tune_epochs": 1, "fine_tune_lr": 0.1},
    ):
        after = steps_of(dataset, **PLAIN_SGD, **change)
        assert after[: len(before)] == before, change
        assert (len(after) > len(before)) == ("fine_tune_epochs" in change)


SWITCHES = {
    "clip": 0.01, "ar": 2.0, "tar": 2.0, "label_smoothing": 0.2, "softmax_samples": 5, "weight_decay": 0.5,
    "beta2": 0.5, "shuffle_lines": False, "variational_dropout": False, "layer_lr_decay": 2.6, "unfreeze_epochs": 1,
    "mogrifier_rounds": 2, "initialization": "notebook", "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def plain_steps(dataset):
    return steps_of(dataset, epochs=1, bptt=30)


@pytest.mark.parametrize("name", SWITCHES)
def test_every_technique_changes_the_training(dataset, plain_steps, name):
    assert steps_of(dataset, epochs=1, bptt=30, **{name: SWITCHES[name]}) != plain_steps


@pytest.mark.parametrize(("every", "fine_tune_epochs"), [(1, 0), (7, 1), (10_000, 1)])
def test_evaluations_come_every_n_steps_and_at_the_end_of_each_phase(dataset, every, fine_tune_epochs):
    values = {"eval_every_steps": every, "variable_bptt": False, "nonmonotone_interval": 10_000, "bptt": 15}
    events = run(dataset, fine_tune_epochs=fine_tune_epochs, fine_tune_lr=0.1, **values)
    an_epoch = math.ceil((len(dataset.train) // 4 - 1) / 15)
    ends = [2 * an_epoch, (2 + fine_tune_epochs) * an_epoch]  # fine-tuning starts from evaluated weights
    expected = {step for step in range(ends[-1] + 1) if step % every == 0} | set(ends)
    assert [event.step for event in events_of(Evaluated, events)] == sorted(expected)
    assert events_of(Step, events)[-1].step == ends[-1]
    (finished,) = events_of(Finished, events)
    assert (finished.reason, finished.epochs) == ("done", 2 + fine_tune_epochs)


def fill(network, value):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def values_of(average):
    return {round(value, 4) for parameter in average.network.parameters() for value in parameter.flatten().tolist()}


@pytest.mark.parametrize("tied", [True, False])
def test_without_decay_the_average_is_the_mean_since_its_creation(tied):
    config = ModelConfig(embedding_size=2, hidden_size=2, num_layers=1, tie_weights=tied)
    network = LSTMModel(config, 3, torch.Generator().manual_seed(0))
    fill(network, 100.0)  # the weights before the first update do not count
    average = WeightAverage(network)
    assert values_of(average) == {100.0}
    for weight, mean in [(4.0, 4.0), (8.0, 6.0), (0.0, 4.0), (-8.0, 1.0), (6.0, 2.0)]:
        fill(network, weight)
        average.update(network)
        assert values_of(average) == {mean}
    assert all((parameter == 6).all() for parameter in network.parameters())  # the average is a copy
    assert (average.network.output.weight is average.network.embedding.weight) == tied


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
    return training.make_sentence_dataset(tmp_path_factory.mktemp("corpus"), 90)


SGD = {"optimizer": "sgd", "schedule": "constant", "weight_decay": 1e-3}


def evaluations_of_each_step(dataset, initial_weights=None, **values):
    fixed = {**training.NO_DROPOUT, "shuffle_lines": False, "variable_bptt": False, "bptt": 24, "eval_every_steps": 1}
    config = training.make_config(**(fixed | values))
    events = training.train_with(config, dataset, initial_weights)
    return training.events_of(Evaluated, events), events[-1]


def assert_averaged(evaluated, raw_weights):
    """Check that each evaluation has the mean of the weights after all steps up to its own."""
    assert len(evaluated) > 5
    for number, event in enumerate(evaluated, 1):
        for name, value in training.weights_of(event).items():
            mean = np.mean([weights[name] for weights in raw_weights[:number]], axis=0, dtype=np.float64)
            assert value == pytest.approx(mean, abs=1e-5), name


def first_trigger(perplexities, interval):
    """Return the index of the first perplexity that exceeds the best of all but the latest `interval` before it."""
    return next(t for t, value in enumerate(perplexities) if t > interval and value > min(perplexities[: t - interval]))


def test_nt_asgd_starts_averaging_when_the_trigger_fires(dataset):
    values = {**SGD, "lr": 4.0, "epochs": 2}
    plain, _ = evaluations_of_each_step(dataset, **values, averaging="none")
    evaluated, finished = evaluations_of_each_step(dataset, **values, averaging="nt_asgd", nonmonotone_interval=2)
    # The evaluation before the first step does not count.
    switch = 1 + first_trigger([event.valid_perplexity for event in evaluated[1:]], 2)
    for event, raw in zip(evaluated[: switch + 1], plain, strict=False):
        assert training.weights_equal(training.weights_of(event), training.weights_of(raw))
    assert_averaged(evaluated[switch + 1 :], [training.weights_of(event) for event in plain[switch + 1 :]])
    best = min(evaluated, key=lambda event: event.valid_perplexity)
    assert training.weights_equal(training.weights_of(finished), training.weights_of(best))


def test_fine_tuning_is_averaged_sgd_from_the_best_weights(dataset):
    values = {"optimizer": "adamw", "lr": 0.6, "schedule": "constant", "weight_decay": 1e-3, "averaging": "none"}
    fine_tuning = {"fine_tune_epochs": 1, "fine_tune_lr": 0.5, "nonmonotone_interval": 10_000}
    before, _ = evaluations_of_each_step(dataset, epochs=1, **values)
    evaluated, finished = evaluations_of_each_step(dataset, epochs=1, **values, **fine_tuning)
    best = min(before, key=lambda event: event.valid_perplexity)
    assert best is not before[-1], "this test needs a training whose latest weights are not its best"
    plain, _ = evaluations_of_each_step(dataset, training.weights_of(best), **SGD, lr=0.5, epochs=1, averaging="none")
    assert_averaged(evaluated[len(before) :], [training.weights_of(event) for event in plain[1:]])
    assert (finished.reason, finished.epochs) == ("done", 2)


def test_fine_tuning_ends_when_the_trigger_fires(dataset):
    values = {"epochs": 1, "fine_tune_epochs": 5, "fine_tune_lr": 20.0, "nonmonotone_interval": 2, "clip": 0.0}
    evaluated, finished = evaluations_of_each_step(dataset, **values)
    perplexities = [event.valid_perplexity for event in evaluated if event.epoch > 1]
    assert first_trigger(perplexities, 2) == len(perplexities) - 1
    assert finished.reason == "patience"
    assert finished.valid_perplexity == min(event.valid_perplexity for event in evaluated)


def learning_rates_by_epoch(events):
    rates = []
    for event in events:
        if isinstance(event, Evaluated):
            rates.append(set())
        elif isinstance(event, Step):
            rates[-1].add(event.lr)
    return rates[:-1]


VOCABULARY = WordTokenizer(("<unk>", "<eos>", *"abcdefgh"))
NOTEBOOK = PRESETS["notebook"]


def make_network():
    network = LSTMModel(
        ModelConfig(embedding_size=5, hidden_size=6, num_layers=2, tie_weights=False),
        10,
        torch.Generator().manual_seed(1),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
    return network


def notebook_formula(model, text, batch, bptt):
    rows = len(text) // batch
    trimmed = rows - (rows - 1) % bptt
    losses = np.zeros((trimmed - 1, batch))
    for column in range(batch):
        tokens, state = text[column * rows : (column + 1) * rows], model.start()
        for t in range(trimmed - 1):
            log_probs, state = model.advance(state, tokens[t])
            losses[t, column] = -log_probs[tokens[t + 1]]
    total = 0.0
    for begin in range(0, trimmed - 1, bptt):
        total += float(losses[begin : begin + bptt].mean()) * bptt
    return math.exp(total / trimmed)


@pytest.mark.parametrize(("length", "batch", "bptt"), [(63, 3, 5), (41, 1, 8), (22, 2, 10), (200, 3, 7), (120, 5, 1)])
def test_with_whole_windows_the_formula_divides_their_sum_by_the_trimmed_width(length, batch, bptt):
    text = np.random.default_rng(length).integers(0, 10, length).astype(np.int32)
    network = make_network()
    result = notebook_perplexity(network, text, batch, bptt)
    assert result > 2
    expected = notebook_formula(network.to_decoder(VOCABULARY), text.tolist(), batch, bptt)
    assert result == pytest.approx(expected, rel=1e-5)


def test_columns_shorter_than_a_window_have_a_perplexity_of_one():
    for length in (0, 3, 4, 8, 40, 43):
        assert notebook_perplexity(make_network(), np.full(length, 5, np.int32), 4, 10) == 1.0
    assert notebook_perplexity(make_network(), np.full(44, 5, np.int32), 4, 10) != 1.0  # the row completes a window


def test_the_notebook_preset_ends_no_better_than_a_unigram_model(lotr_csv):
    """With a smaller, faster network: the formula returns 1, the true perplexity is about 150, 5-grams have 91."""
    small = {"embedding_size": 64, "hidden_size": 64, "lr": 0.01, "epochs": 3}
    config = NOTEBOOK.with_values(corpus=str(lotr_csv), threads=1, device="cpu", **small)
    events = training.train_with(config, load_dataset(config.data))
    (started,), (finished,) = events_of(Started, events), events_of(Finished, events)
    evaluated = events_of(Evaluated, events)
    assert [event.notebook_perplexity for event in evaluated] == [1.0] * 4
    assert finished.notebook_perplexity == 1.0
    assert 135 < finished.valid_perplexity < 175
    assert finished.valid_perplexity > 1.4 * started.kneser_ney_perplexity
    assert finished.valid_perplexity == pytest.approx(started.unigram_perplexity, rel=0.15)
    assert learning_rates_by_epoch(events) == [{0.01}, {0.01}, {0.005}]
    assert all(event.is_best for event in evaluated)


def train_by_plateau(dataset, **values):
    defaults = {"variable_bptt": False, "averaging": "none", "schedule": "plateau", "lr": 0.01}
    return training.run_training(dataset, **(defaults | values))


def test_the_formula_halves_the_learning_rate_although_the_true_perplexity_improves(dataset):
    assert len(dataset.valid) // 4 < 30, "this test needs columns shorter than a window"
    notebook = train_by_plateau(dataset, validation_metric="notebook", bptt=30, epochs=5)
    perplexities = [event.valid_perplexity for event in events_of(Evaluated, notebook)]
    assert perplexities == sorted(perplexities, reverse=True)
    assert len(set(perplexities)) == 6
    assert [event.notebook_perplexity for event in events_of(Evaluated, notebook)] == [1.0] * 6
    assert learning_rates_by_epoch(notebook) == [{0.01}, {0.01}, {0.005}, {0.0025}, {0.00125}]
    perplexity = train_by_plateau(dataset, validation_metric="perplexity", bptt=30, epochs=5)
    assert learning_rates_by_epoch(perplexity) == [{0.01}] * 5
    assert all(
        math.isnan(event.notebook_perplexity)
        for event in events_of(Evaluated, perplexity) + events_of(Finished, perplexity)
    )
