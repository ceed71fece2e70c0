"""The torch network: its size, its function without masks, and each kind of dropout."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.config import ModelConfig, preset
from engine.models.lstm import Network, _mask

NO_DROPOUT = {
    "dropout_words": 0.0,
    "dropout_input": 0.0,
    "dropout_between": 0.0,
    "dropout_output": 0.0,
    "weight_drop": 0.0,
}
SOME_DROPOUT = {
    "dropout_words": 0.1,
    "dropout_input": 0.4,
    "dropout_between": 0.3,
    "dropout_output": 0.4,
    "weight_drop": 0.5,
}
SIZE = 11


pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network_of(seed: int = 0, **values: Any) -> Network:
    """A small network without any dropout but what `values` ask for."""
    small: dict[str, Any] = {"embedding_size": 6, "hidden_size": 8, "layers": 2, **NO_DROPOUT}
    return Network(ModelConfig(**(small | values)), SIZE, seeded(seed))


def window(time: int = 7, batch: int = 3) -> Tensor:
    return torch.randint(SIZE, (time, batch), generator=seeded(9))


class Seen:
    """What every LSTM layer of a forward was run on: `inputs`, and the weights in PyTorch's order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inputs: list[Tensor] = []
        self.weights: list[list[Tensor]] = []
        self.outputs: list[Tensor] = []
        original: Any = torch.lstm

        def spy(inputs: Tensor, state: Any, weights: list[Tensor], *rest: Any) -> Any:
            result = original(inputs, state, weights, *rest)
            self.inputs.append(inputs.detach().clone())
            self.weights.append([weight.detach().clone() for weight in weights])
            self.outputs.append(result[0].detach().clone())
            return result

        monkeypatch.setattr(torch, "lstm", spy)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


def parameters(config: ModelConfig, size: int) -> int:
    return sum(parameter.numel() for parameter in Network(config, size, seeded(0)).parameters())


def test_the_notebook_has_its_number_of_parameters() -> None:
    assert parameters(preset("notebook").model, 884) == 5_108_596


def test_the_paper_has_its_number_of_parameters() -> None:
    """Merity et al. 2017 on the Penn Treebank: 400-1150-1150-400, tied, 10,000 words."""
    config = ModelConfig(embedding_size=400, hidden_size=1150, layers=3, tied=True)
    assert config.layer_sizes() == [(400, 1150), (1150, 1150), (1150, 400)]
    assert parameters(config, 10_000) == 24_221_600


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_without_masks_it_is_a_plain_lstm(layers: int, tied: bool) -> None:
    network = network_of(layers=layers, tied=tied)
    ids = window()
    vectors: Tensor = network.embedding.weight[ids]
    states = []
    for i in range(layers):
        inputs = 6 if i == 0 else 8
        hidden = 6 if tied and i == layers - 1 else 8
        reference = nn.LSTM(inputs, hidden)
        with torch.no_grad():
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                getattr(reference, name).copy_(network.get_parameter(f"layers.{i}.{name}"))
        vectors, state = reference(vectors)
        states.append(state)
    linear = nn.Linear(vectors.shape[2], SIZE)
    with torch.no_grad():
        linear.weight.copy_(network.embedding.weight if tied else network.output.weight)
        linear.bias.copy_(torch.randn(SIZE, generator=seeded(4)))
        network.output.bias.copy_(linear.bias)
    logits, found, raw, dropped = network(ids, network.start(3))
    torch.testing.assert_close(logits, linear(vectors))
    torch.testing.assert_close(raw, vectors)
    torch.testing.assert_close(dropped, vectors)
    for (hidden_found, cell_found), (hidden_expected, cell_expected) in zip(found, states, strict=True):
        torch.testing.assert_close(hidden_found, hidden_expected)
        torch.testing.assert_close(cell_found, cell_expected)


def test_states_carry_from_window_to_window() -> None:
    network = network_of()
    ids = window(time=9)
    whole, _, _, _ = network(ids, network.start(3))
    first, states, _, _ = network(ids[:4], network.start(3))
    second, _, _, _ = network(ids[4:], states)
    torch.testing.assert_close(torch.cat([first, second]), whole)


