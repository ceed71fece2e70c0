"""Activations against the equations of the LSTM in double precision, and against `torch.nn.LSTMCell`."""

from typing import Any

import numpy as np
import pytest
import torch

from engine.analysis import activations
from engine.analysis.activations import find_top_activations, record_activations, unit_activations
from engine.config import ModelConfig
from engine.data.arrays import Float64Array
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.errors import InvalidInputError
from engine.models.numpy_lstm import LSTMState, NumpyLSTM
from tests.support.models import make_tokenizer, random_ids, random_lstm

SIZE = 23
VOCABULARY = make_tokenizer(SIZE)
MOGRIFIER = ModelConfig(embedding_size=6, hidden_size=10, num_layers=2, mogrifier_rounds=5, mogrifier_rank=3)
CONFIGS = {
    "one layer, tied": ModelConfig(embedding_size=7, hidden_size=7),
    "two layers of 10 and 6": ModelConfig(embedding_size=6, hidden_size=10, num_layers=2),
    "three layers, untied": ModelConfig(embedding_size=5, hidden_size=8, num_layers=3, tie_weights=False),
}


def make_lstm(name: str, seed: int = 0) -> NumpyLSTM:
    """Return a model with weights large enough for the gates to leave their linear range."""
    return random_lstm(CONFIGS[name], VOCABULARY, seed, scale=0.8)


@pytest.fixture(params=list(CONFIGS))
def lstm(request: pytest.FixtureRequest) -> NumpyLSTM:
    return make_lstm(request.param)


def make_ids(length: int, seed: int = 0) -> TokenIds:
    return random_ids(length, SIZE, seed)


def sigmoid(x: Float64Array) -> Float64Array:
    return 1 / (1 + np.exp(-x))


