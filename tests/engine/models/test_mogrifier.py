"""Tests of the mogrifier, against the formulas of the paper and against the plain LSTM."""

import numpy as np
import pytest
import torch

from engine.models.lstm import LSTMModel
from engine.models.mogrifier import Mogrifier
from engine.models.mogrifier_lstm import mogrifier_lstm
from engine.models.numpy_lstm import NumpyLSTM
from tests.support.lstm import VOCABULARY_SIZE, make_model, make_window
from tests.support.models import make_tokenizer

VALUES = {"mogrifier_rounds": 5, "mogrifier_rank": 3, "tie_weights": False}


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def hand_made_outputs(model: LSTMModel, ids: list[int]) -> np.ndarray:
    """Return the outputs `[time, hidden]` of the last layer, from the equations of Melis et al. 2019, section 2."""
    weights = {name: tensor.astype(np.float64) for name, tensor in model.export_weights().items()}
    sizes = model.config.layer_sizes()
    hiddens = [np.zeros(hidden) for _, hidden in sizes]
    cells = [np.zeros(hidden) for _, hidden in sizes]
    outputs = []
    for token in ids:
        x = weights["embedding.weight"][token]
        for layer in range(len(sizes)):
            h = hiddens[layer]
            for index in range(1, model.config.mogrifier_rounds + 1):
                product = (
                    weights[f"mogrifiers.{layer}.up.{index - 1}"] @ weights[f"mogrifiers.{layer}.down.{index - 1}"]
                )
                if index % 2:
                    x = 2 * sigmoid(product @ h) * x
                else:
                    h = 2 * sigmoid(product @ x) * h
            gates = sum(
                weights[f"layers.{layer}.weight_{kind}_l0"] @ vector + weights[f"layers.{layer}.bias_{kind}_l0"]
                for kind, vector in (("ih", x), ("hh", h))
            )
            i, f, g, o = np.split(gates, 4)
            cells[layer] = sigmoid(f) * cells[layer] + sigmoid(i) * np.tanh(g)
            hiddens[layer] = x = sigmoid(o) * np.tanh(cells[layer])
        outputs.append(x)
    return np.array(outputs)


@pytest.mark.parametrize("rounds", [1, 2, 5])
@torch.no_grad()
def test_outputs_are_those_of_the_papers_equations(rounds: int) -> None:
    model = make_model(3, **(VALUES | {"mogrifier_rounds": rounds}))
    ids = make_window(9, 1)
    raw = model(ids, model.initial_state(1)).raw[:, 0].numpy()
    np.testing.assert_allclose(raw, hand_made_outputs(model, ids[:, 0].tolist()), atol=1e-6)


@torch.no_grad()
def test_gates_of_one_leave_the_plain_lstm() -> None:
    model, plain = make_model(1, **VALUES), make_model(1, tie_weights=False)
    plain.load_weights({name: tensor for name, tensor in model.export_weights().items() if "mogrifier" not in name})
    for parameter in model.mogrifiers.parameters():
        parameter.zero_()
    ids = make_window()
    expected, actual = plain(ids, plain.initial_state(3)), model(ids, model.initial_state(3))
    torch.testing.assert_close(actual.logits, expected.logits)
    for (hidden, cell), (plain_hidden, plain_cell) in zip(actual.state, expected.state, strict=True):
        torch.testing.assert_close(hidden, plain_hidden)
        torch.testing.assert_close(cell, plain_cell)


def test_every_matrix_gets_a_gradient() -> None:
    model = make_model(2, **VALUES)
    model(make_window(), model.initial_state(3)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def differentiable_outputs(mogrifier: Mogrifier, vectors: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
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
def test_gradients_are_those_of_automatic_differentiation(rounds: int) -> None:
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


def test_bf16_stays_near_float32_and_keeps_the_cell_in_float32() -> None:
    model = make_model(5, **VALUES)
    ids, state = make_window(), model.initial_state(3)
    exact, parameters = model(ids, state), list(model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(ids, state)
    assert rounded.raw.dtype == torch.bfloat16
    assert all(cell.dtype == torch.float32 for _, cell in rounded.state)
    torch.testing.assert_close(rounded.raw.float(), exact.raw, atol=0.01, rtol=0)
    for part, whole in zip(
        torch.autograd.grad(rounded.raw.float().square().sum(), parameters, allow_unused=True),
        torch.autograd.grad(exact.raw.square().sum(), parameters, allow_unused=True),
        strict=True,
    ):
        if whole is not None:
            assert (part - whole).norm() <= 0.1 * whole.norm()


def test_matrices_are_in_the_group_of_their_layer() -> None:
    groups = make_model(**VALUES).layer_groups()
    for layer, group in ((1, groups[1]), (0, groups[2])):
        assert {name.split(".")[1] for name in group} == {str(layer)}
        assert sum(name.startswith("mogrifiers.") for name in group) == 10


@torch.no_grad()
def test_decoder_reads_several_texts_together_as_alone() -> None:
    model = make_model(4, **VALUES)
    decoder = NumpyLSTM(model.config, make_tokenizer(VOCABULARY_SIZE), model.export_weights())
    texts = make_window(6, 3).T.tolist()
    alone = []
    for text in texts:
        state = decoder.start()
        for token in text:
            log_probs, state = decoder.advance(state, token)
        alone.append(log_probs)
    states = [decoder.start()] * 3
    for tokens in zip(*texts, strict=True):
        results = decoder.advance_batch(states, tokens)
        states = [state for _, state in results]
    np.testing.assert_allclose([log_probs for log_probs, _ in results], alone, atol=1e-5)
