"""The PyTorch LSTM: its number of parameters, its output without dropout, initialization, and scoring."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.models.lstm import LSTMModel
from engine.presets import get_preset
from tests.support.lstm import VOCABULARY_SIZE, make_model, make_window, seeded

pytestmark = pytest.mark.usefixtures("one_thread")


def count_parameters(config: ModelConfig, vocabulary_size: int) -> int:
    return sum(parameter.numel() for parameter in LSTMModel(config, vocabulary_size, seeded(0)).parameters())


def test_notebook_model_has_as_many_parameters_as_the_notebook() -> None:
    assert count_parameters(get_preset("notebook").model, 884) == 5_108_596


def test_paper_model_has_as_many_parameters_as_the_paper() -> None:
    """Merity et al. 2017 on the Penn Treebank: 400-1150-1150-400, tied weights, 10,000 words."""
    config = ModelConfig(embedding_size=400, hidden_size=1150, num_layers=3, tie_weights=True)
    assert config.layer_sizes() == [(400, 1150), (1150, 1150), (1150, 400)]
    assert count_parameters(config, 10_000) == 24_221_600


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("tie_weights", [True, False])
def test_without_dropout_it_equals_torch_lstm_layers(num_layers: int, tie_weights: bool) -> None:
    model = make_model(num_layers=num_layers, tie_weights=tie_weights)
    ids = make_window()
    vectors: Tensor = model.embedding.weight[ids]
    expected_states = []
    for i in range(num_layers):
        input_size = 6 if i == 0 else 8
        hidden_size = 6 if tie_weights and i == num_layers - 1 else 8
        layer = nn.LSTM(input_size, hidden_size)
        with torch.no_grad():
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                getattr(layer, name).copy_(model.get_parameter(f"layers.{i}.{name}"))
        vectors, state = layer(vectors)
        expected_states.append(state)
    output = nn.Linear(vectors.shape[2], VOCABULARY_SIZE)
    with torch.no_grad():
        output.weight.copy_(model.embedding.weight if tie_weights else model.output.weight)
        output.bias.copy_(torch.randn(VOCABULARY_SIZE, generator=seeded(4)))
        model.output.bias.copy_(output.bias)
    logits, states, raw, dropped = model(ids, model.initial_state(3))
    torch.testing.assert_close(logits, output(vectors))
    torch.testing.assert_close(raw, vectors)
    torch.testing.assert_close(dropped, vectors)
    for (hidden, cell), (expected_hidden, expected_cell) in zip(states, expected_states, strict=True):
        torch.testing.assert_close(hidden, expected_hidden)
        torch.testing.assert_close(cell, expected_cell)


def test_states_carry_from_window_to_window() -> None:
    model = make_model()
    ids = make_window(time=9)
    expected, _, _, _ = model(ids, model.initial_state(3))
    first, states, _, _ = model(ids[:4], model.initial_state(3))
    second, _, _, _ = model(ids[4:], states)
    torch.testing.assert_close(torch.cat([first, second]), expected)


def test_notebook_initialization_is_orthogonal_and_xavier() -> None:
    config = ModelConfig(embedding_size=24, hidden_size=16, num_layers=2, tie_weights=False, initialization="notebook")
    model = LSTMModel(config, 300, seeded(0))
    for i, input_size in enumerate((24, 16)):
        recurrent = model.get_parameter(f"layers.{i}.weight_hh_l0").detach()
        # nn.init.orthogonal_ on [4 hidden, hidden]: orthonormal columns.
        torch.testing.assert_close(recurrent.t() @ recurrent, torch.eye(16), atol=1e-5, rtol=0)
        bound = math.sqrt(6 / (input_size + 4 * 16))  # Xavier
        weight_ih = model.get_parameter(f"layers.{i}.weight_ih_l0").detach()
        assert 0.95 * bound < weight_ih.abs().max() <= bound
        assert weight_ih.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    biases = [value for name, value in model.named_parameters() if "bias" in name]
    assert len(biases) == 5
    assert all(not bias.any() for bias in biases)
    embedding = model.embedding.weight.detach()
    assert embedding.std() == pytest.approx(1, rel=0.05)
    assert embedding.mean() == pytest.approx(0, abs=0.05)


def test_uniform_initialization_has_the_ranges_of_the_paper() -> None:
    model = LSTMModel(ModelConfig(embedding_size=24, hidden_size=16, num_layers=2), 300, seeded(0))
    assert 0.099 < model.embedding.weight.abs().max() <= 0.1
    for i, hidden_size in enumerate((16, 24)):
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
            largest = model.get_parameter(f"layers.{i}.{name}").abs().max()
            assert 0.8 / math.sqrt(hidden_size) < largest <= 1 / math.sqrt(hidden_size)
    assert not model.output.bias.any()


@pytest.mark.parametrize("initialization", ["uniform", "notebook"])
def test_the_seed_determines_the_initialization(initialization: Any) -> None:
    first, same, other = (make_model(seed, initialization=initialization, tie_weights=False) for seed in (1, 1, 2))
    for name, value in first.named_parameters():
        assert torch.equal(value, same.get_parameter(name))
        if "bias" not in name:
            assert not torch.equal(value, other.get_parameter(name))


def test_tied_weights_share_storage() -> None:
    model = make_model(tie_weights=True)
    assert model.output.weight is model.embedding.weight
    assert "output.weight" not in model.export_weights()
    with torch.no_grad():
        model.embedding.weight.fill_(0.5)
    assert (model.output.weight == 0.5).all()
    untied = make_model(tie_weights=False)
    assert untied.output.weight.data_ptr() != untied.embedding.weight.data_ptr()


def test_output_bias_starts_at_smoothed_log_frequencies() -> None:
    model = make_model()
    ids = np.array([2, 2, 2, 3, 1], dtype=np.int32)
    model.init_output_bias(ids)
    counts = np.array([1, 2, 4, 2] + [1] * (VOCABULARY_SIZE - 4))
    expected = np.log(counts / counts.sum())
    assert model.output.bias.detach().numpy() == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        model.embedding.weight.zero_()  # tied to the output layer, so the bias alone determines the logits
    logits = model(make_window(), model.initial_state(3))[0]
    assert torch.softmax(logits[0, 0], -1).detach().numpy() == pytest.approx(counts / counts.sum(), rel=1e-5)


@pytest.mark.parametrize("length", [1, 2, 1023, 1024, 1025, 2500])
def test_every_token_is_scored_once_with_the_state_carried(length: int) -> None:
    """The lengths are around multiples of the scoring chunk."""
    model = make_model(num_layers=1)
    ids = np.random.default_rng(0).integers(0, VOCABULARY_SIZE, length).astype(np.int32)
    scores = model.forward_sequence(ids).log_probs
    inputs = torch.tensor([1, *ids.tolist()[:-1]])[:, None]
    log_probs = torch.log_softmax(model(inputs, model.initial_state(1))[0], -1)[:, 0].detach()
    expected = log_probs[torch.arange(length), torch.from_numpy(ids).long()]
    assert scores.shape == (length,)
    assert scores == pytest.approx(expected.numpy(), abs=1e-5)


def test_exported_weights_are_copies() -> None:
    model = make_model()
    weights = model.export_weights()
    before = {name: value.copy() for name, value in weights.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(np.array_equal(weights[name], before[name]) for name in before)
