"""Products of one large matrix with a few vectors, which take most of the time of inference."""

import threading
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array
from engine.errors import InvalidInputError
from engine.storage.quantization import MAX_INT8, MIN_PEAK, Int8Rows, quantize_rows
from engine.storage.tensor_file import StoredTensor

STRIP_ROWS = 64
"""Rows per strip of a matrix: four AVX-512 registers."""
STRIP_BATCH_SIZE = 16
"""Vectors multiplied with a strip at once. Up to 976 inputs, OpenBLAS then uses its kernel for small matrices."""
MAX_STRIP_VECTORS = 64
"""Maximum number of vectors for which strips are faster than one large product."""
_STEP, _MIN_PEAK = 1 / MAX_INT8, float(MIN_PEAK)


class Matrix(Protocol):
    """A matrix `[outputs, inputs]` stored for fast products with vectors."""

    def matmul(self, vectors: Float32Array) -> Float32Array:
        """Return the products `[..., outputs]` with `vectors` `[..., inputs]` as a new array."""

    def matmul_vector(
        self, vector: Float32Array, factor: float = 1.0, plus: Float32Array | None = None
    ) -> Float32Array:
        """Return the product `[outputs]` with one vector `[inputs]`, multiplied by `factor`, plus `plus`."""


class Float32Matrix:
    """A matrix in single precision, also stored in strips of rows for products with 2 to 64 vectors.

    OpenBLAS copies the matrix in every product except small ones (on CPUs with AVX-512; on others, a strip still fits
    into the L1 cache). With strips, 4 vectors take hardly longer than one, and 16 vectors a quarter of 16 times one.
    """

    def __init__(self, matrix: Float32Array, *, by_columns: bool = False) -> None:
        """Store `matrix` `[outputs, inputs]`, without a copy if it is contiguous.

        Stored by columns, the product of a matrix and one vector reads memory about a fifth faster.
        """
        self._matrix = np.asfortranarray(matrix) if by_columns else np.ascontiguousarray(matrix)
        self._out_features, self._in_features = matrix.shape

    @property
    def matrix(self) -> Float32Array:
        """The matrix `[outputs, inputs]`; not to be changed."""
        return self._matrix

    def matmul(self, vectors: Float32Array) -> Float32Array:
        """Return the products `[..., outputs]` with `vectors` `[..., inputs]` as a new array."""
        if vectors.ndim == 1:
            return self.matmul_vector(vectors)
        products: Float32Array
        rows = vectors.reshape(-1, self._in_features)
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

    def matmul_vector(
        self, vector: Float32Array, factor: float = 1.0, plus: Float32Array | None = None
    ) -> Float32Array:
        """Return the product `[outputs]` with one vector `[inputs]`, multiplied by `factor`, plus `plus`."""
        product: Float32Array = self._matrix.dot(vector)
        if factor != 1:
            product *= factor
        if plus is not None:
            product += plus
        return product

    @cached_property
    def _strips(self) -> Float32Array:
        """Transposed strips `[strips, inputs, STRIP_ROWS]`, the last one padded; built by the first batched product."""
        num_whole, rest = divmod(self._out_features, STRIP_ROWS)
        strips = np.zeros((num_whole + bool(rest), self._in_features, STRIP_ROWS), np.float32)
        whole = self._matrix[: num_whole * STRIP_ROWS].reshape(num_whole, STRIP_ROWS, self._in_features)
        strips[:num_whole] = whole.swapaxes(1, 2)
        if rest:
            strips[-1, :, :rest] = self._matrix[-rest:].T
        return strips


class _ExactInput(NamedTuple):
    """An input of a matrix that is multiplied in single precision."""

    number: int
    column: Float32Array
    """Its column of the matrix, `[outputs]`."""


class _Scratch(threading.local):
    """Memory of each thread for integer products of one vector, which only exist within one call."""

    def __init__(self) -> None:
        self.sums: dict[int, tuple[Any, npt.NDArray[np.int32]]] = {}
        """By number of outputs: `[1, outputs]` as numkong writes it, and `[outputs]`, the same, as numpy reads it."""


_SCRATCH = _Scratch()


