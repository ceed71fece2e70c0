"""Products with matrices that are stored in strips or quantized to 8 bits, against plain products."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.arrays import Float32Array
from engine.errors import InvalidInputError
from engine.models.matmul import Float32Matrix, Int8Matrix
from engine.storage.quantization import quantize_rows

SHAPES = st.tuples(st.integers(1, 200), st.integers(1, 40))
BATCHES = st.lists(st.integers(1, 9), max_size=2)


def random_array(shape: tuple[int, ...], seed: int) -> Float32Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(deadline=None)
@given(SHAPES, BATCHES, st.integers(0, 99))
def test_float32_products_match_plain_products(shape: tuple[int, int], batch: list[int], seed: int) -> None:
    matrix, vectors = random_array(shape, seed), random_array((*batch, shape[1]), seed + 100)
    products = Float32Matrix(matrix).matmul(vectors)
    assert products.dtype == np.float32
    assert products.shape == (*batch, shape[0])
    assert products == pytest.approx(vectors.astype(np.float64) @ matrix.T, abs=1e-4)


def test_later_products_do_not_overwrite_a_result() -> None:
    vectors = random_array((3, 20), 1)
    matrix = Float32Matrix(random_array((70, 20), 0))
    kept = matrix.matmul(vectors)
    before = kept.copy()
    matrix.matmul(vectors)[:] = 7
    matrix.matmul(2 * vectors)
    assert np.array_equal(kept, before)
    assert np.array_equal(matrix.matmul(vectors), before)


@pytest.mark.parametrize("num_vectors", [1, 2, 9, 16, 17, 50, 64, 65])
def test_products_match_plain_products_for_all_batch_sizes(num_vectors: int) -> None:
    matrix, vectors = random_array((150, 300), 0), random_array((num_vectors, 300), 1)
    assert Float32Matrix(matrix).matmul(vectors) == pytest.approx(vectors.astype(np.float64) @ matrix.T, abs=1e-3)


@settings(deadline=None)
@given(SHAPES, BATCHES, st.integers(0, 99))
def test_int8_error_is_bounded_by_the_rounding(shape: tuple[int, int], batch: list[int], seed: int) -> None:
    pytest.importorskip("numkong")
    matrix, vectors = random_array(shape, seed), random_array((*batch, shape[1]), seed + 100)
    products = Int8Matrix(quantize_rows(matrix)).matmul(vectors)
    exact = vectors.astype(np.float64) @ matrix.T
    assert products.dtype == np.float32
    assert products.shape == exact.shape
    # Each factor is off by half a step at most, 1 / 254 of the largest value in its row or vector.
    vector_peaks, row_peaks = np.abs(vectors).max(axis=-1, keepdims=True), np.abs(matrix).max(axis=1)
    bound = shape[1] * vector_peaks * row_peaks * (1 / 127 + 1 / 254**2) + 1e-5
    assert (np.abs(products - exact) <= bound).all()


def test_int8_products_of_small_integers_are_exact() -> None:
    pytest.importorskip("numkong")
    matrix = np.array([[127, 5, -127], [-3, 127, 0]], np.float32)
    expected = [127 * 127 + 5 + 254, -3 * 127 + 127]
    assert Int8Matrix(quantize_rows(matrix)).matmul(np.array([127, 1, -2], np.float32)).tolist() == expected
    assert Int8Matrix(quantize_rows(matrix)).matmul(np.zeros((2, 3), np.float32)).tolist() == [[0, 0], [0, 0]]
    assert Int8Matrix(quantize_rows(np.zeros((2, 3), np.float32))).matmul(np.ones(3, np.float32)).tolist() == [0, 0]


def test_int8_without_numkong_is_an_error_that_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numkong", None)
    with pytest.raises(InvalidInputError, match="pip install numkong"):
        Int8Matrix(quantize_rows(np.ones((2, 2), np.float32)))
