"""Weights of the numpy Transformer: matrices in 8 bits, and tensors that are damaged, missing or unknown."""

import numpy as np
import pytest

from engine.errors import ConfigError, RunError
from engine.models.numpy_transformer import MAX_TRANSFORMER_WEIGHT, NumpyTransformer
from engine.storage.quantization import Int8Rows, quantize_rows
from engine.storage.tensor_file import StoredTensor
from tests.support.models import random_ids
from tests.support.numpy_transformer import (
    CONFIGS,
    VOCABULARY,
    VOCABULARY_SIZE,
    make_config,
    random_weights,
    token_by_token,
)


@pytest.mark.parametrize("is_stored", [False, True])
def test_8_bits_are_close_to_single_precision(is_stored: bool) -> None:
    config = make_config(embedding_size=48, num_heads=4)
    weights = random_weights(config, scale=0.1)
    exact = NumpyTransformer(config, VOCABULARY, weights)
    tensors: dict[str, StoredTensor] = {
        name: quantize_rows(value) if is_stored and value.ndim == 2 else value for name, value in weights.items()
    }
    int8 = NumpyTransformer(config, VOCABULARY, tensors, int8=not is_stored)
    assert int8.has_int8_weights == is_stored
    assert int8.int8 != is_stored
    ids = random_ids(100, VOCABULARY_SIZE)
    difference = int8.score_sequence(ids) - exact.score_sequence(ids)
    assert 0 < np.abs(difference).max() < 0.1
    assert token_by_token(int8, ids)[0] == pytest.approx(int8.predict_tokens(int8.start(), ids.tolist())[0], abs=0.02)
    for name, tensor in int8.tensors.items():
        expected = tensors[name]
        if isinstance(expected, Int8Rows):
            assert isinstance(tensor, Int8Rows)
            assert np.array_equal(tensor.values, expected.values)
            assert np.array_equal(tensor.scales, expected.scales)
        else:
            assert np.array_equal(tensor, expected)


@pytest.mark.parametrize("quantize", [False, True])
def test_matrices_of_one_layer_can_be_stored_in_different_precisions(quantize: bool) -> None:
    config = make_config()
    weights: dict[str, StoredTensor] = dict(random_weights(config, scale=0.1))
    name = "model.layers.0.self_attn.k_proj.weight"
    exact = NumpyTransformer(config, VOCABULARY, weights)
    mixed = weights | {name: quantize_rows(exact.weights[name])}
    model = NumpyTransformer(config, VOCABULARY, mixed, int8=quantize)
    assert isinstance(model.tensors[name], Int8Rows)
    ids = random_ids(30, VOCABULARY_SIZE)
    assert model.score_sequence(ids) == pytest.approx(exact.score_sequence(ids), abs=0.1)
    for other, tensor in weights.items():
        assert other == name or np.array_equal(model.tensors[other], tensor)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2 * MAX_TRANSFORMER_WEIGHT])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"])
def test_damaged_weights_are_refused(name: str, value: float) -> None:
    weights = random_weights(make_config())
    weights[name].flat[3] = value
    with pytest.raises(RunError, match=f"{name} .*the run is damaged"):
        NumpyTransformer(make_config(), VOCABULARY, weights)


def test_missing_and_unknown_tensors_are_refused() -> None:
    weights = random_weights(make_config())
    with pytest.raises(RunError, match=r"lacks model\.norm\.weight"):
        NumpyTransformer(
            make_config(), VOCABULARY, {name: w for name, w in weights.items() if name != "model.norm.weight"}
        )
    with pytest.raises(RunError, match=r"lm_head\.weight"):
        NumpyTransformer(make_config(), VOCABULARY, weights | {"lm_head.weight": weights["model.norm.weight"]})
    with pytest.raises(ConfigError, match="num_heads=5"):
        NumpyTransformer(make_config(num_heads=5), VOCABULARY, weights)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("name", CONFIGS)
def test_the_largest_weights_that_are_accepted_give_finite_log_probs(name: str) -> None:
    config, rng = make_config(name, context_size=8), np.random.default_rng(0)
    weights = {
        name: np.copysign(np.float32(MAX_TRANSFORMER_WEIGHT), rng.standard_normal(weight.shape, np.float32))
        for name, weight in random_weights(config).items()
    }
    model = NumpyTransformer(config, VOCABULARY, weights)
    ids = random_ids(20, VOCABULARY_SIZE)
    assert np.isfinite(token_by_token(model, ids)[0]).all()
    assert np.isfinite(model.score_sequence(ids)).all()
