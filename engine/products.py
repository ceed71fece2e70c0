"""Products of a few vectors with one large matrix: nearly all that reading a word costs."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.errors import UnusableInput

Floats = npt.NDArray[np.float32]

STRIP = 64
"""Columns of a strip: four registers of AVX-512."""
LEAST_PEAK = np.float32(1e-20)
"""What the largest value of a vector is taken to be at least, so that one of zeros has a scale."""


class Matrix(Protocol):
    """A matrix `[inputs, outputs]` that is arranged for products."""

    def times(self, vectors: Floats) -> Floats:
        """`vectors` `[..., inputs]` times the matrix: `[..., outputs]`, the caller's own."""


class Strips:
    """In single precision, cut into strips of columns.

    A strip and a few vectors are small enough for the kernels that OpenBLAS has for small products. Those do not
    copy the matrix first, as its others do, so that four vectors cost hardly more than one.
    """

    def __init__(self, matrix: Floats) -> None:
        """Arrange `matrix` `[inputs, outputs]`."""
        self._inputs, self._outputs = matrix.shape
        strips = -(-self._outputs // STRIP)
        padded = np.zeros((self._inputs, strips * STRIP), np.float32)
        padded[:, : self._outputs] = matrix
        self._strips = np.ascontiguousarray(padded.reshape(self._inputs, strips, STRIP).swapaxes(0, 1))

    def times(self, vectors: Floats) -> Floats:
        """`vectors` `[..., inputs]` times the matrix: `[..., outputs]`, the caller's own."""
        rows = vectors.reshape(-1, self._inputs)
        products = np.empty((len(rows), len(self._strips), STRIP), np.float32)
        np.matmul(rows, self._strips, out=products.swapaxes(0, 1))
        whole = products.reshape(*vectors.shape[:-1], -1)
        return whole[..., : self._outputs]


class Int8:
    """In 8 bits, a scale for each column; the vectors are rounded to 8 bits too, a scale for each.

    A quarter of the bytes are read, at the price of some accuracy.
    """

    def __init__(self, matrix: Floats) -> None:
        """Round `matrix` `[inputs, outputs]`.

        Raises:
            UnusableInput: numkong, which has products of 8-bit numbers, is not installed.
        """
        try:
            import numkong
        except ImportError as error:
            raise UnusableInput("products in int8 need numkong; pip install 'lotr-tui[int8]'") from error
        self._inputs = len(matrix)
        scales, rounded = _rounded(np.ascontiguousarray(matrix.T))
        self._scales = scales[:, 0]
        self._packed = numkong.dots_pack(rounded)
        self._product = numkong.dots_packed

    def times(self, vectors: Floats) -> Floats:
        """`vectors` `[..., inputs]` times the matrix: `[..., outputs]`, the caller's own."""
        scales, rounded = _rounded(vectors.reshape(-1, self._inputs))
        sums = np.asarray(self._product(rounded, self._packed))
        products: Floats = np.multiply(sums, self._scales, dtype=np.float32, casting="unsafe")
        products *= scales
        return products.reshape(*vectors.shape[:-1], -1)


def _rounded(rows: Floats) -> tuple[Floats, npt.NDArray[np.int8]]:
    """Whole numbers from -127 to 127, and the scale `[rows, 1]` that makes each row of them what it was."""
    scales = np.abs(rows).max(axis=1, keepdims=True)
    np.maximum(scales, LEAST_PEAK, out=scales)
    scales *= np.float32(1 / 127)
    wholes = rows / scales
    return scales, np.rint(wholes, out=wholes).astype(np.int8)
