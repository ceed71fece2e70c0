"""Matrices in 8 bits, with one scale per row."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_INT8 = 127
"""Largest value that a number is rounded to; the smallest is its negative."""
MIN_PEAK = np.float32(1e-20)
"""Lower bound of the largest absolute value of a row, so that a row of zeros has a scale."""


class Int8Rows(NamedTuple):
    """A matrix `[rows, columns]`: each number is a value multiplied by the scale of its row."""

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    def to_float32(self) -> npt.NDArray[np.float32]:
        matrix: npt.NDArray[np.float32] = self.values * self.scales[:, None]
        return matrix


def quantize_rows(matrix: npt.NDArray[np.float32]) -> Int8Rows:
    """Round a matrix `[rows, columns]` to 8 bits: the largest absolute value of each row becomes 127."""
    peaks = np.abs(matrix).max(axis=1)
    np.maximum(peaks, MIN_PEAK, out=peaks)
    scaled = matrix * (np.float32(MAX_INT8) / peaks)[:, None]
    values = np.rint(scaled, out=scaled).astype(np.int8)
    peaks *= np.float32(1 / MAX_INT8)
    return Int8Rows(values, peaks)
