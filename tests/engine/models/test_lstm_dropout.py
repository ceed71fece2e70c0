"""Each kind of dropout in the PyTorch LSTM: where it applies, and the distribution of its masks."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.models.dropout import dropout_mask
from tests.support.lstm import VOCABULARY_SIZE, make_model, make_window, seeded

DROPOUT = {
    "embedding_dropout": 0.1,
    "input_dropout": 0.4,
    "hidden_dropout": 0.3,
    "output_dropout": 0.4,
    "weight_drop": 0.5,
}

pytestmark = pytest.mark.usefixtures("one_thread")


class LSTMSpy:
    """Records inputs, weights and outputs of every call of `torch.lstm`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inputs: list[Tensor] = []
        self.weights: list[list[Tensor]] = []
        self.outputs: list[Tensor] = []
        original: Any = torch.lstm

        def spy(inputs: Tensor, state: Any, weights: list[Tensor], *options: Any) -> Any:
            result = original(inputs, state, weights, *options)
            self.inputs.append(inputs.detach().clone())
            self.weights.append([weight.detach().clone() for weight in weights])
            self.outputs.append(result[0].detach().clone())
            return result

        monkeypatch.setattr(torch, "lstm", spy)


@pytest.fixture
def lstm_spy(monkeypatch: pytest.MonkeyPatch) -> LSTMSpy:
    return LSTMSpy(monkeypatch)


def test_without_a_generator_nothing_is_dropped_in_train_or_eval_mode() -> None:
    model = make_model(num_layers=1, **DROPOUT)
    reference = make_model(num_layers=1)
    reference.load_state_dict(model.state_dict())
    expected = reference(make_window(), reference.initial_state(3))[0]
    for mode in (True, False):
        model.train(mode)
        assert torch.equal(model(make_window(), model.initial_state(3))[0], expected)


def test_the_generator_determines_the_masks() -> None:
    model = make_model(**DROPOUT)

    def compute_logits(generator: torch.Generator) -> Tensor:
        logits: Tensor = model(make_window(), model.initial_state(3), generator)[0]
        return logits

    assert torch.equal(compute_logits(seeded(5)), compute_logits(seeded(5)))
    assert not torch.equal(compute_logits(seeded(5)), compute_logits(seeded(6)))
    generator = seeded(5)
    first = compute_logits(generator)
    assert not torch.equal(compute_logits(generator), first)  # every forward pass draws new masks


@pytest.mark.parametrize("num_layers", [1, 2])
def test_weight_drop_draws_one_mask_per_layer_and_forward(lstm_spy: LSTMSpy, num_layers: int) -> None:
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

    vectors: Tensor = model.embedding.weight[ids]
    for layer, mask in zip(model.layers, masks, strict=True):
        reference = nn.LSTM(16, 16)
        reference.load_state_dict(layer.state_dict())
        with torch.no_grad():
            reference.weight_hh_l0.mul_(mask)
        vectors = reference(vectors)[0]
    torch.testing.assert_close(raw, vectors)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])  # the stored weights are unchanged


def test_gradients_reach_the_recurrent_weights_through_the_mask(lstm_spy: LSTMSpy) -> None:
    model = make_model(num_layers=1, embedding_size=8, weight_drop=0.5)
    logits, _, _, _ = model(make_window(), model.initial_state(3), seeded(1))
    logits.pow(2).sum().backward()
    stored = model.get_parameter("layers.0.weight_hh_l0")
    assert stored.grad is not None
    dropped = lstm_spy.weights[0][1] == 0
    assert torch.equal(stored.grad == 0, dropped)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 0.97), st.integers(0, 2**31))
def test_masks_have_the_requested_rate_and_independent_elements(p: float, seed: int) -> None:
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


def output_mask(variational_dropout: bool) -> Tensor:
    model = make_model(variational_dropout=variational_dropout, output_dropout=0.5, embedding_size=12, hidden_size=12)
    _, _, raw, dropped = model(make_window(time=6), model.initial_state(3), seeded(2))
    return (dropped / raw).detach()