def test_without_a_generator_nothing_is_dropped_in_train_or_eval_mode() -> None:
    network = network_of(layers=1, **SOME_DROPOUT)
    plain = network_of(layers=1)
    plain.load_state_dict(network.state_dict())
    expected = plain(window(), plain.start(3))[0]
    for mode in (True, False):
        network.train(mode)
        assert torch.equal(network(window(), network.start(3))[0], expected)


def test_one_seed_of_masks_one_output() -> None:
    network = network_of(**SOME_DROPOUT)

    def logits(seed: int) -> Tensor:
        found: Tensor = network(window(), network.start(3), seeded(seed))[0]
        return found

    assert torch.equal(logits(5), logits(5))
    assert not torch.equal(logits(5), logits(6))
    generator = seeded(5)
    first = network(window(), network.start(3), generator)[0]
    assert not torch.equal(network(window(), network.start(3), generator)[0], first)  # a new forward, new masks


@pytest.mark.parametrize("layers", [1, 2])
def test_weight_drop_is_one_mask_a_forward_for_each_layer(seen: Seen, layers: int) -> None:
    network = network_of(layers=layers, embedding_size=16, hidden_size=16, weight_drop=0.25)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ids = window()
    _, _, raw, _ = network(ids, network.start(3), seeded(1))
    assert len(seen.weights) == layers  # each layer ran once over the whole window, so with one set of weights
    masks = []
    for layer, weights in zip(network.layers, seen.weights, strict=True):
        mask = weights[1] / layer.weight_hh_l0
        masks.append(mask)
        kept = mask != 0
        torch.testing.assert_close(mask[kept], torch.full_like(mask[kept], 1 / 0.75))
        assert kept.float().mean() == pytest.approx(0.75, abs=0.06)
        for i, name in ((0, "weight_ih_l0"), (2, "bias_ih_l0"), (3, "bias_hh_l0")):
            assert torch.equal(weights[i], getattr(layer, name))
    if layers == 2:
        assert not torch.equal(masks[0], masks[1])

    vectors: Tensor = network.embedding.weight[ids]
    for layer, mask in zip(network.layers, masks, strict=True):
        reference = nn.LSTM(16, 16)
        reference.load_state_dict(layer.state_dict())
        with torch.no_grad():
            reference.weight_hh_l0.mul_(mask)
        vectors = reference(vectors)[0]
    torch.testing.assert_close(raw, vectors)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])  # the stored weights are as they were


def test_gradients_reach_the_recurrent_weights_through_the_mask(seen: Seen) -> None:
    network = network_of(layers=1, embedding_size=8, weight_drop=0.5)
    logits, _, _, _ = network(window(), network.start(3), seeded(1))
    logits.pow(2).sum().backward()
    stored = network.get_parameter("layers.0.weight_hh_l0")
    assert stored.grad is not None
    masked = seen.weights[0][1] == 0
    assert torch.equal(stored.grad == 0, masked)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 0.97), st.integers(0, 2**31))
def test_a_mask_drops_the_share_it_is_told_and_keeps_the_mean(share: float, seed: int) -> None:
    size = 40_001
    mask = _mask(torch.empty(0), (size,), share, seeded(seed))
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - share)], rel=1e-3)
    spread = (share * (1 - share) / size) ** 0.5
    assert abs((mask == 0).float().mean() - share) < 5 * spread + 2**-16
    # Neighbours, of which four come out of one draw, are independent of each other.
    dropped = (mask == 0).float() - (mask == 0).float().mean()
    for distance in range(1, 5):
        together = (dropped[distance:] * dropped[:-distance]).mean() / dropped.pow(2).mean()
        assert abs(together) < 5 / size**0.5
    assert torch.equal(mask, _mask(torch.empty(0), (size,), share, seeded(seed)))


