"""LSTM steps against a plain cell in double precision, computed from the raw weights."""

import numpy as np
import pytest

from engine.analysis.activations import find_lstm, record_activations
from engine.analysis.lstm_steps import UnitStep, liveliest_unit, read_steps
from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from tests.support.models import make_tokenizer, random_ids, random_lstm
from tests.support.plain_lstm import plain_cells

SIZE = 23
TWO_LAYERS = ModelConfig(embedding_size=6, hidden_size=10, num_layers=2)


def make_lstm(seed: int = 0) -> NumpyLSTM:
    return random_lstm(TWO_LAYERS, make_tokenizer(SIZE), seed, scale=0.8)


def test_steps_match_a_plain_cell() -> None:
    lstm, tokens = make_lstm(), [EOS_ID, *random_ids(12, SIZE).tolist()]
    for step, rows in zip(read_steps(lstm, tokens), plain_cells(lstm, tokens), strict=True):
        for layer, row in enumerate(rows):
            for unit in range(len(row["cell"])):
                values = step.unit(layer, unit)
                for name in UnitStep.__dataclass_fields__:
                    assert getattr(values, name) == pytest.approx(row[name][unit], abs=1e-5), name


def test_bundled_steps_match_their_dequantized_weights() -> None:
    """The products are computed in 8 bits, so they differ a little from those of the dequantized weights."""
    lstm = load_model(assets_dir() / "class" / "lstm").model
    assert isinstance(lstm, NumpyLSTM)
    tokens = [EOS_ID, *lstm.tokenizer.encode("they are taking the hobbits to").tolist()]
    for step, rows in zip(read_steps(lstm, tokens), plain_cells(lstm, tokens), strict=True):
        for unit in range(0, 200, 7):
            values = step.unit(0, unit)
            for name in UnitStep.__dataclass_fields__:
                assert getattr(values, name) == pytest.approx(rows[0][name][unit], abs=0.05), name


@pytest.mark.parametrize("run", ["class/lstm", "model"])
def test_equation_holds_for_each_unit(run: str) -> None:
    lstm = find_lstm(load_model(assets_dir() / run).model)
    assert lstm is not None
    for step in read_steps(lstm, [EOS_ID, *lstm.tokenizer.encode("Where is the Ring?").tolist()]):
        for unit in range(len(step.gates[0]) // 4):
            values = step.unit(0, unit)
            cell = values.forget * values.cell_before + values.input * values.candidate
            assert values.cell == pytest.approx(cell, abs=1e-5)
            assert values.hidden == pytest.approx(values.output * np.tanh(values.cell), abs=1e-5)


def test_steps_are_the_activations_of_a_line() -> None:
    lstm, ids = make_lstm(), random_ids(9, SIZE)
    layers = record_activations(lstm, ids)
    for row, step in enumerate(read_steps(lstm, [EOS_ID, *ids.tolist()])[1:]):
        for layer in range(2):
            values = step.unit(layer, 3)
            for name in ("input", "forget", "output", "candidate", "cell", "hidden"):
                assert getattr(values, name) == layers[layer].get(name)[row, 3]


def test_known_steps_are_reused_up_to_the_first_other_token() -> None:
    lstm = make_lstm()
    known = read_steps(lstm, [1, 4, 5, 6])
    steps = read_steps(lstm, [1, 4, 7, 6], known)
    assert steps[:2] == known[:2]
    assert [step.token for step in steps] == [1, 4, 7, 6]
    fresh = read_steps(lstm, [1, 4, 7, 6])
    for layer in range(2):
        assert np.array_equal(steps[-1].after.layers[layer][1], fresh[-1].after.layers[layer][1])
    assert [step.token for step in read_steps(lstm, [1], known)] == [1]


def test_liveliest_unit_has_the_longest_way() -> None:
    lstm, tokens = make_lstm(3), [EOS_ID, *random_ids(8, SIZE, 2).tolist()]
    rows = plain_cells(lstm, tokens)
    ways = {
        (layer, unit): sum(abs(row[layer]["cell"][unit] - row[layer]["cell_before"][unit]) for row in rows)
        for layer in range(2)
        for unit in range(len(rows[0][layer]["cell"]))
    }
    assert liveliest_unit(read_steps(lstm, tokens)) == max(ways, key=lambda key: ways[key])
