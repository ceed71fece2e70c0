"""Products of one large matrix with a few vectors, which take most of the time of inference."""

from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array
from engine.errors import InvalidInputError

STRIP_ROWS = 64
"""Rows per strip of a matrix: four AVX-512 registers."""
STRIP_BATCH_SIZE = 16
"""Vectors multiplied with a strip at once. Up to 976 inputs, OpenBLAS then uses its kernel for small matrices."""
MAX_STRIP_VECTORS = 64
"""Maximum number of vectors for which strips are faster than one large product."""
MIN_PEAK = np.float32(1e-20)
"""Lower bound of a vector's largest absolute value in quantization, so that zero vectors have a scale."""


class Matrix(Protocol):
    """A matrix `[outputs, inputs]` stored for fast products with vectors."""

    def matmul(self, vectors: Float32Array) -> Float32Array:
        """Return the products `[..., outputs]` with `vectors` `[..., inputs]` as a new array."""


class Float32Matrix:
    """A matrix in single precision, also stored in strips of rows for products with 2 to 64 vectors.

    OpenBLAS copies the matrix in every product except small ones (on CPUs with AVX-512; on others, a strip still fits
    into the L1 cache). With strips, 4 vectors take hardly longer than one, and 16 vectors a quarter of 16 times one.
    """

    def __init__(self, matrix: Float32Array) -> None:
        """Store `matrix` `[outputs, inputs]`, without a copy if it is contiguous."""
        self._matrix = np.ascontiguousarray(matrix)
        self._out_features, self._in_features = matrix.shape

    def matmul(self, vectors: Float32Array) -> Float32Array:
        """Return the products `[..., outputs]` with `vectors` `[..., inputs]` as a new array."""
        rows = vectors.reshape(-1, self._in_features)
        products: Float32Array
        if len(rows) == 1:
            products = self._matrix @ rows[0]
        elif len(rows) > MAX_STRIP_VECTORS:
            products = rows @ self._matrix.T
        else:
            strips = self._strips
            padded = np.empty((len(rows), len(strips), STRIP_ROWS), np.float32)
            for start in range(0, len(rows), STRIP_BATCH_SIZE):
                batch = slice(start, start + STRIP_BATCH_SIZE)
                np.matmul(rows[batch], strips, out=padded[batch].swapaxes(0, 1))
            products = padded.reshape(len(rows), -1)[:, : self._out_features]
        return products.reshape(*vectors.shape[:-1], self._out_features)

    @cached_property
    def _strips(self) -> Float32Array:
        """Transposed strips `[strips, inputs, STRIP_ROWS]`, the last one padded; built by the first batched product."""
        num_strips = -(-self._out_features // STRIP_ROWS)
        padded = np.zeros((num_strips * STRIP_ROWS, self._in_features), np.float32)
        padded[: self._out_features] = self._matrix
        return np.ascontiguousarray(padded.reshape(num_strips, STRIP_ROWS, self._in_features).swapaxes(1, 2))


class Int8Matrix:
    """A matrix quantized to 8 bits, with one scale per output.

    Each vector is quantized with a scale as well. A product reads a quarter of the bytes and is less accurate.
    """

    def __init__(self, matrix: Float32Array) -> None:
        """Quantize `matrix` `[outputs, inputs]`. numkong, which multiplies 8-bit integers, must be installed."""
        try:
            import numkong
        except ImportError as error:
            raise InvalidInputError("int8 precision needs numkong; pip install 'lotr-tui[int8]'") from error
        self._in_features = matrix.shape[1]
        scales, quantized = _quantize(matrix)
        self._scales = scales[:, 0]
        self._packed = numkong.dots_pack(quantized)
        self._packed_matmul = numkong.dots_packed

    def matmul(self, vectors: Float32Array) -> Float32Array:
        """Return the products `[..., outputs]` with `vectors` `[..., inputs]` as a new array."""
        scales, quantized = _quantize(vectors.reshape(-1, self._in_features))
        sums = np.asarray(self._packed_matmul(quantized, self._packed))
        products: Float32Array = np.multiply(sums, self._scales, dtype=np.float32, casting="unsafe")
        products *= scales
        return products.reshape(*vectors.shape[:-1], -1)


def _quantize(rows: Float32Array) -> tuple[Float32Array, npt.NDArray[np.int8]]:
    """Return the scale `[rows, 1]` of each row, and the row divided by it and rounded to -127 ... 127."""
    scales = np.abs(rows).max(axis=1, keepdims=True)
    np.maximum(scales, MIN_PEAK, out=scales)
    scales *= np.float32(1 / 127)
    scaled = rows / scales
    return scales, np.rint(scaled, out=scaled).astype(np.int8)