def mask_of_output(locked: bool) -> Tensor:
    network = network_of(locked=locked, dropout_output=0.5, embedding_size=12, hidden_size=12)
    _, _, raw, dropped = network(window(time=6), network.start(3), seeded(2))
    return (dropped / raw).detach()


def test_locked_dropout_is_one_mask_for_all_time_steps() -> None:
    mask = mask_of_output(locked=True)
    assert torch.allclose(mask, mask[:1].expand_as(mask))
    assert {round(value, 4) for value in mask.flatten().tolist()} == {0.0, 2.0}
    assert not torch.allclose(mask[:, 0], mask[:, 1])  # each column of the batch has its own


def test_unlocked_dropout_is_a_mask_for_each_time_step() -> None:
    mask = mask_of_output(locked=False)
    assert {round(value, 4) for value in mask.flatten().tolist()} == {0.0, 2.0}
    assert all(not torch.allclose(mask[t], mask[t + 1]) for t in range(len(mask) - 1))


@pytest.mark.parametrize("locked", [True, False])
def test_input_and_between_dropout_fall_on_their_own_places(seen: Seen, locked: bool) -> None:
    network = network_of(locked=locked, embedding_size=12, hidden_size=12, dropout_input=0.25, dropout_between=0.5)
    ids = window(time=6)
    _, _, raw, dropped = network(ids, network.start(3), seeded(3))
    masks = seen.inputs[0] / network.embedding.weight[ids].detach(), seen.inputs[1] / seen.outputs[0]
    for mask, keep in zip(masks, (0.75, 0.5), strict=True):
        assert {round(value, 3) for value in mask.flatten().tolist()} == {0.0, round(1 / keep, 3)}
        assert torch.allclose(mask, mask[:1].expand_as(mask)) == locked
    assert torch.equal(raw, dropped)


def test_word_dropout_zeroes_whole_words_for_the_whole_window(seen: Seen) -> None:
    network = network_of(dropout_words=0.4, layers=1)
    ids = torch.arange(SIZE).repeat(3, 2).t().contiguous()  # every word twice in each of three columns
    network(ids, network.start(3), seeded(4))
    factors: dict[int, set[float]] = {word: set() for word in range(SIZE)}
    found = seen.inputs[0] / network.embedding.weight[ids].detach()
    for word, vector in zip(ids.flatten().tolist(), found.flatten(0, 1), strict=True):
        factors[word] |= {round(value, 3) for value in vector.tolist()}
    assert all(len(values) == 1 for values in factors.values())
    assert {value for values in factors.values() for value in values} == {0.0, round(1 / 0.6, 3)}


@pytest.mark.parametrize("name", ["dropout_words", "dropout_input", "dropout_between", "dropout_output", "weight_drop"])
@pytest.mark.parametrize("locked", [True, False])
def test_masks_preserve_the_mean(seen: Seen, name: str, locked: bool) -> None:
    """Over 1,200 forwards the mean of each mask is 1, its standard error being about .02."""
    network = network_of(locked=locked, **{name: 0.3})
    ids, generator = window(time=2, batch=1), seeded(6)
    embedded = network.embedding.weight[ids].detach()
    recurrent = network.get_parameter("layers.0.weight_hh_l0").detach()
    total: Tensor | float = 0.0
    with torch.no_grad():
        for i in range(1200):
            _, _, raw, dropped = network(ids, network.start(1), generator)
            first = 2 * i  # two layers a forward
            total = (
                total
                + {
                    "dropout_words": lambda f=first: seen.inputs[f] / embedded,
                    "dropout_input": lambda f=first: seen.inputs[f] / embedded,
                    "dropout_between": lambda f=first: seen.inputs[f + 1] / seen.outputs[f],
                    "dropout_output": lambda r=raw, d=dropped: d / r,
                    "weight_drop": lambda f=first: seen.weights[f][1] / recurrent,
                }[name]()
            )
    assert isinstance(total, Tensor)
    mean = total / 1200
    assert mean.mean() == pytest.approx(1, abs=0.06)
    assert (mean - 1).abs().max() < 0.12


