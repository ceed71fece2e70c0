"""The numpy LSTM against the PyTorch LSTM with the same weights, in 32 and in 8 bits, and its matrix products."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers import EOS_ID, WordTokenizer
from engine.errors import RunError
from engine.models.base import forward_sequence, score_sequence
from engine.models.lstm import LSTMModel
from engine.models.numpy_lstm import MAX_TABLE_SIZE, NumpyLSTM
from engine.models.weights import MAX_WEIGHT, Int8Matrix, weight_shapes
from engine.runs.directory import resolve_run
from engine.runs.loading import load_model
from engine.storage.tensor_file import Int8Rows, quantize_rows, to_float32
from tests.support.models import make_tokenizer, random_ids

VOCABULARY_SIZE = 37
VOCABULARY = make_tokenizer(VOCABULARY_SIZE)
CONFIGS = {
    "one layer, tied": ModelConfig(embedding_size=12, hidden_size=12),
    "two layers, tied, wide": ModelConfig(embedding_size=10, hidden_size=24, num_layers=2),
    "two layers, untied": ModelConfig(embedding_size=16, hidden_size=9, num_layers=2, tie_weights=False),
    "three layers, tied": ModelConfig(embedding_size=8, hidden_size=14, num_layers=3),
    "punctuation": ModelConfig(embedding_size=8, hidden_size=8, punctuation=True),
    "punctuation, untied": ModelConfig(embedding_size=8, hidden_size=8, tie_weights=False, punctuation=True),
    "mogrifier": ModelConfig(embedding_size=9, hidden_size=24, num_layers=2, mogrifier_rounds=5, mogrifier_rank=4),
}


@pytest.fixture(params=list(CONFIGS))
def torch_lstm(request):
    model = make_torch_lstm(request.param, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(8)), alpha=0.4)
    return model


def make_torch_lstm(name, seed=0):
    return LSTMModel(CONFIGS[name], VOCABULARY_SIZE, torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_log_probs_match_pytorch_token_by_token_and_in_one_pass(torch_lstm):
    lstm, ids = torch_lstm.to_decoder(VOCABULARY), random_ids(60, VOCABULARY_SIZE)
    inputs = torch.tensor([EOS_ID, *ids.tolist()])[:, None]
    expected = torch.log_softmax(torch_lstm(inputs, torch_lstm.initial_state(1)).logits, -1)[:, 0].numpy()
    state = lstm.start()
    for token, row in zip(inputs[:, 0].tolist(), expected, strict=True):
        log_probs, state = lstm.advance(state, token)
        assert log_probs.dtype == np.float32
        assert log_probs == pytest.approx(row, abs=1e-4)
    scores = expected[np.arange(60), ids]
    assert forward_sequence(lstm, ids).log_probs == pytest.approx(scores, abs=1e-4)
    assert forward_sequence(torch_lstm, ids).log_probs == pytest.approx(scores, abs=1e-4)


@torch.no_grad()
def test_the_bundled_model_predicts_what_pytorch_predicts():
    """The weights in 8 bits are played within the rounding of their products."""
    run = load_model(resolve_run("lstm"))
    tokenizer, weights = run.decoder.tokenizer, run.decoder.weights
    inputs = np.append(np.int32(EOS_ID), load_dataset(run.config.data, tokenizer).valid[:20])
    model = LSTMModel(run.config.model, len(tokenizer), torch.Generator())
    model.load_weights(weights)
    model.double()
    logits = model(torch.from_numpy(inputs).long()[:, None], model.initial_state(1)).logits
    expected = torch.log_softmax(logits, -1)[:, 0].numpy()
    exact = NumpyLSTM(run.config.model, tokenizer, weights)
    state, rounded_state, errors = exact.start(), run.decoder.start(), []
    for token, row in zip(inputs.tolist(), expected, strict=True):
        log_probs, state = exact.advance(state, token)
        assert log_probs == pytest.approx(row, rel=1e-5, abs=1e-5)
        rounded, rounded_state = run.decoder.advance(rounded_state, token)
        errors.append(rounded - row)
    assert run.decoder.has_int8_weights
    probable = expected > -8
    assert np.abs(np.array(errors)[probable]).max() < 0.5
    assert abs(np.array(errors)[probable].mean()) < 0.02


@pytest.mark.parametrize("config", CONFIGS.values())
def test_the_largest_weights_and_scales_that_are_accepted_give_finite_log_probs(config):
    rng = np.random.default_rng(0)
    weights, int8 = {}, {}
    for name, shape in weight_shapes(config, VOCABULARY_SIZE).items():
        signs = np.sign(rng.standard_normal(shape)).astype(np.float32)
        weights[name] = int8[name] = signs * np.float32(MAX_WEIGHT)
        if len(shape) == 2:
            int8[name] = Int8Rows((signs * 127).astype(np.int8), np.full(shape[0], MAX_WEIGHT / 128, np.float32))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for tensors in (weights, int8):
            lstm = NumpyLSTM(config, VOCABULARY, tensors)
            assert np.isfinite(forward_sequence(lstm, random_ids(20, VOCABULARY_SIZE)).log_probs).all()


def test_later_training_does_not_change_the_numpy_lstm():
    torch_lstm = make_torch_lstm("one layer, tied")
    lstm = torch_lstm.to_decoder(VOCABULARY)
    before = lstm.advance(lstm.start(), EOS_ID)[0]
    with torch.no_grad():
        for parameter in torch_lstm.parameters():
            parameter.mul_(3)
    assert np.array_equal(lstm.advance(lstm.start(), EOS_ID)[0], before)


DAMAGES = {
    "misshapen": lambda tensor: tensor[:-1],
    "transposed": lambda tensor: tensor[None] if tensor.ndim == 1 else tensor.T,
    "nan": lambda tensor: np.where(np.arange(tensor.size).reshape(tensor.shape) == 3, np.float32("nan"), tensor),
    "-3e38": lambda tensor: np.full_like(tensor, -3e38),
    "float64": lambda tensor: tensor.astype(np.float64),
    "integers": lambda tensor: tensor.astype(np.int32),
}


@pytest.mark.parametrize("name", ["embedding.weight", "layers.1.weight_hh_l0", "layers.0.bias_ih_l0", "output.bias"])
def test_damaged_and_missing_tensors_are_refused_by_name(name):
    config, weights = CONFIGS["two layers, untied"], make_torch_lstm("two layers, untied").export_weights()
    for damage in DAMAGES.values():
        with pytest.raises(RunError, match=name.replace(".", r"\.")):
            NumpyLSTM(config, VOCABULARY, weights | {name: damage(weights[name])})
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        NumpyLSTM(config, VOCABULARY, {other: weights[other] for other in weights if other != name})


def test_unknown_tensors_and_a_vocabulary_of_another_size_are_refused():
    lstm = make_torch_lstm("one layer, tied").to_decoder(VOCABULARY)
    with pytest.raises(RunError, match=r"output\.weight"):  # this configuration has tied weights
        NumpyLSTM(lstm.config, VOCABULARY, lstm.weights | {"output.weight": lstm.weights["embedding.weight"]})
    with pytest.raises(RunError, match=r"embedding\.weight"):
        NumpyLSTM(lstm.config, WordTokenizer(VOCABULARY.tokens[:-1]), lstm.weights)


def make_tensors(config):
    """Return random tensors, all matrices in 8 bits."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in weight_shapes(config, VOCABULARY_SIZE).items():
        values = rng.normal(0, 0.5, shape).astype(np.float32)
        tensors[name] = quantize_rows(values) if len(shape) == 2 else values
    return tensors