def test_variational_dropout_uses_one_mask_for_all_time_steps() -> None:
    mask = output_mask(variational_dropout=True)
    assert torch.allclose(mask, mask[:1].expand_as(mask))
    assert {round(value, 4) for value in mask.flatten().tolist()} == {0.0, 2.0}
    assert not torch.allclose(mask[:, 0], mask[:, 1])  # the columns of the batch have different masks


def test_plain_dropout_uses_a_new_mask_for_each_time_step() -> None:
    mask = output_mask(variational_dropout=False)
    assert {round(value, 4) for value in mask.flatten().tolist()} == {0.0, 2.0}
    assert all(not torch.allclose(mask[t], mask[t + 1]) for t in range(len(mask) - 1))


@pytest.mark.parametrize("variational_dropout", [True, False])
def test_input_and_hidden_dropout_apply_before_their_layers(lstm_spy: LSTMSpy, variational_dropout: bool) -> None:
    model = make_model(
        variational_dropout=variational_dropout,
        embedding_size=12,
        hidden_size=12,
        input_dropout=0.25,
        hidden_dropout=0.5,
    )
    ids = make_window(time=6)
    _, _, raw, dropped = model(ids, model.initial_state(3), seeded(3))
    masks = (
        lstm_spy.inputs[0] / model.embedding.weight[ids].detach(),
        lstm_spy.inputs[1] / lstm_spy.outputs[0],
    )
    for mask, keep in zip(masks, (0.75, 0.5), strict=True):
        assert {round(value, 3) for value in mask.flatten().tolist()} == {0.0, round(1 / keep, 3)}
        assert torch.allclose(mask, mask[:1].expand_as(mask)) == variational_dropout
    assert torch.equal(raw, dropped)


def test_embedding_dropout_drops_whole_tokens_for_the_whole_window(lstm_spy: LSTMSpy) -> None:
    model = make_model(embedding_dropout=0.4, num_layers=1)
    ids = torch.arange(VOCABULARY_SIZE).repeat(3, 2).t().contiguous()  # every token twice in each of three columns
    model(ids, model.initial_state(3), seeded(4))
    factors: dict[int, set[float]] = {token: set() for token in range(VOCABULARY_SIZE)}
    mask = lstm_spy.inputs[0] / model.embedding.weight[ids].detach()
    for token, row in zip(ids.flatten().tolist(), mask.flatten(0, 1), strict=True):
        factors[token] |= {round(value, 3) for value in row.tolist()}
    assert all(len(values) == 1 for values in factors.values())
    assert {value for values in factors.values() for value in values} == {0.0, round(1 / 0.6, 3)}


@pytest.mark.parametrize("name", list(DROPOUT))
@pytest.mark.parametrize("variational_dropout", [True, False])
def test_every_kind_of_mask_has_a_mean_of_one(lstm_spy: LSTMSpy, name: str, variational_dropout: bool) -> None:
    """Over 1,200 forward passes, the standard error of the mean is about 0.02."""
    model = make_model(variational_dropout=variational_dropout, **{name: 0.3})
    ids, generator = make_window(time=2, batch=1), seeded(6)
    embedded = model.embedding.weight[ids].detach()
    recurrent = model.get_parameter("layers.0.weight_hh_l0").detach()
    total: Tensor | float = 0.0
    with torch.no_grad():
        for i in range(1200):
            _, _, raw, dropped = model(ids, model.initial_state(1), generator)
            first = 2 * i  # two layers per forward pass
            masks = {
                "embedding_dropout": lambda f=first: lstm_spy.inputs[f] / embedded,
                "input_dropout": lambda f=first: lstm_spy.inputs[f] / embedded,
                "hidden_dropout": lambda f=first: lstm_spy.inputs[f + 1] / lstm_spy.outputs[f],
                "output_dropout": lambda r=raw, d=dropped: d / r,
                "weight_drop": lambda f=first: lstm_spy.weights[f][1] / recurrent,
            }
            total = total + masks[name]()
    assert isinstance(total, Tensor)
    mean = total / 1200
    assert mean.mean() == pytest.approx(1, abs=0.06)
    assert (mean - 1).abs().max() < 0.12
