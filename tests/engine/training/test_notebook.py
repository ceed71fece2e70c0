"""The notebook's perplexity formula on whole windows and on the real data, compared with the true perplexity."""

import math

import numpy as np
import pytest
import torch

from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers.words import WordTokenizer
from engine.events import Evaluated, Finished, Started, Step
from engine.models.lstm import LSTMModel
from engine.presets import get_preset
from engine.training.run import train
from engine.training.validation import notebook_perplexity
from tests.support import training
from tests.support.training import events_of, learning_rates_by_epoch, weights_equal, weights_of
from tests.support.training_spies import script_validation

VOCABULARY = WordTokenizer(("<unk>", "<eos>", *"abcdefgh"))
NOTEBOOK = get_preset("notebook")


pytestmark = pytest.mark.usefixtures("one_thread")


def make_network():
    """Return a small untied network whose token probabilities differ much."""
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
    """Compute the notebook's formula column by column with the numpy model."""
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


@pytest.mark.parametrize(
    ("length", "batch", "bptt"),
    [(63, 3, 5), (64, 3, 5), (65, 3, 10), (80, 4, 6), (41, 1, 8), (22, 2, 10), (200, 3, 7), (120, 5, 1)],
)
def test_with_whole_windows_the_formula_divides_their_sum_by_the_trimmed_width(length, batch, bptt):
    text = np.random.default_rng(length).integers(0, 10, length).astype(np.int32)
    network = make_network()
    result = notebook_perplexity(network, text, batch, bptt)
    assert result > 2
    assert result == pytest.approx(
        notebook_formula(network.to_decoder(VOCABULARY), text.tolist(), batch, bptt), rel=1e-5
    )


def test_the_formula_counts_one_token_too_many_per_column():
    """With two tokens a column, one is predicted and two are counted: the result is the square root of the truth."""
    network, text = make_network(), np.array([2, 3, 4, 5, 6, 7], np.int32)
    result = notebook_perplexity(network, text, 3, 1)
    logits = network(torch.tensor([[2, 4, 6]]), network.initial_state(3))[0]
    expected = math.exp(float(torch.nn.functional.cross_entropy(logits[0], torch.tensor([3, 5, 7])).detach()))
    assert result == pytest.approx(math.sqrt(expected), rel=1e-5)


@pytest.mark.parametrize("length", [0, 3, 4, 8, 40, 43])
def test_columns_shorter_than_a_window_have_a_perplexity_of_one(length):
    text = np.full(length, 5, np.int32)
    assert notebook_perplexity(make_network(), text, 4, 10) == 1.0
    if length == 43:  # one more row completes a window
        assert notebook_perplexity(make_network(), np.full(44, 5, np.int32), 4, 10) != 1.0


def test_on_the_real_dialogues_the_formula_scores_no_token(lotr_csv):
    assert (NOTEBOOK.training.batch_size, NOTEBOOK.training.bptt) == (64, 50)
    dataset = load_dataset(NOTEBOOK.with_values(corpus=str(lotr_csv)).data)
    assert 50 * 20 < len(dataset.valid) < 64 * 50 + 64  # not empty, but shorter than a window plus a token per column
    network = LSTMModel(NOTEBOOK.model, len(dataset.tokenizer), torch.Generator().manual_seed(0))
    assert notebook_perplexity(network, dataset.valid, 64, 50) == 1.0
    # One row more than a window is scored; an untrained network is almost uniform.
    assert notebook_perplexity(network, dataset.train[: 64 * 50], 64, 50) == 1.0
    assert notebook_perplexity(network, dataset.train[: 64 * 51], 64, 50) > 500