def all_to_float32(tensors):
    return {name: to_float32(tensor) for name, tensor in tensors.items()}


def test_stored_weights_are_kept_as_they_are():
    config = CONFIGS["two layers, untied"]
    tensors = make_tensors(config)
    lstm = NumpyLSTM(config, VOCABULARY, tensors)
    assert lstm.tensors == tensors
    assert all(np.array_equal(lstm.weights[name], value) for name, value in all_to_float32(tensors).items())
    assert (lstm.has_int8_weights, lstm.int8) == (True, False)
    assert not NumpyLSTM(config, VOCABULARY, lstm.weights).has_int8_weights


@pytest.mark.parametrize("name", CONFIGS)
def test_matrices_in_8_bits_alone_and_together_predict_what_those_in_single_precision_predict(name):
    config, ids = CONFIGS[name], random_ids(9, VOCABULARY_SIZE)
    tensors = make_tensors(config)
    exact = score_sequence(NumpyLSTM(config, VOCABULARY, all_to_float32(tensors)), ids)
    assert score_sequence(NumpyLSTM(config, VOCABULARY, tensors), ids) == pytest.approx(exact, abs=0.1)
    for matrix in (each for each in tensors if isinstance(tensors[each], Int8Rows)):
        mixed = NumpyLSTM(config, VOCABULARY, {**all_to_float32(tensors), matrix: tensors[matrix]})
        assert score_sequence(mixed, ids) == pytest.approx(exact, abs=0.1), matrix


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, MAX_WEIGHT / 64])
@pytest.mark.parametrize("name", ["embedding.weight", "layers.0.weight_hh_l0"])
def test_a_scale_that_is_not_finite_negative_or_huge_is_refused(name, value):
    tensors = make_tensors(CONFIGS["one layer, tied"])
    rows = tensors[name]
    rows.scales[2] = value
    with pytest.raises(RunError, match=rf"{name}\.scale holds values that are negative, not finite or beyond"):
        NumpyLSTM(CONFIGS["one layer, tied"], VOCABULARY, tensors)


SHAPES = st.tuples(st.integers(1, 200), st.integers(1, 40))
BATCHES = st.lists(st.integers(1, 9), max_size=2)


@settings(max_examples=40, deadline=None)
@given(SHAPES, BATCHES, st.integers(0, 99))
def test_int8_error_is_bounded_by_the_rounding(shape, batch, seed):
    rng = np.random.default_rng(seed)
    matrix, vectors = (rng.normal(size=size).astype(np.float32) for size in (shape, (*batch, shape[1])))
    products = Int8Matrix(quantize_rows(matrix)).matmul(vectors)
    exact = vectors.astype(np.float64) @ matrix.T
    assert products.dtype == np.float32
    assert products.shape == exact.shape
    # Each factor is off by half a step at most, 1 / 254 of the largest value in its row or vector.
    vector_peaks, row_peaks = np.abs(vectors).max(axis=-1, keepdims=True), np.abs(matrix).max(axis=1)
    bound = shape[1] * vector_peaks * row_peaks * (1 / 127 + 1 / 254**2) + 1e-5
    assert (np.abs(products - exact) <= bound).all()


def test_a_vocabulary_too_large_for_a_table_of_input_gates_is_scored_the_same():
    words = make_tokenizer(18_000)
    model = LSTMModel(ModelConfig(embedding_size=60, hidden_size=60), len(words), torch.Generator().manual_seed(0))
    ids = np.arange(0, 18_000, 600, dtype=np.int32)
    assert MAX_TABLE_SIZE < 18_000 * 4 * 60
    assert score_sequence(model.to_decoder(words), ids) == pytest.approx(score_sequence(model, ids), abs=1e-5)