def test_notebook_initialisation() -> None:
    config = ModelConfig(embedding_size=24, hidden_size=16, layers=2, tied=False, initialisation="notebook")
    network = Network(config, 300, seeded(0))
    for i, inputs in enumerate((24, 16)):
        recurrent = network.get_parameter(f"layers.{i}.weight_hh_l0").detach()
        # nn.init.orthogonal_ on [4 hidden, hidden]: orthonormal columns.
        torch.testing.assert_close(recurrent.t() @ recurrent, torch.eye(16), atol=1e-5, rtol=0)
        bound = math.sqrt(6 / (inputs + 4 * 16))  # Xavier
        given = network.get_parameter(f"layers.{i}.weight_ih_l0").detach()
        assert 0.95 * bound < given.abs().max() <= bound
        assert given.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    biases = [value for name, value in network.named_parameters() if "bias" in name]
    assert len(biases) == 5
    assert all(not bias.any() for bias in biases)
    embedding = network.embedding.weight.detach()
    assert embedding.std() == pytest.approx(1, rel=0.05)
    assert embedding.mean() == pytest.approx(0, abs=0.05)


def test_uniform_initialisation_is_the_papers() -> None:
    network = Network(ModelConfig(embedding_size=24, hidden_size=16, layers=2), 300, seeded(0))
    assert 0.099 < network.embedding.weight.abs().max() <= 0.1
    for i, hidden in enumerate((16, 24)):
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
            highest = network.get_parameter(f"layers.{i}.{name}").abs().max()
            assert 0.8 / math.sqrt(hidden) < highest <= 1 / math.sqrt(hidden)
    assert not network.output.bias.any()


@pytest.mark.parametrize("initialisation", ["uniform", "notebook"])
def test_one_seed_one_initialisation(initialisation: Any) -> None:
    first, same, other = (network_of(seed, initialisation=initialisation, tied=False) for seed in (1, 1, 2))
    for name, value in first.named_parameters():
        assert torch.equal(value, same.get_parameter(name))
        if "bias" not in name:
            assert not torch.equal(value, other.get_parameter(name))


def test_tied_weights_share_storage() -> None:
    network = network_of(tied=True)
    assert network.output.weight is network.embedding.weight
    assert "output.weight" not in network.weights()
    with torch.no_grad():
        network.embedding.weight.fill_(0.5)
    assert (network.output.weight == 0.5).all()
    untied = network_of(tied=False)
    assert untied.output.weight.data_ptr() != untied.embedding.weight.data_ptr()


def test_start_from_unigram() -> None:
    network = network_of()
    ids = np.array([2, 2, 2, 3, 1], dtype=np.int32)
    network.start_from_unigram(ids)
    counts = np.array([1, 2, 4, 2] + [1] * (SIZE - 4))
    expected = np.log(counts / counts.sum())
    assert network.output.bias.detach().numpy() == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        network.embedding.weight.zero_()  # nothing of the context reaches the output
    logits = network(window(), network.start(3))[0]
    assert torch.softmax(logits[0, 0], -1).detach().numpy() == pytest.approx(counts / counts.sum(), rel=1e-5)


@pytest.mark.parametrize("length", [1, 2, 1023, 1024, 1025, 2500])
def test_score_is_every_word_once_with_the_state_carried(length: int) -> None:
    """Lengths around the chunk that scoring is computed in."""
    network = network_of(layers=1)
    ids = np.random.default_rng(0).integers(0, SIZE, length).astype(np.int32)
    scores = network.trace(ids).scores
    inputs = torch.tensor([1, *ids.tolist()[:-1]])[:, None]
    log_probs = torch.log_softmax(network(inputs, network.start(1))[0], -1)[:, 0].detach()
    expected = log_probs[torch.arange(length), torch.from_numpy(ids).long()]
    assert scores.shape == (length,)
    assert scores == pytest.approx(expected.numpy(), abs=1e-5)


def test_weights_are_copies() -> None:
    network = network_of()
    weights = network.weights()
    kept = {name: value.copy() for name, value in weights.items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(np.array_equal(weights[name], kept[name]) for name in kept)
