"""Products of a few vectors with one large matrix: nearly all that reading a word costs."""

from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.errors import UnusableInput

Floats = npt.NDArray[np.float32]

STRIP = 64
"""Rows of a strip: four registers of AVX-512."""
TOGETHER = 16
"""Vectors that a strip is multiplied with at once: with inputs up to 976, OpenBLAS takes that for a small product."""
FEW = 64
"""Vectors up to which strips are faster than one large product."""
LEAST_PEAK = np.float32(1e-20)
"""What the largest value of a vector is taken to be at least, so that one of zeros has a scale."""


class Matrix(Protocol):
    """A matrix `[outputs, inputs]` that is arranged for products with vectors."""

    def times(self, vectors: Floats) -> Floats:
        """Its products `[..., outputs]` with `vectors` `[..., inputs]`, the caller's own."""


class Float32:
    """In single precision.

    For small products OpenBLAS has kernels that do not copy the matrix first, as its others do (on processors with
    AVX-512; elsewhere a strip at least stays in the nearest cache). A strip of the matrix and a few vectors are small:
    four vectors cost hardly more than one, and 16 a quarter of 16 times one.
    """

    def __init__(self, matrix: Floats) -> None:
        """Take `matrix` `[outputs, inputs]`, which is kept as it is."""
        self._matrix = np.ascontiguousarray(matrix)
        self._outputs, self._inputs = matrix.shape

    def times(self, vectors: Floats) -> Floats:
        """Its products `[..., outputs]` with `vectors` `[..., inputs]`, the caller's own."""
        rows = vectors.reshape(-1, self._inputs)
        products: Floats
        if len(rows) == 1:
            products = self._matrix @ rows[0]
        elif len(rows) > FEW:
            products = rows @ self._matrix.T
        else:
            strips = self._strips
            whole = np.empty((len(rows), len(strips), STRIP), np.float32)
            for begin in range(0, len(rows), TOGETHER):
                some = slice(begin, begin + TOGETHER)
                np.matmul(rows[some], strips, out=whole[some].swapaxes(0, 1))
            products = whole.reshape(len(rows), -1)[:, : self._outputs]
        return products.reshape(*vectors.shape[:-1], self._outputs)

    @cached_property
    def _strips(self) -> Floats:
        """`[strips, inputs, STRIP]`, the last of them padded; whoever never reads several texts does without."""
        strips = -(-self._outputs // STRIP)
        padded = np.zeros((strips * STRIP, self._inputs), np.float32)
        padded[: self._outputs] = self._matrix
        return np.ascontiguousarray(padded.reshape(strips, STRIP, self._inputs).swapaxes(1, 2))


class Int8:
    """In 8 bits, a scale for each output; the vectors are rounded to 8 bits too, a scale for each.

    A quarter of the bytes are read, at the price of some accuracy.
    """

    def __init__(self, matrix: Floats) -> None:
        """Round `matrix` `[outputs, inputs]`.

        Raises:
            UnusableInput: numkong, which has products of 8-bit numbers, is not installed.
        """
        try:
            import numkong
        except ImportError as error:
            raise UnusableInput("products in int8 need numkong; pip install 'lotr-tui[int8]'") from error
        self._inputs = matrix.shape[1]
        scales, rounded = _rounded(matrix)
        self._scales = scales[:, 0]
        self._packed = numkong.dots_pack(rounded)
        self._product = numkong.dots_packed

    def times(self, vectors: Floats) -> Floats:
        """Its products `[..., outputs]` with `vectors` `[..., inputs]`, the caller's own."""
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