def reference_activations(lstm: NumpyLSTM, ids: TokenIds) -> list[dict[str, Float64Array]]:
    """Compute the activations `[time, hidden]` of every layer with the equations in the docs of torch.nn.LSTM.

    Factors of a mogrifier (Melis et al. 2019, equations 1 and 2) have the names 0, 1, and so on.
    """
    weights = {name: value.astype(np.float64) for name, value in lstm.weights.items()}
    sequence = weights["embedding.weight"][[EOS_ID, *ids]]
    layers = []
    for i, (_, size) in enumerate(lstm.config.layer_sizes()):
        weight_ih, weight_hh, bias_ih, bias_hh = (
            weights[f"layers.{i}.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h, c = np.zeros(size), np.zeros(size)
        rounds = [str(index) for index in range(lstm.config.mogrifier_rounds)]
        rows: dict[str, list[Float64Array]] = {name: [] for name in (*activations.ACTIVATION_NAMES, *rounds)}
        for vector in sequence:
            x = vector
            for name in rounds:
                matrix = weights[f"mogrifiers.{i}.up.{name}"] @ weights[f"mogrifiers.{i}.down.{name}"]
                is_input = int(name) % 2 == 0
                factor = 2 * sigmoid(matrix @ (h if is_input else x))
                x, h = (factor * x, h) if is_input else (x, factor * h)
                rows[name].append(factor)
            sums = np.split(weight_ih @ x + bias_ih + weight_hh @ h + bias_hh, 4)
            i_, f, g, o = sigmoid(sums[0]), sigmoid(sums[1]), np.tanh(sums[2]), sigmoid(sums[3])
            c = f * c + i_ * g
            h = o * np.tanh(c)
            for name, value in zip(activations.ACTIVATION_NAMES, (i_, f, o, g, c, h), strict=True):
                rows[name].append(value)
        layers.append({name: np.array(values)[1:] for name, values in rows.items()})
        sequence = np.array(rows["hidden"])
    return layers


def test_activations_match_the_equations(lstm: NumpyLSTM) -> None:
    ids = make_ids(40)
    layers, expected = record_activations(lstm, ids), reference_activations(lstm, ids)
    assert len(layers) == len(expected) == lstm.config.num_layers
    for layer, expected_layer in zip(layers, expected, strict=True):
        for name in activations.ACTIVATION_NAMES:
            assert layer.get(name).shape == expected_layer[name].shape
            assert layer.get(name).dtype == np.float32
            assert layer.get(name) == pytest.approx(expected_layer[name], abs=2e-5), name


def test_gates_are_computed_from_the_mogrified_input_and_state() -> None:
    lstm, ids = random_lstm(MOGRIFIER, VOCABULARY, 3, scale=0.8), make_ids(30)
    for layer, expected in zip(record_activations(lstm, ids), reference_activations(lstm, ids), strict=True):
        for name in activations.ACTIVATION_NAMES:
            assert layer.get(name) == pytest.approx(expected[name], abs=2e-5), name
        assert len(layer.mogrifier) == 5
        for index, factors in enumerate(layer.mogrifier):
            assert factors == pytest.approx(expected[str(index)], abs=2e-5), index
        assert np.ptp(layer.mogrifier[0]) > 0.5  # no factor is near 1 only


@torch.no_grad()
def test_cell_and_hidden_states_match_torch_lstm_cell(lstm: NumpyLSTM) -> None:
    ids = make_ids(40)
    sequence = torch.from_numpy(lstm.weights["embedding.weight"]).double()[[EOS_ID, *ids.tolist()]]
    for i, ((input_size, hidden_size), layer) in enumerate(
        zip(lstm.config.layer_sizes(), record_activations(lstm, ids), strict=True)
    ):
        cell = torch.nn.LSTMCell(input_size, hidden_size, dtype=torch.float64)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(cell, name).copy_(torch.from_numpy(lstm.weights[f"layers.{i}.{name}_l0"]))
        states = [cell(sequence[:1])]
        for x in sequence[1:]:
            states.append(cell(x[None], states[-1]))
        hidden, cells = (torch.cat(values) for values in zip(*states, strict=True))
        assert layer.cell == pytest.approx(cells[1:].numpy(), abs=2e-5)
        assert layer.hidden == pytest.approx(hidden[1:].numpy(), abs=2e-5)
        sequence = hidden


def test_a_row_is_the_state_after_its_token(lstm: NumpyLSTM) -> None:
    ids = make_ids(12)
    layers = record_activations(lstm, ids)
    _, state = lstm.advance(lstm.start(), EOS_ID)
    for position, token in enumerate(ids.tolist()):
        _, state = lstm.advance(state, token)
        for layer, (hidden, cell) in zip(layers, state.layers, strict=True):
            assert np.array_equal(layer.hidden[position], hidden)
            assert np.array_equal(layer.cell[position], cell)


def test_an_empty_text_has_no_rows(lstm: NumpyLSTM) -> None:
    layers = record_activations(lstm, [])
    assert [layer.forget.shape for layer in layers] == [(0, size) for _, size in lstm.config.layer_sizes()]


def test_batched_states_match_single_texts(lstm: NumpyLSTM) -> None:
    texts = [make_ids(9, seed) for seed in range(5)]
    sizes = [size for _, size in lstm.config.layer_sizes()]
    state = LSTMState(tuple((np.zeros((5, size), np.float32), np.zeros((5, size), np.float32)) for size in sizes))
    single_states = [lstm.start()] * 5
    for tokens in np.stack(texts, axis=1):
        gates, state = lstm.advance_state(state, tokens)
        results = [
            lstm.advance_state(single_state, int(token))
            for single_state, token in zip(single_states, tokens, strict=True)
        ]
        single_states = [single_state for _, single_state in results]
        for layer in range(len(sizes)):
            single_gates = np.stack([gates_by_layer[layer] for gates_by_layer, _ in results])
            hiddens, cells = (np.stack([single.layers[layer][part] for single in single_states]) for part in (0, 1))
            assert gates[layer] == pytest.approx(single_gates, abs=1e-5)
            assert state.layers[layer][0] == pytest.approx(hiddens, abs=1e-5)
            assert state.layers[layer][1] == pytest.approx(cells, abs=1e-5)


def test_lower_layers_can_be_computed_alone() -> None:
    lstm = make_lstm("three layers, untied")
    gates, state = lstm.advance_state(lstm.start(), 5)
    lower_gates, lower_state = lstm.advance_state(LSTMState(lstm.start().layers[:2]), 5)
    assert len(lower_gates) == len(lower_state.layers) == 2
    for layer in range(2):
        assert np.array_equal(lower_gates[layer], gates[layer])
        assert np.array_equal(lower_state.layers[layer][1], state.layers[layer][1])


def test_unit_activations_selects_one_unit() -> None:
    lstm = make_lstm("two layers of 10 and 6")
    ids = make_ids(15)
    layers, expected = record_activations(lstm, ids), reference_activations(lstm, ids)
    for name in activations.ACTIVATION_NAMES:
        assert unit_activations(layers, 0, 9, name) == pytest.approx(expected[0][name][:, 9], abs=2e-5)
        assert unit_activations(layers, 1, 5, name) == pytest.approx(expected[1][name][:, 5], abs=2e-5)
    assert np.array_equal(unit_activations(layers, 1, 2), unit_activations(layers, 1, 2, "cell"))


# --- tokens that activate a unit most ------------------------------------------------------------------------------


def rank_by_activation(
    lstm: NumpyLSTM, lines: list[TokenIds], layer: int, unit: int, activation: activations.ActivationName
) -> list[tuple[float, int, int]]:
    """Return value, line and position of all tokens, lowest value first, without repeated line prefixes."""
    prefixes, ranked = set(), []
    for line_index, line in enumerate(lines):
        values = reference_activations(lstm, line)[layer][activation][:, unit]
        for position, value in enumerate(values):
            if (prefix := tuple(line[: position + 1])) not in prefixes:
                prefixes.add(prefix)
                ranked.append((float(value), line_index, position))
    return sorted(ranked)


def make_lines(num_lines: int, seed: int) -> list[TokenIds]:
    rng = np.random.default_rng(seed)
    return [make_ids(int(rng.integers(1, 15)), 100 * seed + i) for i in range(num_lines)]


@pytest.mark.parametrize("activation", activations.ACTIVATION_NAMES)
@pytest.mark.parametrize("num_lines", [1, activations.BATCH_SIZE + 20])
def test_top_activations_match_an_exhaustive_search(
    lstm: NumpyLSTM, activation: activations.ActivationName, num_lines: int
) -> None:
    lines = make_lines(num_lines, seed=num_lines)
    for layer, (_, size) in enumerate(lstm.config.layer_sizes()):
        unit = size - 1
        ranked = rank_by_activation(lstm, lines, layer, unit, activation)
        result = find_top_activations(lstm, lines, layer, unit, activation, top_n=5)
        assert result.num_tokens == sum(map(len, lines))
        # Rounding decides which of several lines with the same prefix is chosen, so compare the values by prefix.
        value_of = {tuple(lines[line][: position + 1]): value for value, line, position in ranked}
        for examples, expected in ((result.lowest, ranked[:5]), (result.highest, ranked[::-1][:5])):
            values = [example.value for example in examples]
            assert values == pytest.approx([value for value, _, _ in expected], abs=2e-5)
            prefixes = [tuple(lines[example.line_index][: example.position + 1]) for example in examples]
            assert len(set(prefixes)) == len(prefixes)
            assert values == pytest.approx([value_of[prefix] for prefix in prefixes], abs=2e-5)


def test_examples_have_the_tokens_around_them() -> None:
    lstm = make_lstm("one layer, tied")
    lines = [np.array([2, 3, 4, 5, 6, 7], np.int32), np.array([8], np.int32)]
    result = find_top_activations(lstm, lines, 0, 0, top_n=99, context_size=2)
    assert len(result.highest) == len(result.lowest) == 7
    assert result.highest == result.lowest[::-1]
    contexts = {
        (example.line_index, example.position): (example.context_before, example.token, example.context_after)
        for example in result.highest
    }
    assert contexts[0, 0] == ((), "w0", (" w1", " w2"))
    assert contexts[0, 3] == ((" w1", " w2"), " w3", (" w4", " w5"))
    assert contexts[0, 5] == ((" w3", " w4"), " w5", ())
    assert contexts[1, 0] == ((), "w6", ())


def test_common_prefixes_of_lines_count_once() -> None:
    lstm = make_lstm("one layer, tied")
    line = make_ids(6)
    lines = [line, line, line[:4], np.append(line, np.int32(9))]
    result = find_top_activations(lstm, lines, 0, 0, top_n=99)
    assert result.num_tokens == 6 + 6 + 4 + 7
    assert sorted(example.position for example in result.highest) == list(range(7))


def test_recording_a_found_line_gives_the_same_value() -> None:
    lstm = make_lstm("two layers of 10 and 6")
    lines = make_lines(30, seed=3)
    for example in find_top_activations(lstm, lines, 1, 2, "output").highest:
        values = unit_activations(record_activations(lstm, lines[example.line_index]), 1, 2, "output")
        assert values[example.position] == pytest.approx(example.value, abs=1e-5)


def test_a_cancelled_search_returns_the_tokens_read_so_far() -> None:
    lstm = make_lstm("one layer, tied")
    lines = [make_ids(10, seed) for seed in range(activations.BATCH_SIZE + 5)]
    num_calls = 0

    def after_three() -> bool:
        nonlocal num_calls
        num_calls += 1
        return num_calls > 3

    result = find_top_activations(lstm, lines, 0, 0, cancelled=after_three)
    assert 0 < result.num_tokens < activations.BATCH_SIZE * 10
    assert all(example.position < 10 for example in result.highest)
    top = result.highest[0]
    expected = reference_activations(lstm, lines[top.line_index])[0]["cell"][top.position, 0]
    assert top.value == pytest.approx(expected, abs=2e-5)
    assert find_top_activations(lstm, lines, 0, 0, cancelled=lambda: True).num_tokens < result.num_tokens


def test_an_empty_corpus_has_no_examples() -> None:
    lstm = make_lstm("one layer, tied")
    for lines in ([], [make_ids(0)]):
        result = find_top_activations(lstm, lines, 0, 0)
        assert (result.highest, result.lowest, result.num_tokens) == ((), (), 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer": 2}, "layer 2 is out of range; use a whole number from 0 to 1"),
        ({"layer": -1}, "layer -1"),
        ({"layer": 0, "unit": 10}, "unit 10 is out of range; use a whole number from 0 to 9"),
        ({"layer": 1, "unit": 6}, "unit 6 is out of range; use a whole number from 0 to 5"),
        ({"unit": -1}, "unit -1"),
        (
            {"activation": "memory"},
            "unknown activation 'memory'; use one of input, forget, output, candidate, cell, hidden",
        ),
    ],
    ids=str,
)
def test_invalid_arguments_are_named(values: dict[str, Any], message: str) -> None:
    lstm = make_lstm("two layers of 10 and 6")
    arguments: dict[str, Any] = {"layer": 0, "unit": 0, "activation": "cell"} | values
    with pytest.raises(InvalidInputError, match=message):
        find_top_activations(lstm, [make_ids(3)], **arguments)
    with pytest.raises(InvalidInputError, match=message):
        unit_activations(record_activations(lstm, make_ids(3)), **arguments)
