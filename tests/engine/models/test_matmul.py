"""Products with matrices that are cut into strips, or rounded to 8 bits, against plain ones."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UnusableInput
from engine.models.matmul import Float32, Floats, Int8

SHAPES = st.tuples(st.integers(1, 200), st.integers(1, 40))
BATCHES = st.lists(st.integers(1, 9), max_size=2)


def random(shape: tuple[int, ...], seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(deadline=None)
@given(SHAPES, BATCHES, st.integers(0, 99))
def test_products_are_the_plain_ones(shape: tuple[int, int], batch: list[int], seed: int) -> None:
    matrix, vectors = random(shape, seed), random((*batch, shape[1]), seed + 100)
    product = Float32(matrix).times(vectors)
    assert product.dtype == np.float32
    assert product.shape == (*batch, shape[0])
    assert product == pytest.approx(vectors.astype(np.float64) @ matrix.T, abs=1e-4)


def test_a_product_is_the_callers_own() -> None:
    matrix, vector = random((70, 20), 0), random((3, 20), 1)
    product_of = Float32(matrix)
    kept = product_of.times(vector)
    before = kept.copy()
    product_of.times(vector)[:] = 7
    product_of.times(2 * vector)
    assert np.array_equal(kept, before)
    assert np.array_equal(product_of.times(vector), before)


@pytest.mark.parametrize("vectors", [1, 2, 9, 16, 17, 50, 64, 65])
def test_products_are_the_plain_ones_however_many_vectors(vectors: int) -> None:
    matrix, rows = random((150, 300), 0), random((vectors, 300), 1)
    assert Float32(matrix).times(rows) == pytest.approx(rows.astype(np.float64) @ matrix.T, abs=1e-3)


@settings(deadline=None)
@given(SHAPES, BATCHES, st.integers(0, 99))
def test_in_8_bits_a_product_is_off_by_what_was_rounded_at_most(
    shape: tuple[int, int], batch: list[int], seed: int
) -> None:
    pytest.importorskip("numkong")
    matrix, vectors = random(shape, seed), random((*batch, shape[1]), seed + 100)
    product = Int8(matrix).times(vectors)
    exact = vectors.astype(np.float64) @ matrix.T
    assert product.dtype == np.float32
    assert product.shape == exact.shape
    # Each number is off by half a step, a 254th of the largest of its row or column.
    largest, peaks = np.abs(vectors).max(axis=-1, keepdims=True), np.abs(matrix).max(axis=1)
    assert (np.abs(product - exact) <= shape[1] * largest * peaks * (1 / 127 + 1 / 254**2) + 1e-5).all()


def test_whole_numbers_within_8_bits_are_multiplied_exactly() -> None:
    pytest.importorskip("numkong")
    matrix = np.array([[127, 5, -127], [-3, 127, 0]], np.float32)
    assert Int8(matrix).times(np.array([127, 1, -2], np.float32)).tolist() == [127 * 127 + 5 + 254, -3 * 127 + 127]
    assert Int8(matrix).times(np.zeros((2, 3), np.float32)).tolist() == [[0, 0], [0, 0]]
    assert Int8(np.zeros((2, 3), np.float32)).times(np.ones(3, np.float32)).tolist() == [0, 0]


def test_without_numkong_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numkong", None)
    with pytest.raises(UnusableInput, match=r"pip install 'lotr-tui\[int8\]'"):
        Int8(np.ones((2, 2), np.float32))
