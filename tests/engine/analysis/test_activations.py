"""Gates against the LSTM's equations written out in double precision, and against torch's own cell."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from engine.analysis.activations import BATCH, PARTS, Part, along, extremes, gates, lstm_of
from engine.config import ModelConfig
from engine.data.vocabulary import EOS_ID, Ids, Vocabulary
from engine.errors import UnusableInput
from engine.models.base import LanguageModel
from engine.models.cache import Cache, CacheSettings
from engine.models.mixture import Mixture
from engine.models.ngram import KneserNey, Unigram
from engine.models.numpy_lstm import Decoder, weight_shapes

SIZE = 23
VOCABULARY = Vocabulary(("<unk>", "<eos>", *(f"w{i}" for i in range(SIZE - 2))))
CONFIGS = {
    "one layer, tied": ModelConfig(embedding_size=7, hidden_size=7),
    "two layers of 10 and 6": ModelConfig(embedding_size=6, hidden_size=10, layers=2),
    "three layers, untied": ModelConfig(embedding_size=5, hidden_size=8, layers=3, tied=False),
}
Doubles = npt.NDArray[np.float64]


def make(config: ModelConfig, seed: int = 0) -> Decoder:
    """With weights large enough for gates to leave their linear range."""
    chance = np.random.default_rng(seed)
    shapes = weight_shapes(config, SIZE)
    weights = {name: chance.normal(0, 0.8, shape).astype(np.float32) for name, shape in shapes.items()}
    return Decoder(config, VOCABULARY, weights)


@pytest.fixture(params=list(CONFIGS))
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return make(CONFIGS[request.param])


def text(length: int, seed: int = 0) -> Ids:
    return np.random.default_rng(seed).integers(0, SIZE, length).astype(np.int32)


def sigmoid(x: Doubles) -> Doubles:
    return 1 / (1 + np.exp(-x))


def by_equations(decoder: Decoder, ids: Ids) -> list[dict[str, Doubles]]:
    """Every part of every layer `[time, hidden]`: torch.nn.LSTM's documented equations, one after the other."""
    weights = {name: value.astype(np.float64) for name, value in decoder.weights.items()}
    sequence = weights["embedding.weight"][[EOS_ID, *ids]]
    layers = []
    for i, (_, size) in enumerate(decoder.config.layer_sizes()):
        into, again, bias_into, bias_again = (
            weights[f"layers.{i}.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h, c = np.zeros(size), np.zeros(size)
        rows: dict[str, list[Doubles]] = {part: [] for part in PARTS}
        for x in sequence:
            sums = [into[k : k + size] @ x + bias_into[k : k + size] for k in range(0, 4 * size, size)]
            sums = [s + again[k * size : (k + 1) * size] @ h for k, s in enumerate(sums)]
            sums = [s + bias_again[k * size : (k + 1) * size] for k, s in enumerate(sums)]
            i_, f, g, o = sigmoid(sums[0]), sigmoid(sums[1]), np.tanh(sums[2]), sigmoid(sums[3])
            c = f * c + i_ * g
            h = o * np.tanh(c)
            for part, value in zip(PARTS, (i_, f, o, g, c, h), strict=True):
                rows[part].append(value)
        layers.append({part: np.array(values)[1:] for part, values in rows.items()})
        sequence = np.array(rows["hidden"])
    return layers


def test_every_part_of_every_layer_is_the_equations(decoder: Decoder) -> None:
    ids = text(40)
    layers, expected = gates(decoder, ids), by_equations(decoder, ids)
    assert len(layers) == len(expected) == decoder.config.layers
    for layer, true in zip(layers, expected, strict=True):
        for part in PARTS:
            assert layer.part(part).shape == true[part].shape
            assert layer.part(part).dtype == np.float32
            assert layer.part(part) == pytest.approx(true[part], abs=2e-5), part


@torch.no_grad()
def test_cells_and_hidden_values_are_those_of_torch(decoder: Decoder) -> None:
    ids = text(40)
    sequence = torch.from_numpy(decoder.weights["embedding.weight"]).double()[[EOS_ID, *ids.tolist()]]
    for i, ((inputs, size), layer) in enumerate(zip(decoder.config.layer_sizes(), gates(decoder, ids), strict=True)):
        cell = torch.nn.LSTMCell(inputs, size, dtype=torch.float64)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(cell, name).copy_(torch.from_numpy(decoder.weights[f"layers.{i}.{name}_l0"]))
        states = [cell(sequence[:1])]
        for x in sequence[1:]:
            states.append(cell(x[None], states[-1]))
        hidden, cells = (torch.cat(values) for values in zip(*states, strict=True))
        assert layer.cell == pytest.approx(cells[1:].numpy(), abs=2e-5)
        assert layer.hidden == pytest.approx(hidden[1:].numpy(), abs=2e-5)
        sequence = hidden


def test_a_row_is_after_its_word_was_read(decoder: Decoder) -> None:
    ids = text(12)
    layers = gates(decoder, ids)
    _, state = decoder.advance(decoder.start(), EOS_ID)
    for position, token in enumerate(ids.tolist()):
        _, state = decoder.advance(state, token)
        for layer, (hidden, cell) in zip(layers, state, strict=True):
            assert np.array_equal(layer.hidden[position], hidden)
            assert np.array_equal(layer.cell[position], cell)


def test_no_word_no_row(decoder: Decoder) -> None:
    layers = gates(decoder, [])
    assert [layer.forget.shape for layer in layers] == [(0, size) for _, size in decoder.config.layer_sizes()]


def test_texts_read_side_by_side_are_each_alone(decoder: Decoder) -> None:
    texts = [text(9, seed) for seed in range(5)]
    sizes = [size for _, size in decoder.config.layer_sizes()]
    state = tuple((np.zeros((5, size), np.float32), np.zeros((5, size), np.float32)) for size in sizes)
    alone = [decoder.start()] * 5
    for tokens in np.stack(texts, axis=1):
        seen, state = decoder.read(state, tokens)
        read = [decoder.read(its, int(token)) for its, token in zip(alone, tokens, strict=True)]
        alone = [its for _, its in read]
        for layer in range(len(sizes)):
            assert seen[layer] == pytest.approx(np.stack([its[layer] for its, _ in read]), abs=1e-5)
            assert state[layer][0] == pytest.approx(np.stack([its[layer][0] for its in alone]), abs=1e-5)
            assert state[layer][1] == pytest.approx(np.stack([its[layer][1] for its in alone]), abs=1e-5)


def test_the_first_layers_can_be_read_alone() -> None:
    decoder = make(CONFIGS["three layers, untied"])
    all_gates, state = decoder.read(decoder.start(), 5)
    some_gates, some = decoder.read(decoder.start()[:2], 5)
    assert len(some_gates) == len(some) == 2
    for layer in range(2):
        assert np.array_equal(some_gates[layer], all_gates[layer])
        assert np.array_equal(some[layer][1], state[layer][1])


def test_one_unit_along_a_text() -> None:
    decoder = make(CONFIGS["two layers of 10 and 6"])
    ids = text(15)
    layers, expected = gates(decoder, ids), by_equations(decoder, ids)
    for part in PARTS:
        assert along(layers, 0, 9, part) == pytest.approx(expected[0][part][:, 9], abs=2e-5)
        assert along(layers, 1, 5, part) == pytest.approx(expected[1][part][:, 5], abs=2e-5)
    assert np.array_equal(along(layers, 1, 2), along(layers, 1, 2, "cell"))


# --- the words that drive a unit ------------------------------------------------------------------------------


def ranked(decoder: Decoder, lines: list[Ids], layer: int, unit: int, which: Part) -> list[tuple[float, int, int]]:
    """Value, line and position of all words, lowest first; of lines that begin alike the first one."""
    seen, found = set(), []
    for number, line in enumerate(lines):
        values = by_equations(decoder, line)[layer][which][:, unit]
        for position, value in enumerate(values):
            if (read := tuple(line[: position + 1])) not in seen:
                seen.add(read)
                found.append((float(value), number, position))
    return sorted(found)


def corpus(number: int, seed: int) -> list[Ids]:
    chance = np.random.default_rng(seed)
    return [text(int(chance.integers(1, 15)), 100 * seed + i) for i in range(number)]


@pytest.mark.parametrize("which", PARTS)
@pytest.mark.parametrize("number", [1, BATCH + 20])
def test_extremes_are_those_of_a_search_word_by_word(decoder: Decoder, which: Part, number: int) -> None:
    lines = corpus(number, seed=number)
    for layer, (_, size) in enumerate(decoder.config.layer_sizes()):
        unit = size - 1
        expected = ranked(decoder, lines, layer, unit, which)
        found = extremes(decoder, lines, layer, unit, which, most=5)
        assert found.words == sum(map(len, lines))
        for side, true in ((found.lowest, expected[:5]), (found.highest, expected[::-1][:5])):
            assert [item.value for item in side] == pytest.approx([value for value, _, _ in true], abs=2e-5)
            # Lines that begin alike differ by rounding, so that any of them may be the one that is named.
            by_words = {tuple(lines[line][: position + 1]): value for value, line, position in expected}
            named = [tuple(lines[item.line][: item.position + 1]) for item in side]
            assert len(set(named)) == len(named)
            assert [item.value for item in side] == pytest.approx([by_words[words] for words in named], abs=2e-5)


def test_what_stands_around_a_word() -> None:
    decoder = make(CONFIGS["one layer, tied"])
    lines = [np.array([2, 3, 4, 5, 6, 7], np.int32), np.array([8], np.int32)]
    found = extremes(decoder, lines, 0, 0, most=99, context=2)
    assert len(found.highest) == len(found.lowest) == 7
    assert found.highest == found.lowest[::-1]
    around = {(item.line, item.position): (item.before, item.word, item.after) for item in found.highest}
    assert around[0, 0] == ((), "w0", ("w1", "w2"))
    assert around[0, 3] == (("w1", "w2"), "w3", ("w4", "w5"))
    assert around[0, 5] == (("w3", "w4"), "w5", ())
    assert around[1, 0] == ((), "w6", ())


def test_what_lines_have_in_common_counts_once() -> None:
    decoder = make(CONFIGS["one layer, tied"])
    line = text(6)
    lines = [line, line, line[:4], np.append(line, np.int32(9))]
    found = extremes(decoder, lines, 0, 0, most=99)
    assert found.words == 6 + 6 + 4 + 7
    assert sorted(item.position for item in found.highest) == list(range(7))


def test_a_line_found_can_be_typed_in_and_seen_again() -> None:
    decoder = make(CONFIGS["two layers of 10 and 6"])
    lines = corpus(30, seed=3)
    for item in extremes(decoder, lines, 1, 2, "output").highest:
        again = along(gates(decoder, lines[item.line]), 1, 2, "output")
        assert again[item.position] == pytest.approx(item.value, abs=1e-5)


def test_cancelled_it_tells_what_it_read() -> None:
    decoder = make(CONFIGS["one layer, tied"])
    lines = [text(10, seed) for seed in range(BATCH + 5)]
    asked = 0

    def after_three() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    found = extremes(decoder, lines, 0, 0, cancelled=after_three)
    assert 0 < found.words < BATCH * 10
    assert all(item.position < 10 for item in found.highest)
    true = by_equations(decoder, lines[found.highest[0].line])[0]["cell"][found.highest[0].position, 0]
    assert found.highest[0].value == pytest.approx(true, abs=2e-5)
    assert extremes(decoder, lines, 0, 0, cancelled=lambda: True).words < found.words


def test_a_corpus_without_words() -> None:
    decoder = make(CONFIGS["one layer, tied"])
    for lines in ([], [text(0)]):
        found = extremes(decoder, lines, 0, 0)
        assert (found.highest, found.lowest, found.words) == ((), (), 0)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"layer": 2}, "layer 2 is out of range; use a whole number from 0 to 1"),
        ({"layer": -1}, "layer -1"),
        ({"layer": 0, "unit": 10}, "unit 10 is out of range; use a whole number from 0 to 9"),
        ({"layer": 1, "unit": 6}, "unit 6 is out of range; use a whole number from 0 to 5"),
        ({"unit": -1}, "unit -1"),
        ({"which": "memory"}, "no 'memory'; use one of input, forget, output, candidate, cell, hidden"),
    ],
    ids=str,
)
def test_what_there_is_not_is_named(values: dict[str, Any], named: str) -> None:
    decoder = make(CONFIGS["two layers of 10 and 6"])
    asked: dict[str, Any] = {"layer": 0, "unit": 0, "which": "cell"} | values
    with pytest.raises(UnusableInput, match=named):
        extremes(decoder, [text(3)], **asked)
    with pytest.raises(UnusableInput, match=named):
        along(gates(decoder, text(3)), **asked)


