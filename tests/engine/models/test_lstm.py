"""The PyTorch LSTM against torch.nn.LSTM: outputs, initialization, output layer, and each kind of dropout."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.config import ModelConfig
from engine.models.dropout import dropout_mask
from engine.models.lstm import LSTMModel
from engine.presets import get_preset
from tests.support.lstm import VOCABULARY_SIZE, make_model, make_window, seeded

pytestmark = pytest.mark.usefixtures("one_thread")


def test_models_have_as_many_parameters_as_the_notebook_and_the_paper():
    """Merity et al. 2017 on the Penn Treebank: 400-1150-1150-400, tied weights, 10,000 words."""
    paper = ModelConfig(embedding_size=400, hidden_size=1150, num_layers=3, tie_weights=True)
    for config, vocabulary_size, expected in (
        (get_preset("notebook").model, 884, 5_108_596),
        (paper, 10_000, 24_221_600),
    ):
        model = LSTMModel(config, vocabulary_size, seeded(0))
        assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("tie_weights", [True, False])
def test_without_dropout_it_equals_torch_lstm_layers(num_layers, tie_weights):
    model = make_model(num_layers=num_layers, tie_weights=tie_weights)
    ids = make_window()
    vectors = model.embedding.weight[ids]
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


def test_notebook_initialization_is_orthogonal_and_xavier():
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


def test_uniform_initialization_has_the_ranges_of_the_paper():
    model = LSTMModel(ModelConfig(embedding_size=24, hidden_size=16, num_layers=2), 300, seeded(0))
    assert 0.099 < model.embedding.weight.abs().max() <= 0.1
    for i, hidden_size in enumerate((16, 24)):
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
            largest = model.get_parameter(f"layers.{i}.{name}").abs().max()
            assert 0.8 / math.sqrt(hidden_size) < largest <= 1 / math.sqrt(hidden_size)
    assert not model.output.bias.any()


def test_output_bias_starts_at_smoothed_log_frequencies():
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


DROPOUT = {
    "embedding_dropout": 0.1,
    "input_dropout": 0.4,
    "hidden_dropout": 0.3,
    "output_dropout": 0.4,
    "weight_drop": 0.5,
}


class LSTMSpy:
    """Records inputs, weights and outputs of every call of `torch.lstm`."""

    def __init__(self, monkeypatch):
        self.inputs = []
        self.weights = []
        self.outputs = []
        original = torch.lstm

        def spy(inputs, state, weights, *options):
            result = original(inputs, state, weights, *options)
            self.inputs.append(inputs.detach().clone())
            self.weights.append([weight.detach().clone() for weight in weights])
            self.outputs.append(result[0].detach().clone())
            return result

        monkeypatch.setattr(torch, "lstm", spy)


@pytest.fixture
def lstm_spy(monkeypatch):
    return LSTMSpy(monkeypatch)


def test_the_generator_determines_the_masks_and_without_one_nothing_is_dropped():
    model = make_model(**DROPOUT)

    def compute_logits(generator):
        return model(make_window(), model.initial_state(3), generator).logits

    assert torch.equal(compute_logits(seeded(5)), compute_logits(seeded(5)))
    assert not torch.equal(compute_logits(seeded(5)), compute_logits(seeded(6)))
    generator = seeded(5)
    first = compute_logits(generator)
    assert not torch.equal(compute_logits(generator), first)  # every forward pass draws new masks
    reference = make_model()
    reference.load_state_dict(model.state_dict())
    expected = reference(make_window(), reference.initial_state(3)).logits
    for mode in (True, False):
        model.train(mode)
        assert torch.equal(compute_logits(None), expected)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_weight_drop_draws_one_mask_per_layer_and_forward(lstm_spy, num_layers):
    model = make_model(num_layers=num_layers, embedding_size=16, hidden_size=16, weight_drop=0.25)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = make_window()
    _, _, raw, _ = model(ids, model.initial_state(3), seeded(1))
    assert len(lstm_spy.weights) == num_layers  # one call per layer, so one set of weights for the whole window
    masks = []
    for layer, weights in zip(model.layers, lstm_spy.weights, strict=True):
        mask = weights[1] / layer.weight_hh_l0
        masks.append(mask)
        kept = mask != 0
        torch.testing.assert_close(mask[kept], torch.full_like(mask[kept], 1 / 0.75))
        assert kept.float().mean() == pytest.approx(0.75, abs=0.06)
        for i, name in ((0, "weight_ih_l0"), (2, "bias_ih_l0"), (3, "bias_hh_l0")):
            assert torch.equal(weights[i], getattr(layer, name))
    if num_layers == 2:
        assert not torch.equal(masks[0], masks[1])

    vectors = model.embedding.weight[ids]
    for layer, mask in zip(model.layers, masks, strict=True):
        reference = nn.LSTM(16, 16)
        reference.load_state_dict(layer.state_dict())
        with torch.no_grad():
            reference.weight_hh_l0.mul_(mask)
        vectors = reference(vectors)[0]
    torch.testing.assert_close(raw, vectors)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])  # the stored weights are unchanged


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 0.97), st.integers(0, 2**31))
def test_masks_have_the_requested_rate_and_independent_elements(p, seed):
    size = 40_001
    mask = dropout_mask(torch.empty(0), (size,), p, seeded(seed))
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-3)
    standard_error = (p * (1 - p) / size) ** 0.5
    assert abs((mask == 0).float().mean() - p) < 5 * standard_error + 2**-16
    # Four neighbouring elements come from one random integer.
    centered = (mask == 0).float() - (mask == 0).float().mean()
    for distance in range(1, 5):
        correlation = (centered[distance:] * centered[:-distance]).mean() / centered.pow(2).mean()
        assert abs(correlation) < 5 / size**0.5
    assert torch.equal(mask, dropout_mask(torch.empty(0), (size,), p, seeded(seed)))


@pytest.mark.parametrize("variational_dropout", [True, False])
def test_a_variational_mask_is_one_for_all_time_steps_and_a_plain_one_new_for_each(lstm_spy, variational_dropout):
    model = make_model(
        variational_dropout=variational_dropout,
        embedding_size=12,
        hidden_size=12,
        input_dropout=0.25,
        hidden_dropout=0.5,
        output_dropout=0.6,
    )
    ids = make_window(time=6)
    _, _, raw, dropped = model(ids, model.initial_state(3), seeded(3))
    masks = (
        lstm_spy.inputs[0] / model.embedding.weight[ids].detach(),
        lstm_spy.inputs[1] / lstm_spy.outputs[0],
        (dropped / raw).detach(),
    )
    for mask, keep in zip(masks, (0.75, 0.5, 0.4), strict=True):
        assert {round(value, 3) for value in mask.flatten().tolist()} == {0.0, round(1 / keep, 3)}
        assert all(torch.allclose(row, other) == variational_dropout for row, other in pairwise(mask))
        assert not torch.allclose(mask[:, 0], mask[:, 1])  # the columns of the batch have different masks


def test_embedding_dropout_drops_whole_tokens_for_the_whole_window(lstm_spy):
    model = make_model(embedding_dropout=0.4, num_layers=1)
    ids = torch.arange(VOCABULARY_SIZE).repeat(3, 2).t().contiguous()  # every token twice in each of three columns
    model(ids, model.initial_state(3), seeded(4))
    factors = {token: set() for token in range(VOCABULARY_SIZE)}
    mask = lstm_spy.inputs[0] / model.embedding.weight[ids].detach()
    for token, row in zip(ids.flatten().tolist(), mask.flatten(0, 1), strict=True):
        factors[token] |= {round(value, 3) for value in row.tolist()}
    assert all(len(values) == 1 for values in factors.values())
    assert {value for values in factors.values() for value in values} == {0.0, round(1 / 0.6, 3)}
