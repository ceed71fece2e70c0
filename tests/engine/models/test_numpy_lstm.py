"""The numpy decoder against the torch network with the same weights."""

from typing import Any

import numpy as np
import pytest
import torch

from engine.config import ModelConfig
from engine.data.vocabulary import EOS_ID, Ids, Vocabulary
from engine.errors import RunError
from engine.models.lstm import Network
from engine.models.numpy_lstm import Decoder, weight_shapes

SIZE = 37
VOCABULARY = Vocabulary(("<unk>", "<eos>", *(f"w{i}" for i in range(SIZE - 2))))
CONFIGS = {
    "one layer, tied": ModelConfig(embedding_size=12, hidden_size=12),
    "one layer, untied": ModelConfig(embedding_size=12, hidden_size=20, tied=False),
    "two layers, tied, wide": ModelConfig(embedding_size=10, hidden_size=24, layers=2),
    "two layers, untied": ModelConfig(embedding_size=16, hidden_size=9, layers=2, tied=False),
    "three layers, tied": ModelConfig(embedding_size=8, hidden_size=14, layers=3),
    "three layers, notebook": ModelConfig(
        embedding_size=7, hidden_size=11, layers=3, tied=False, initialisation="notebook"
    ),
}


@pytest.fixture(params=list(CONFIGS))
def network(request: pytest.FixtureRequest) -> Network:
    """With weights several times their initial size, so that the gates leave their linear range."""
    made = Network(CONFIGS[request.param], SIZE, torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(8)), alpha=0.4)
    return made


def text(length: int, seed: int = 0) -> Ids:
    return np.random.default_rng(seed).integers(0, SIZE, length).astype(np.int32)


def small() -> Decoder:
    made = Network(CONFIGS["two layers, tied, wide"], SIZE, torch.Generator().manual_seed(0))
    return made.decoder(VOCABULARY)


@torch.no_grad()
def test_word_by_word_it_is_the_network(network: Network) -> None:
    decoder = network.decoder(VOCABULARY)
    ids = text(60)
    inputs = torch.tensor([EOS_ID, *ids.tolist()])[:, None]
    expected = torch.log_softmax(network(inputs, network.start(1))[0], -1)[:, 0].numpy()
    state = decoder.start()
    for token, row in zip([EOS_ID, *ids.tolist()], expected, strict=True):
        log_probs, state = decoder.advance(state, token)
        assert log_probs.dtype == np.float32
        assert log_probs == pytest.approx(row, abs=1e-4)
        assert np.exp(log_probs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


def test_score_is_that_of_the_network(network: Network) -> None:
    decoder = network.decoder(VOCABULARY)
    ids = text(200)
    assert decoder.trace(ids).scores == pytest.approx(network.trace(ids).scores, abs=1e-4)


@pytest.mark.parametrize("length", [1, 511, 512, 513, 1100])
def test_score_is_the_word_by_word_path(length: int) -> None:
    decoder = small()
    ids = text(length)
    log_probs, state = decoder.advance(decoder.start(), EOS_ID)
    expected = []
    for token in ids.tolist():
        expected.append(log_probs[token])
        log_probs, state = decoder.advance(state, token)
    assert decoder.trace(ids).scores == pytest.approx(expected, abs=1e-4)


def test_states_are_values(network: Network) -> None:
    decoder = network.decoder(VOCABULARY)
    _, kept = decoder.advance(decoder.start(), EOS_ID)
    before = [(hidden.copy(), cell.copy()) for hidden, cell in kept]
    first, after = decoder.advance(kept, 5)
    other, _ = decoder.advance(kept, 6)
    decoder.advance(after, 7)
    again, after_again = decoder.advance(kept, 5)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    for (hidden, cell), (hidden_before, cell_before) in zip(kept, before, strict=True):
        assert np.array_equal(hidden, hidden_before)
        assert np.array_equal(cell, cell_before)
    for (hidden, cell), (hidden_again, cell_again) in zip(after, after_again, strict=True):
        assert np.array_equal(hidden, hidden_again)
        assert np.array_equal(cell, cell_again)


def test_what_was_returned_does_not_change_later() -> None:
    decoder = small()
    first, state = decoder.advance(decoder.start(), EOS_ID)
    kept = first.copy()
    for token in range(10):
        _, state = decoder.advance(state, token)
    assert np.array_equal(first, kept)
    first += 1000  # and whoever changes it changes nothing of the model
    assert np.array_equal(decoder.advance(decoder.start(), EOS_ID)[0], kept)


def test_extreme_logits_stay_distributions() -> None:
    weights = {name: value.copy() for name, value in small().weights.items()}
    weights["output.bias"][:] = 0
    weights["output.bias"][3] = 5000
    decoder = Decoder(small().config, VOCABULARY, weights)
    log_probs, _ = decoder.advance(decoder.start(), EOS_ID)
    assert np.exp(log_probs).sum() == pytest.approx(1)
    assert np.isfinite(log_probs).all()
    assert np.isfinite(decoder.trace(text(5)).scores).all()


def test_later_training_does_not_change_a_decoder() -> None:
    network = Network(CONFIGS["one layer, tied"], SIZE, torch.Generator().manual_seed(0))
    decoder = network.decoder(VOCABULARY)
    before = decoder.advance(decoder.start(), EOS_ID)[0]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    assert np.array_equal(decoder.advance(decoder.start(), EOS_ID)[0], before)


def test_shapes_are_those_of_the_network(network: Network) -> None:
    expected = {name: value.shape for name, value in network.weights().items()}
    assert weight_shapes(network.config, SIZE) == expected


@pytest.mark.parametrize("name", list(weight_shapes(CONFIGS["two layers, untied"], SIZE)))
@pytest.mark.parametrize(
    "damage", ["missing", "misshapen", "transposed", "nan", "inf", "float16", "float64", "integers"]
)
def test_damaged_tensors_are_refused_by_name(name: str, damage: str) -> None:
    config = CONFIGS["two layers, untied"]
    made = Network(config, SIZE, torch.Generator().manual_seed(0))
    weights: dict[str, Any] = made.weights()
    tensor = weights[name]
    if damage == "missing":
        del weights[name]
    elif damage == "misshapen":
        weights[name] = tensor[:-1]
    elif damage == "transposed":
        weights[name] = tensor[None] if tensor.ndim == 1 else tensor.T
    elif damage in ("nan", "inf"):
        tensor.flat[tensor.size // 2] = float(damage)
    else:
        weights[name] = tensor.astype({"float16": "f2", "float64": "f8", "integers": "i4"}[damage])
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        Decoder(config, VOCABULARY, weights)


def test_unknown_tensors_are_refused_by_name() -> None:
    weights = dict(small().weights) | {"output.weight": np.zeros((SIZE, 10), np.float32)}
    with pytest.raises(RunError, match=r"output\.weight"):  # this configuration is tied
        Decoder(small().config, VOCABULARY, weights)


def test_a_vocabulary_of_another_size_is_refused() -> None:
    shorter = Vocabulary(VOCABULARY.words[:-1])
    with pytest.raises(RunError, match=r"embedding\.weight"):
        Decoder(small().config, shorter, small().weights)
