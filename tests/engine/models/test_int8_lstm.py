"""The numpy LSTM with matrices that are stored in 8 bits, against a plain computation in double precision."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID
from engine.errors import RunError
from engine.models.base import advance_batch
from engine.models.numpy_lstm import NumpyLSTM, weight_shapes
from engine.models.weight_checks import MAX_SCALE
from engine.storage.quantization import Int8Rows, quantize_rows
from engine.storage.tensor_file import StoredTensor
from tests.support.models import make_tokenizer, random_ids

pytest.importorskip("numkong")

SIZE = 37
TOKENIZER = make_tokenizer(SIZE)
CONFIGS = {
    "tied": ModelConfig(embedding_size=12, hidden_size=12, punctuation=False),
    "untied, two layers": ModelConfig(
        embedding_size=16, hidden_size=9, num_layers=2, tie_weights=False, punctuation=False
    ),
}


def make_tensors(config: ModelConfig, seed: int = 0) -> dict[str, StoredTensor]:
    """Return random tensors, all matrices in 8 bits."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, StoredTensor] = {}
    for name, shape in weight_shapes(config, SIZE).items():
        values = rng.normal(0, 0.5, shape).astype(np.float32)
        tensors[name] = quantize_rows(values) if len(shape) == 2 else values
    return tensors


def to_float32(tensors: Mapping[str, StoredTensor]) -> dict[str, np.ndarray]:
    return {name: tensor.to_float32() if isinstance(tensor, Int8Rows) else tensor for name, tensor in tensors.items()}


def reference_log_probs(config: ModelConfig, weights: Mapping[str, np.ndarray], ids: Sequence[int]) -> np.ndarray:
    """Return the log-probabilities after each token; in products, hidden states are rounded to 127 steps."""

    def rounded(vector: np.ndarray) -> np.ndarray:
        step = max(np.abs(vector).max(), 1e-20) / 127
        return np.rint(vector / step) * step

    def sigmoid(values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-values))

    tensors = {name: value.astype(np.float64) for name, value in weights.items()}
    sizes = [size for _, size in config.layer_sizes()]
    hiddens, cells = [np.zeros(size) for size in sizes], [np.zeros(size) for size in sizes]
    rows = []
    for token in ids:
        inputs = tensors["embedding.weight"][token]
        for i in range(len(sizes)):
            gates = tensors[f"layers.{i}.weight_ih_l0"] @ inputs + tensors[f"layers.{i}.bias_ih_l0"]
            gates += tensors[f"layers.{i}.weight_hh_l0"] @ rounded(hiddens[i]) + tensors[f"layers.{i}.bias_hh_l0"]
            input_, forget, candidate, output = np.split(gates, 4)  # PyTorch's order
            cells[i] = sigmoid(forget) * cells[i] + sigmoid(input_) * np.tanh(candidate)
            hiddens[i] = sigmoid(output) * np.tanh(cells[i])
            inputs = rounded(hiddens[i])
        output_weight = tensors.get("output.weight", tensors["embedding.weight"])
        logits = output_weight @ inputs + tensors["output.bias"]
        rows.append(logits - np.log(np.exp(logits).sum()))
    return np.stack(rows)


