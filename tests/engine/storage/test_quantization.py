"""Rounding of matrices to 8 bits with one scale per row."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from engine.storage.tensor_file import quantize_rows, to_float32

MATRICES = hypothesis_numpy.arrays(
    np.float32,
    hypothesis_numpy.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-(2.0**49), 2.0**49, width=32).filter(lambda value: value == 0 or abs(value) > 1e-18),
)


@settings(max_examples=40)
@given(MATRICES)
def test_each_number_is_restored_within_half_a_step_of_its_row_and_rounded_to_the_same_integers(matrix):
    rows = quantize_rows(matrix)
    assert rows.values.dtype == np.int8
    assert rows.values.min() >= -127
    restored = to_float32(rows)
    steps = np.abs(matrix.astype(np.float64)).max(axis=1, keepdims=True) / 127
    assert (np.abs(restored - matrix.astype(np.float64)) <= steps * (0.5 + 1e-4)).all()
    again = quantize_rows(restored)
    assert np.array_equal(again.values, rows.values)
    np.testing.assert_allclose(again.scales, rows.scales, rtol=3e-7)