def test_the_notebook_preset_ends_no_better_than_a_unigram_model(lotr_csv):
    """With a smaller, faster network: the formula returns 1, the true perplexity is about 150, 5-grams have 91."""
    small = {"embedding_size": 64, "hidden_size": 64, "lr": 0.01, "epochs": 4}
    config = NOTEBOOK.with_values(corpus=str(lotr_csv), threads=1, device="cpu", **small)
    events = list(train(config, load_dataset(config.data), "a-run", lambda: False))
    (started,), (finished,) = events_of(Started, events), events_of(Finished, events)
    evaluated = events_of(Evaluated, events)
    assert [event.notebook_perplexity for event in evaluated] == [1.0] * 5
    assert finished.notebook_perplexity == 1.0
    assert 135 < finished.valid_perplexity < 175
    assert finished.valid_perplexity > 1.4 * started.kneser_ney_perplexity
    assert finished.valid_perplexity == pytest.approx(started.unigram_perplexity, rel=0.15)
    assert learning_rates_by_epoch(events) == [{0.01}, {0.01}, {0.005}, {0.0025}]
    assert all(event.is_best for event in evaluated)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return training.make_sentence_dataset(tmp_path_factory.mktemp("corpus"), 90)


def run(dataset, **values):
    defaults = {"variable_bptt": False, "averaging": "none", "schedule": "plateau", "lr": 0.01}
    return training.run_training(dataset, **(defaults | values))


def test_the_formula_halves_the_learning_rate_although_the_true_perplexity_improves(dataset):
    assert len(dataset.valid) // 4 < 30, "this test needs columns shorter than a window"
    notebook = run(dataset, validation_metric="notebook", bptt=30, epochs=5)
    perplexities = [event.valid_perplexity for event in events_of(Evaluated, notebook)]
    assert perplexities == sorted(perplexities, reverse=True)
    assert len(set(perplexities)) == 6
    assert [event.notebook_perplexity for event in events_of(Evaluated, notebook)] == [1.0] * 6
    assert learning_rates_by_epoch(notebook) == [{0.01}, {0.01}, {0.005}, {0.0025}, {0.00125}]
    perplexity = run(dataset, validation_metric="perplexity", bptt=30, epochs=5)
    assert learning_rates_by_epoch(perplexity) == [{0.01}] * 5
    assert all(
        math.isnan(event.notebook_perplexity)
        for event in events_of(Evaluated, perplexity) + events_of(Finished, perplexity)
    )
    # Both trainings are equal until the learning rates differ.
    assert [event.valid_perplexity for event in events_of(Evaluated, perplexity)][:3] == perplexities[:3]
    assert events_of(Step, perplexity)[-1].train_perplexity != events_of(Step, notebook)[-1].train_perplexity


def test_the_formula_saves_the_latest_weights_even_if_they_are_worse(dataset, monkeypatch):
    script = [50.0, 40.0, 60.0, 70.0]
    script_validation(monkeypatch, script)
    events = run(dataset, validation_metric="notebook", bptt=30, epochs=3, patience=1)
    evaluated, (finished,) = events_of(Evaluated, events), events_of(Finished, events)
    assert [(event.valid_perplexity, event.is_best) for event in evaluated] == [(value, True) for value in script]
    assert (finished.valid_perplexity, finished.notebook_perplexity, finished.reason) == (70.0, 1.0, "done")
    assert weights_equal(weights_of(finished), weights_of(evaluated[-1]))
    assert not weights_equal(weights_of(finished), weights_of(evaluated[1]))


def test_with_whole_windows_the_formula_does_not_lower_the_learning_rate(dataset):
    """With windows of 5 the formula scores most tokens and decreases like the true perplexity."""
    events = run(dataset, validation_metric="notebook", bptt=5, epochs=3)
    values = [event.notebook_perplexity for event in events_of(Evaluated, events)]
    assert values == sorted(values, reverse=True)
    assert min(values) > 1.5
    assert learning_rates_by_epoch(events) == [{0.01}] * 3
    for event in events_of(Evaluated, events):
        assert event.notebook_perplexity == pytest.approx(
            notebook_formula(event.model, dataset.valid.tolist(), 4, 5), rel=1e-4
        )
    assert events_of(Finished, events)[0].notebook_perplexity == values[-1]
