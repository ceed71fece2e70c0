"""The bfloat16 LSTM layer against PyTorch's layer in double precision and against oneDNN's in bfloat16."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import engine.models.lstm
from engine.config import ModelConfig
from engine.models.bf16_lstm import lstm_bf16
from engine.models.lstm import LSTMModel

pytestmark = pytest.mark.usefixtures("one_thread")


def relative_errors(actual: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Return the norm of each difference, relative to the norm of the whole tensor."""
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(actual, exact, strict=True)]


def run_layer(layer: nn.LSTM, implementation: str, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the outputs, the states, and the gradients of inputs and weights."""
    inputs, hidden, cell, gradient = (value.detach().clone() for value in arguments)
    weights = [weight.detach().clone().requires_grad_() for weight in layer.parameters()]
    inputs.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=implementation != "exact"):
        if implementation == "lstm_bf16":
            outputs, hidden, cell = lstm_bf16(inputs, (hidden, cell), weights)
        else:
            state = (hidden, cell)
            outputs, hidden, cell = torch.lstm(inputs, state, weights, True, 1, 0.0, True, False, False)
    outputs.to(gradient.dtype).backward(gradient)
    gradients = [leaf.grad for leaf in (inputs, *weights) if leaf.grad is not None]
    return [value.detach() for value in (outputs, hidden, cell)] + gradients


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 40), st.integers(8, 40), st.integers(0, 2**31))
def test_outputs_and_gradients_match_double_precision(
    time: int, batch: int, input_size: int, hidden_size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.LSTM(input_size, hidden_size)
    state_shape = (1, batch, hidden_size)
    shapes = [(time, batch, input_size), state_shape, state_shape, (time, batch, hidden_size)]
    arguments = tuple(torch.randn(shape) for shape in shapes)
    exact = run_layer(layer.double(), "exact", tuple(value.double() for value in arguments))
    actual = run_layer(layer.float(), "lstm_bf16", arguments)
    assert len(actual) == len(exact) == 8
    assert max(relative_errors(actual, exact)) < 0.03


def test_rounding_errors_are_no_larger_than_those_of_onednn() -> None:
    torch.manual_seed(3)
    layer = nn.LSTM(96, 128)
    arguments = (torch.randn(30, 8, 96), torch.randn(1, 8, 128), torch.randn(1, 8, 128), torch.randn(30, 8, 128))
    exact = run_layer(layer.double(), "exact", tuple(value.double() for value in arguments))
    errors = relative_errors(run_layer(layer.float(), "lstm_bf16", arguments), exact)
    onednn_errors = relative_errors(run_layer(layer.float(), "oneDNN", arguments), exact)
    assert all(error < 1.5 * onednn_error for error, onednn_error in zip(errors, onednn_errors, strict=True))


def test_large_layers_use_it_only_for_training_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden_sizes: list[int] = []

    def spy(inputs: Tensor, state: tuple[Tensor, Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        hidden_sizes.append(state[0].shape[-1])
        return lstm_bf16(inputs, state, weights)

    monkeypatch.setattr(engine.models.lstm, "lstm_bf16", spy)
    monkeypatch.setattr(engine.models.lstm, "MIN_HIDDEN_SIZE", 24)
    config = ModelConfig(embedding_size=16, hidden_size=24, num_layers=2)  # weights are tied: the second layer has 16
    model = LSTMModel(config, 30, torch.Generator().manual_seed(0))
    ids, dropout_generator = torch.randint(30, (7, 3)), torch.Generator().manual_seed(1)
    model(ids, model.initial_state(3), dropout_generator)
    assert not hidden_sizes  # float32
    with torch.autocast("cpu", torch.bfloat16):
        model(ids, model.initial_state(3))
        assert not hidden_sizes  # not training
        logits, states, _, _ = model(ids, model.initial_state(3), dropout_generator)
        assert hidden_sizes == [24]
        model(ids, states, dropout_generator)  # the returned states are valid inputs
    logits.float().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
