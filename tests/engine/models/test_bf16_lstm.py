"""The LSTM layer written out in bfloat16, held to PyTorch's in double precision and to oneDNN's in bfloat16."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import engine.models.lstm
from engine.config import ModelConfig
from engine.models.bf16_lstm import lstm_bf16
from engine.models.lstm import Network

pytestmark = pytest.mark.usefixtures("one_thread")


def errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Relative to the size of the whole tensor, as roundings are many and small."""
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]


def results(layer: nn.LSTM, run: str, data: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs, states, and the gradients of inputs and weights."""
    vectors, hidden, cell, above = (value.detach().clone() for value in data)
    weights = [weight.detach().clone().requires_grad_() for weight in layer.parameters()]
    vectors.requires_grad_()
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=run != "exact")
    with mixed:
        if run == "ours":
            outputs, hidden, cell = lstm_bf16(vectors, (hidden, cell), weights)
        else:
            state = (hidden, cell)
            outputs, hidden, cell = torch.lstm(vectors, state, weights, True, 1, 0.0, True, False, False)
    outputs.to(above.dtype).backward(above)
    leaves = [vectors, *weights]
    return [value.detach() for value in (outputs, hidden, cell)] + [
        leaf.grad for leaf in leaves if leaf.grad is not None
    ]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 40), st.integers(8, 40), st.integers(0, 2**31))
def test_outputs_and_gradients_are_those_of_double_precision_but_for_rounding(
    time: int, batch: int, inputs: int, hidden: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.LSTM(inputs, hidden)
    shapes = [(time, batch, inputs), (1, batch, hidden), (1, batch, hidden), (time, batch, hidden)]
    data = tuple(torch.randn(shape) for shape in shapes)
    exact = results(layer.double(), "exact", tuple(value.double() for value in data))
    ours = results(layer.float(), "ours", data)
    assert len(ours) == len(exact) == 8
    assert max(errors(ours, exact)) < 0.03


def test_it_is_as_exact_as_the_layer_it_stands_for() -> None:
    torch.manual_seed(3)
    layer = nn.LSTM(96, 128)
    data = (torch.randn(30, 8, 96), torch.randn(1, 8, 128), torch.randn(1, 8, 128), torch.randn(30, 8, 128))
    exact = results(layer.double(), "exact", tuple(value.double() for value in data))
    ours = errors(results(layer.float(), "ours", data), exact)
    theirs = errors(results(layer.float(), "oneDNN", data), exact)
    assert all(own < 1.5 * its for own, its in zip(ours, theirs, strict=True))


def test_a_large_layer_in_bfloat16_goes_by_it_when_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(vectors: Tensor, state: tuple[Tensor, Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        calls.append(state[0].shape[-1])
        return lstm_bf16(vectors, state, weights)

    monkeypatch.setattr(engine.models.lstm, "lstm_bf16", counted)
    monkeypatch.setattr(engine.models.lstm, "WORTH_IT_FROM", 24)
    config = ModelConfig(embedding_size=16, hidden_size=24, layers=2)  # tied, so the second layer is of 16
    network = Network(config, 30, torch.Generator().manual_seed(0))
    ids, masks = torch.randint(30, (7, 3)), torch.Generator().manual_seed(1)
    network(ids, network.start(3), masks)
    assert not calls  # in float32
    with torch.autocast("cpu", torch.bfloat16):
        network(ids, network.start(3))
        assert not calls  # nothing is learned
        logits, states, _, _ = network(ids, network.start(3), masks)
        assert calls == [24]
        network(ids, states, masks)  # states can be handed on
    logits.float().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
