"""The notebook's perplexity formula on whole windows and on the real data, compared with the true perplexity."""

import math

import numpy as np
import pytest
import torch

from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers import WordTokenizer
from engine.events import Evaluated, Finished, Started, Step
from engine.models.lstm import LSTMModel
from engine.presets import PRESETS
from engine.training.trainer import notebook_perplexity
from tests.support import training
from tests.support.training import events_of


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


pytestmark = pytest.mark.usefixtures("one_thread")


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
    assert result == pytest.approx(
        notebook_formula(network.to_decoder(VOCABULARY), text.tolist(), batch, bptt), rel=1e-5
    )


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
