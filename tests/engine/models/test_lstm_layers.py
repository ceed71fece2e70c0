"""Layers of the PyTorch LSTM, in bfloat16, with a mogrifier and by oneDNN, against plain computations in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.config import ModelConfig
from engine.models.bf16_lstm import MIN_HIDDEN_SIZE, lstm_bf16
from engine.models.linear import linear
from engine.models.lstm import LSTMModel
from engine.models.mogrifier import Mogrifier
from engine.models.mogrifier_lstm import mogrifier_lstm
from tests.support.lstm import VOCABULARY_SIZE, make_model, make_window
from tests.support.models import make_tokenizer
from tests.support.plain_lstm import plain_cells
from tests.support.training import NO_DROPOUT

pytestmark = pytest.mark.usefixtures("one_thread")


def relative_errors(actual, exact):
    """Return the norm of each difference, relative to the norm of the whole tensor."""
    return [
        float((a.detach().double() - b.detach()).norm() / b.detach().norm()) for a, b in zip(actual, exact, strict=True)
    ]


def run_layer(layer, is_bf16, arguments):
    """Return the outputs, the states, and the gradients of inputs and weights."""
    inputs, hidden, cell, gradient = (value.detach().clone() for value in arguments)
    weights = [weight.detach().clone().requires_grad_() for weight in layer.parameters()]
    inputs.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        if is_bf16:
            outputs, hidden, cell = lstm_bf16(inputs, (hidden, cell), weights)
        else:
            outputs, hidden, cell = torch.lstm(inputs, (hidden, cell), weights, True, 1, 0.0, True, False, False)
    outputs.to(gradient.dtype).backward(gradient)
    return [value.detach() for value in (outputs, hidden, cell)] + [leaf.grad for leaf in (inputs, *weights)]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(8, 40), st.integers(8, 40), st.integers(0, 2**31))
def test_bf16_outputs_and_gradients_match_double_precision(time, batch, input_size, hidden_size, seed):
    torch.manual_seed(seed)
    layer = nn.LSTM(input_size, hidden_size)
    state_shape = (1, batch, hidden_size)
    shapes = [(time, batch, input_size), state_shape, state_shape, (time, batch, hidden_size)]
    arguments = [torch.randn(shape) for shape in shapes]
    exact = run_layer(layer.double(), False, [value.double() for value in arguments])
    assert max(relative_errors(run_layer(layer.float(), True, arguments), exact)) < 0.05


VALUES = {"mogrifier_rounds": 5, "mogrifier_rank": 3, "tie_weights": False}


@pytest.mark.parametrize("rounds", [1, 2, 5])
@torch.no_grad()
def test_mogrified_outputs_are_those_of_the_papers_equations(rounds):
    model = make_model(3, **(VALUES | {"mogrifier_rounds": rounds}))
    ids = make_window(9, 1)
    rows = plain_cells(model.to_decoder(make_tokenizer(VOCABULARY_SIZE)), ids[:, 0].tolist())
    raw = model(ids, model.initial_state(1)).raw[:, 0].numpy()
    np.testing.assert_allclose(raw, [row[-1]["hidden"] for row in rows], atol=1e-6)


def differentiable_outputs(mogrifier, vectors, *weights):
    """Return the outputs `[time, batch, hidden]` of one layer, by operations that PyTorch differentiates."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    h = c = torch.full((vectors.shape[1], weight_hh.shape[1]), 0.1, dtype=vectors.dtype)
    outputs = []
    for x in vectors:
        for index, (down, up) in enumerate(zip(mogrifier.down, mogrifier.up, strict=True)):
            if index % 2 == 0:
                x = 2 * torch.sigmoid(h @ down.T @ up.T) * x
            else:
                h = 2 * torch.sigmoid(x @ down.T @ up.T) * h
        i, f, g, o = (x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_gradients_of_a_mogrifier_are_those_of_automatic_differentiation(rounds):
    time, batch, input_size, hidden_size = 4, 3, 5, 6
    generator = torch.Generator().manual_seed(rounds)
    mogrifier = Mogrifier(input_size, hidden_size, rounds, rank=2).double()
    lstm = torch.nn.LSTM(input_size, hidden_size).double()
    vectors = torch.randn(time, batch, input_size, dtype=torch.float64, generator=generator, requires_grad=True)
    parameters = [vectors, *lstm.parameters(), *mogrifier.parameters()]
    with torch.no_grad():
        for parameter in parameters[1:]:
            parameter.uniform_(-1, 1, generator=generator)
    state = torch.full((1, batch, hidden_size), 0.1, dtype=torch.float64)
    coefficients = torch.randn(time, batch, hidden_size, dtype=torch.float64, generator=generator)
    outputs, _, _ = mogrifier_lstm(mogrifier, vectors, (state, state), list(lstm.parameters()))
    expected = differentiable_outputs(mogrifier, vectors, *lstm.parameters())
    torch.testing.assert_close(outputs, expected)
    gradients = torch.autograd.grad((outputs * coefficients).sum(), parameters)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * coefficients).sum(), parameters))


LARGE = ModelConfig(embedding_size=16, hidden_size=MIN_HIDDEN_SIZE, num_layers=2, **NO_DROPOUT)


@pytest.mark.parametrize(
    "model",
    [LSTMModel(LARGE, VOCABULARY_SIZE, torch.Generator().manual_seed(0)), make_model(5, **VALUES)],
    ids=["large layers", "mogrifier"],
)
def test_outputs_and_gradients_in_bfloat16_stay_near_float32(model):
    ids, parameters = make_window(), list(model.parameters())
    exact = model(ids, model.initial_state(3))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(ids, model.initial_state(3))
        model(ids, rounded.state)  # the returned states are valid inputs
    assert rounded.raw.dtype == torch.bfloat16
    if model.mogrifiers:
        assert all(cell.dtype == torch.float32 for _, cell in rounded.state)
    gradients = [torch.autograd.grad(each.logits.float().square().sum(), parameters) for each in (rounded, exact)]
    assert max(relative_errors([rounded.logits, *gradients[0]], [exact.logits.double(), *gradients[1]])) < 0.05


def test_mogrifier_matrices_are_in_the_group_of_their_layer():
    groups = make_model(**VALUES).layer_groups()
    for layer, group in ((1, groups[1]), (0, groups[2])):
        assert {name.split(".")[1] for name in group} == {str(layer)}
        assert sum(name.startswith("mogrifiers.") for name in group) == 10


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=2), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31)
)
def test_values_and_gradients_of_onednn_match_double_precision(positions, inputs, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = ([*positions, inputs], [outputs, inputs], [outputs])
    arguments = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    doubles = [value.detach().double().requires_grad_() for value in arguments]
    gradient = torch.randn([*positions, outputs], generator=generator)
    actual, expected = linear(*arguments), torch.nn.functional.linear(*doubles)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    actual.backward(gradient)
    expected.backward(gradient.double())
    for value, reference in zip(arguments, doubles, strict=True):
        torch.testing.assert_close(value.grad.double(), reference.grad, rtol=1e-5, atol=1e-5)
