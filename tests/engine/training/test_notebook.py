"""The notebook's perplexity: what its formula says on whole windows, what it says on the real data, and the truth."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import ModelConfig, preset
from engine.data.dataset import Dataset, prepare
from engine.data.vocabulary import Vocabulary
from engine.events import Evaluated, Finished, Started, Step, TrainingEvent
from engine.models.lstm import Network
from engine.models.numpy_lstm import Decoder
from engine.training.notebook import notebook_perplexity
from engine.training.run import train
from tests.conftest import sentences
from tests.engine.training.test_averaging import script_validation
from tests.support.training import config_of, epoch_rates, of, same, weights_of

VOCABULARY = Vocabulary(("<unk>", "<eos>", *"abcdefgh"))
NOTEBOOK = preset("notebook")


pytestmark = pytest.mark.usefixtures("one_thread")


# --- the formula ----------------------------------------------------------------------------------------------


def network_of() -> Network:
    """Small, untied, and sure enough of itself that words differ much in probability."""
    network = Network(
        ModelConfig(embedding_size=5, hidden_size=6, layers=2, tied=False), 10, torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
    return network


def by_hand(decoder: Decoder, text: list[int], batch: int, window: int) -> float:
    """The notebook's loop, read column by column with the numpy decoder."""
    rows = len(text) // batch
    trimmed = rows - (rows - 1) % window
    losses = np.zeros((trimmed - 1, batch))
    for column in range(batch):
        words, state = text[column * rows : (column + 1) * rows], decoder.start()
        for t in range(trimmed - 1):
            log_probs, state = decoder.advance(state, words[t])
            losses[t, column] = -log_probs[words[t + 1]]
    total = 0.0
    for begin in range(0, trimmed - 1, window):
        total += float(losses[begin : begin + window].mean()) * window
    return math.exp(total / trimmed)


@pytest.mark.parametrize(
    ("length", "batch", "window"),
    [(63, 3, 5), (64, 3, 5), (65, 3, 10), (80, 4, 6), (41, 1, 8), (22, 2, 10), (200, 3, 7), (120, 5, 1)],
)
def test_where_whole_windows_remain_it_is_their_sum_over_the_trimmed_width(
    length: int, batch: int, window: int
) -> None:
    text = np.random.default_rng(length).integers(0, 10, length).astype(np.int32)
    network = network_of()
    found = notebook_perplexity(network, text, batch, window)
    assert found > 2
    assert found == pytest.approx(by_hand(network.decoder(VOCABULARY), text.tolist(), batch, window), rel=1e-5)


def test_it_counts_one_word_too_many_a_column() -> None:
    """Two words a column: one is predicted and two are counted, so it says the square root of the perplexity."""
    network, text = network_of(), np.array([2, 3, 4, 5, 6, 7], np.int32)
    found = notebook_perplexity(network, text, 3, 1)
    logits = network(torch.tensor([[2, 4, 6]]), network.start(3))[0]
    true = math.exp(float(torch.nn.functional.cross_entropy(logits[0], torch.tensor([3, 5, 7])).detach()))
    assert found == pytest.approx(math.sqrt(true), rel=1e-5)


@pytest.mark.parametrize("length", [0, 3, 4, 8, 40, 43])
def test_columns_of_a_window_or_less_are_a_perplexity_of_exactly_one(length: int) -> None:
    text = np.full(length, 5, np.int32)
    assert notebook_perplexity(network_of(), text, 4, 10) == 1.0
    if length == 43:  # one more row is one whole window
        assert notebook_perplexity(network_of(), np.full(44, 5, np.int32), 4, 10) != 1.0


# --- the real dialogues ---------------------------------------------------------------------------------------


def test_on_the_real_dialogues_the_notebook_scores_no_token(lotr_csv: Path) -> None:
    assert (NOTEBOOK.training.batch_size, NOTEBOOK.training.window) == (64, 50)
    dataset = prepare(NOTEBOOK.with_values(corpus=str(lotr_csv)).data)
    assert 50 * 20 < len(dataset.valid) < 64 * 50 + 64  # a text, but shorter than a window and a word a column
    network = Network(NOTEBOOK.model, len(dataset.vocabulary), torch.Generator().manual_seed(0))
    assert notebook_perplexity(network, dataset.valid, 64, 50) == 1.0
    # One row more than a window and it would have scored; an untrained network knows nothing.
    assert notebook_perplexity(network, dataset.train[: 64 * 50], 64, 50) == 1.0
    assert notebook_perplexity(network, dataset.train[: 64 * 51], 64, 50) > 500