@pytest.mark.parametrize("name", CONFIGS)
def test_log_probs_match_a_plain_computation(name: str) -> None:
    config, tensors = CONFIGS[name], make_tensors(CONFIGS[name])
    lstm = NumpyLSTM(config, TOKENIZER, tensors)
    ids = [EOS_ID, *random_ids(8, SIZE).tolist()]
    expected = reference_log_probs(config, to_float32(tensors), ids)
    state, rows = lstm.start(), []
    for token in ids:
        log_probs, state = lstm.advance(state, token)
        rows.append(log_probs)
    assert np.stack(rows) == pytest.approx(expected, abs=0.02)  # a hidden state can be rounded to the next step
    assert np.median(np.abs(np.stack(rows) - expected)) < 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_stored_weights_are_restored_exactly(name: str) -> None:
    tensors = make_tensors(CONFIGS[name])
    lstm = NumpyLSTM(CONFIGS[name], TOKENIZER, tensors)
    expected = to_float32(tensors)
    assert lstm.weights.keys() == expected.keys()
    assert all(np.array_equal(lstm.weights[name], expected[name]) for name in expected)
    assert all(value.dtype == np.float32 for value in lstm.weights.values())
    for tensor_name, tensor in lstm.tensors.items():
        assert type(tensor) is type(tensors[tensor_name])
        assert all(map(np.array_equal, tensor, tensors[tensor_name])), tensor_name
    assert (lstm.has_int8_weights, lstm.int8) == (True, False)
    assert not NumpyLSTM(CONFIGS[name], TOKENIZER, lstm.weights).has_int8_weights


@pytest.mark.parametrize("name", CONFIGS)
def test_texts_that_are_read_together_get_the_same_log_probs(name: str) -> None:
    lstm = NumpyLSTM(CONFIGS[name], TOKENIZER, make_tensors(CONFIGS[name]))
    states = [lstm.advance(lstm.start(), token)[1] for token in (3, 8, 21)]
    for (log_probs, _), state, token in zip(advance_batch(lstm, states, [5, 6, 7]), states, (5, 6, 7), strict=True):
        assert log_probs == pytest.approx(lstm.advance(state, token)[0], abs=1e-5)


def test_a_punctuation_softmax_may_be_stored_in_8_bits() -> None:
    config = ModelConfig(embedding_size=8, hidden_size=8, punctuation=True)
    tensors = make_tensors(config)
    exact, rounded = (NumpyLSTM(config, TOKENIZER, weights) for weights in (to_float32(tensors), tensors))
    ids = random_ids(9, SIZE)
    assert rounded.score_sequence(ids) == pytest.approx(exact.score_sequence(ids), abs=0.1)


def test_one_matrix_in_8_bits_among_others_in_single_precision_is_played() -> None:
    config = CONFIGS["tied"]
    tensors, ids = make_tensors(config), random_ids(9, SIZE)
    exact = NumpyLSTM(config, TOKENIZER, to_float32(tensors)).score_sequence(ids)
    for name in (name for name in tensors if isinstance(tensors[name], Int8Rows)):
        mixed = NumpyLSTM(config, TOKENIZER, {**to_float32(tensors), name: tensors[name]})
        assert mixed.score_sequence(ids) == pytest.approx(exact, abs=0.1), name
        assert np.array_equal(mixed.weights[name], to_float32(tensors)[name])


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 2 * MAX_SCALE])
@pytest.mark.parametrize("name", ["embedding.weight", "layers.0.weight_hh_l0"])
def test_a_scale_that_is_not_finite_negative_or_huge_is_refused(name: str, value: float) -> None:
    tensors = make_tensors(CONFIGS["tied"])
    rows = tensors[name]
    assert isinstance(rows, Int8Rows)
    rows.scales[2] = value
    with pytest.raises(RunError, match=rf"{name}\.scale holds values that are negative, not finite or beyond"):
        NumpyLSTM(CONFIGS["tied"], TOKENIZER, tensors)


def test_the_largest_scales_that_are_accepted_give_finite_log_probs() -> None:
    rng = np.random.default_rng(0)
    for config in CONFIGS.values():
        tensors = {
            name: Int8Rows(
                np.where(rng.random(shape) < 0.5, -128, 127).astype(np.int8), np.full(shape[0], MAX_SCALE, np.float32)
            )
            if len(shape) == 2
            else np.zeros(shape, np.float32)
            for name, shape in weight_shapes(config, SIZE).items()
        }
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            assert np.isfinite(NumpyLSTM(config, TOKENIZER, tensors).score_sequence(random_ids(20, SIZE))).all()