# --- which models have an inside --------------------------------------------------------------------------------

LSTM = make(CONFIGS["one layer, tied"])
OTHER = make(CONFIGS["two layers of 10 and 6"], seed=1)
COUNTS = KneserNey(text(200), VOCABULARY, order=3)


class Learning:
    """Stands for a model that changes while it reads."""

    vocabulary = VOCABULARY
    decoder = LSTM

    def start(self) -> None: ...

    def advance(self, state: None, token: int) -> tuple[npt.NDArray[np.float32], None]:
        return LSTM.advance(LSTM.start(), token)[0], None


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LSTM, LSTM),
        (Cache(LSTM, CacheSettings()), LSTM),
        (Mixture([LSTM, COUNTS], [0.6, 0.4]), LSTM),
        (Mixture([COUNTS, LSTM], [0.6, 0.4]), LSTM),
        (Mixture([OTHER, LSTM], [0.5, 0.5]), OTHER),
        (Cache(Mixture([LSTM, COUNTS], [0.6, 0.4]), CacheSettings()), LSTM),
        (Learning(), LSTM),
        (Cache(Mixture([Learning(), COUNTS], [0.6, 0.4]), CacheSettings()), LSTM),
        (COUNTS, None),
        (Unigram(text(50), VOCABULARY), None),
        (Cache(COUNTS, CacheSettings()), None),
        (Mixture([COUNTS, COUNTS], [0.5, 0.5]), None),
    ],
    ids=[
        "LSTM",
        "cache",
        "mixture",
        "mixture, counts first",
        "ensemble",
        "cache on mixture",
        "learning",
        "cache on learning",
        "Kneser-Ney",
        "unigram",
        "cache on Kneser-Ney",
        "mixture of Kneser-Ney",
    ],
)
def test_the_lstm_in_a_model(model: LanguageModel, expected: Decoder | None) -> None:
    assert lstm_of(model) is expected