def test_on_the_real_dialogues_the_notebook_is_misled_and_no_better_than_word_frequencies(lotr_csv: Path) -> None:
    """Its settings but for a smaller, faster network: the claim is 1, the truth about 150, counting gives 91."""
    small: dict[str, Any] = {"embedding_size": 64, "hidden_size": 64, "lr": 0.01, "epochs": 4}
    config = NOTEBOOK.with_values(corpus=str(lotr_csv), threads=1, device="cpu", **small)
    events = list(train(config, prepare(config.data), "a-run", lambda: False))
    (started,), (finished,) = of(Started, events), of(Finished, events)
    evaluated = of(Evaluated, events)
    assert [event.notebook_perplexity for event in evaluated] == [1.0] * 5
    assert finished.notebook_perplexity == 1.0
    assert 135 < finished.valid_perplexity < 175
    assert finished.valid_perplexity > 1.4 * started.kneser_ney_perplexity
    assert finished.valid_perplexity == pytest.approx(started.unigram_perplexity, rel=0.15)
    assert epoch_rates(events) == [{0.01}, {0.01}, {0.005}, {0.0025}]
    assert all(event.best for event in evaluated)


# --- a training that follows it -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("\n".join(sentences(90)))
    return prepare(config_of(corpus=str(path), corpus_format="text").data)


def run(dataset: Dataset, **values: Any) -> list[TrainingEvent]:
    plain = {"spelling": False, "variable_window": False, "averaging": "none", "schedule": "plateau", "lr": 0.01}
    return list(train(config_of(**(plain | values)), dataset, "a-run", lambda: False))


def test_misled_the_rate_is_halved_every_epoch_though_the_truth_gets_better(dataset: Dataset) -> None:
    assert len(dataset.valid) // 4 < 30, "this test needs columns shorter than a window"
    misled = run(dataset, validation="notebook", window=30, epochs=5)
    perplexities = [event.valid_perplexity for event in of(Evaluated, misled)]
    assert perplexities == sorted(perplexities, reverse=True)
    assert len(set(perplexities)) == 6
    assert [event.notebook_perplexity for event in of(Evaluated, misled)] == [1.0] * 6
    assert epoch_rates(misled) == [{0.01}, {0.01}, {0.005}, {0.0025}, {0.00125}]
    true = run(dataset, validation="true", window=30, epochs=5)
    assert epoch_rates(true) == [{0.01}] * 5
    assert all(math.isnan(event.notebook_perplexity) for event in of(Evaluated, true) + of(Finished, true))
    # Until the rate differs they are the same training.
    assert [event.valid_perplexity for event in of(Evaluated, true)][:3] == perplexities[:3]
    assert of(Step, true)[-1].train_perplexity != of(Step, misled)[-1].train_perplexity


def test_misled_the_latest_weights_are_kept_however_bad(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    script = [50.0, 40.0, 60.0, 70.0]
    script_validation(monkeypatch, script)
    events = run(dataset, validation="notebook", window=30, epochs=3, patience=1)
    evaluated, (finished,) = of(Evaluated, events), of(Finished, events)
    assert [(event.valid_perplexity, event.best) for event in evaluated] == [(value, True) for value in script]
    assert (finished.valid_perplexity, finished.notebook_perplexity, finished.reason) == (70.0, 1.0, "done")
    assert same(weights_of(finished), weights_of(evaluated[-1]))
    assert not same(weights_of(finished), weights_of(evaluated[1]))


def test_where_whole_windows_remain_the_formula_is_heeded_as_it_is(dataset: Dataset) -> None:
    """With windows of 5 it scores most tokens, falls as the truth does, and lowers no rate."""
    events = run(dataset, validation="notebook", window=5, epochs=3)
    claims = [event.notebook_perplexity for event in of(Evaluated, events)]
    assert claims == sorted(claims, reverse=True)
    assert min(claims) > 1.5
    assert epoch_rates(events) == [{0.01}] * 3
    for event in of(Evaluated, events):
        assert event.notebook_perplexity == pytest.approx(by_hand(event.model, dataset.valid.tolist(), 4, 5), rel=1e-4)
    assert of(Finished, events)[0].notebook_perplexity == claims[-1]