class Int8Matrix:
    """A matrix in 8 bits, whose vectors are rounded to 8 bits as well.

    A product reads a quarter of the bytes and is less accurate. The sums themselves are exact, so a product with
    several vectors equals the products with each vector alone.
    """

    def __init__(self, rows: Int8Rows) -> None:
        """Copy a matrix `[outputs, inputs]`.

        Raises:
            InvalidInputError: If numkong is not installed. numpy has no fast products of 8-bit integers.
        """
        try:
            import numkong
        except ImportError as error:
            raise InvalidInputError("weights in int8 need numkong, which is missing; pip install numkong") from error
        self._numkong: Any = numkong
        self._out_features, self._in_features = rows.values.shape
        self._scales = rows.scales.copy()
        self._packed = numkong.dots_pack(rows.values)
        self._exact: tuple[_ExactInput, _ExactInput] | None = None

    @property
    def memory(self) -> tuple[int, int]:
        """Address and size of the block of memory that products read: it is a part of its Python object."""
        return id(self._packed), self._packed.nbytes

    def multiply_exactly(self, first: int, second: int) -> None:
        """Multiply two inputs in single precision, because the others are rounded more finely without them.

        This is the method of Dettmers et al. 2022 (LLM.int8, arXiv 2208.07339) for inputs that are often the largest.
        """
        units = np.zeros((2, self._in_features), np.int8)
        units[[0, 1], [first, second]] = 1
        columns = (self._sums(units) * self._scales).astype(np.float32)
        self._exact = _ExactInput(first, columns[0]), _ExactInput(second, columns[1])

    def matmul(self, vectors: Float32Array) -> Float32Array:
        """Return the products `[..., outputs]` with `vectors` `[..., inputs]` as a new array."""
        if vectors.ndim == 1:
            return self.matmul_vector(vectors)
        rows = vectors.reshape(-1, self._in_features)
        if self._exact is None:
            products = self.matmul_rows(quantize_rows(rows))
        else:
            others = rows.copy()
            others[:, [each.number for each in self._exact]] = 0
            products = self.matmul_rows(quantize_rows(others))
            for number, column in self._exact:
                products += rows[:, number, None] * column
        return products.reshape(*vectors.shape[:-1], self._out_features)

    def matmul_vector(
        self, vector: Float32Array, factor: float = 1.0, plus: Float32Array | None = None
    ) -> Float32Array:
        """Return the product `[outputs]` with one vector `[inputs]`, multiplied by `factor`, plus `plus`.

        It is that of `matmul` with the fewest operations, whose overhead is much of the time.
        """
        numkong, added = self._numkong, plus
        if self._exact is not None:
            (first, first_column), (second, second_column) = self._exact
            others = vector.copy()
            others[first] = others[second] = 0
            added = numkong.blend(
                first_column, second_column, alpha=vector.item(first) * factor, beta=vector.item(second) * factor
            )
            vector = others
        lowest, _, highest, _ = numkong.minmax(vector) or (0.0, 0, 0.0, 0)  # None: all numbers are NaN
        peak = max(highest, -lowest, _MIN_PEAK)
        values = numkong.astype(numkong.scale(vector, alpha=MAX_INT8 / peak), "int8").reshape(1, self._in_features)
        scratch = _SCRATCH.sums.get(self._out_features)
        if scratch is None:
            tensor = numkong.zeros((1, self._out_features), dtype="int32")
            scratch = _SCRATCH.sums[self._out_features] = tensor, np.asarray(tensor)[0]
        tensor, integers = scratch
        numkong.dots_packed(values, self._packed, out=tensor)
        sums, scale = integers.astype(np.float32), peak * _STEP * factor
        if added is None:
            return np.asarray(numkong.fma(sums, self._scales, sums, alpha=scale, beta=0.0))
        product = np.asarray(numkong.fma(sums, self._scales, added, alpha=scale, beta=1.0))
        if self._exact is not None and plus is not None:
            product += plus
        return product

    def matmul_rows(self, vectors: Int8Rows) -> Float32Array:
        """Return the products `[rows, outputs]` with vectors `[rows, inputs]` that are in 8 bits already."""
        products: Float32Array = self._sums(vectors.values).astype(np.float32)
        products *= self._scales
        products *= vectors.scales[:, None]
        return products

    def _sums(self, values: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
        """Return the integer products `[rows, outputs]` with integers `[rows, inputs]`."""
        return np.asarray(self._numkong.dots_packed(values, self._packed))


def make_matrix(tensor: StoredTensor, *, quantize: bool = False, by_columns: bool = False) -> Matrix:
    """Store a matrix for fast products: in 8 bits if it has 8 bits or `quantize` is set, else in single precision.

    `by_columns` is the order of a matrix in single precision, see `Float32Matrix`.
    """
    if isinstance(tensor, Int8Rows):
        return Int8Matrix(tensor)
    return Int8Matrix(quantize_rows(tensor)) if quantize else Float32Matrix(tensor, by_columns=by_columns)
