"""Matrices of models that are played with numpy: their check, and products with a few vectors, in 32 or 8 bits."""

import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array
from engine.data.tokenizers import TokenIds
from engine.errors import InvalidInputError, RunError
from engine.storage.tensor_file import (
    MAX_INT8,
    MIN_PEAK,
    SCALE_SUFFIX,
    Int8Rows,
    StoredTensor,
    check_names,
    check_tensors,
    quantize_rows,
)

MAX_WEIGHT = 1e15  # sums of products of two weights are then finite, and so are all probabilities
STRIP_ROWS = 64  # four AVX-512 registers
STRIP_BATCH_SIZE = 16  # vectors at once; up to 976 inputs, OpenBLAS then uses its kernel for small matrices
MAX_STRIP_VECTORS = 64  # one large product is faster for more
_STEP, _MIN_PEAK = 1 / MAX_INT8, float(MIN_PEAK)
_SCRATCH = threading.local()  # integer products by number of outputs, as numkong writes and as numpy reads them


class Float32Matrix:
    """A matrix `[outputs, inputs]` in single precision, also in strips of rows for products with 2 to 64 vectors.

    OpenBLAS copies the matrix in every product except small ones. With strips, 4 vectors take hardly longer than one.
    """

    def __init__(self, matrix: Float32Array, *, by_columns: bool = False) -> None:
        # By columns, a product with one vector is about a fifth faster.
        self._matrix = np.asfortranarray(matrix) if by_columns else np.ascontiguousarray(matrix)
        self._out_features, self._in_features = matrix.shape

    def matmul(self, vectors: Float32Array) -> Float32Array:
        """Return the products `[..., outputs]` with `vectors` `[..., inputs]` as a new array."""
        if vectors.ndim == 1:
            return self.matmul_vector(vectors)
        rows = vectors.reshape(-1, self._in_features)
        products: Float32Array
        if len(rows) == 1:
            products = self._matrix.dot(rows[0])
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
        # `[strips, inputs, STRIP_ROWS]`, transposed, the last one padded
        num_whole, rest = divmod(self._out_features, STRIP_ROWS)
        strips = np.zeros((num_whole + bool(rest), self._in_features, STRIP_ROWS), np.float32)
        whole = self._matrix[: num_whole * STRIP_ROWS].reshape(num_whole, STRIP_ROWS, self._in_features)
        strips[:num_whole] = whole.swapaxes(1, 2)
        if rest:
            strips[-1, :, :rest] = self._matrix[-rest:].T
        return strips


class Int8Matrix:
    """A matrix in 8 bits, whose vectors are rounded to 8 bits as well: a product reads a quarter of the bytes.

    The sums are exact, so a product with several vectors equals the products with each vector alone.
    """

    def __init__(self, rows: Int8Rows) -> None:
        try:
            import numkong
        except ImportError as error:  # numpy has no fast products of 8-bit integers
            raise InvalidInputError("weights in int8 need numkong, which is missing; pip install numkong") from error
        self._numkong: Any = numkong
        self._out_features, self._in_features = rows.values.shape
        self._scales = rows.scales.copy()
        self._packed = numkong.dots_pack(rows.values)
        self._exact: tuple[int, int] | None = None
        self._exact_columns: tuple[Float32Array, ...] = ()

    @property
    def memory(self) -> tuple[int, int]:
        # Address and size of the block that products read: it is a part of its Python object.
        return id(self._packed), self._packed.nbytes

    def multiply_exactly(self, first: int, second: int) -> None:
        """Multiply the two largest inputs in single precision: without them, the others are rounded more finely."""
        units = Int8Rows(np.zeros((2, self._in_features), np.int8), np.ones(2, np.float32))
        units.values[[0, 1], [first, second]] = 1
        self._exact, self._exact_columns = (first, second), tuple(self.matmul_rows(units))

    def matmul(self, vectors: Float32Array) -> Float32Array:
        if vectors.ndim == 1:
            return self.matmul_vector(vectors)
        rows = vectors.reshape(-1, self._in_features)
        if self._exact is None:
            products = self.matmul_rows(quantize_rows(rows))
        else:
            others = rows.copy()
            others[:, self._exact] = 0
            products = self.matmul_rows(quantize_rows(others))
            for unit, column in zip(self._exact, self._exact_columns, strict=True):
                products += rows[:, unit, None] * column
        return products.reshape(*vectors.shape[:-1], self._out_features)

    def matmul_vector(
        self, vector: Float32Array, factor: float = 1.0, plus: Float32Array | None = None
    ) -> Float32Array:
        # The fewest operations, whose overhead is much of the time.
        numkong, added = self._numkong, plus
        if self._exact is not None:
            first, second = self._exact
            alpha, beta = vector.item(first) * factor, vector.item(second) * factor
            vector = vector.copy()
            vector[first] = vector[second] = 0
            added = numkong.blend(*self._exact_columns, alpha=alpha, beta=beta)
        lowest, _, highest, _ = numkong.minmax(vector) or (0.0, 0, 0.0, 0)  # None: all numbers are NaN
        peak = max(highest, -lowest, _MIN_PEAK)
        values = numkong.astype(numkong.scale(vector, alpha=MAX_INT8 / peak), "int8").reshape(1, self._in_features)
        scratch = _SCRATCH.__dict__.get(self._out_features)
        if scratch is None:
            tensor = numkong.zeros((1, self._out_features), dtype="int32")
            scratch = _SCRATCH.__dict__[self._out_features] = tensor, np.asarray(tensor)[0]
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
        # Products `[rows, outputs]` with vectors that are in 8 bits already.
        products: Float32Array = np.asarray(self._numkong.dots_packed(vectors.values, self._packed)).astype(np.float32)
        products *= self._scales
        products *= vectors.scales[:, None]
        return products


Matrix = Float32Matrix | Int8Matrix


def make_matrix(tensor: StoredTensor, *, quantize: bool = False, by_columns: bool = False) -> Matrix:
    if isinstance(tensor, Int8Rows):
        return Int8Matrix(tensor)
    return Int8Matrix(quantize_rows(tensor)) if quantize else Float32Matrix(tensor, by_columns=by_columns)


def embed(embedding: StoredTensor, tokens: int | TokenIds) -> Float32Array:
    """Return the rows `[..., width]` of `tokens`; those of one token in single precision are not to be changed."""
    if isinstance(embedding, Int8Rows):
        return embedding.values[tokens] * embedding.scales[tokens, None]
    rows: Float32Array = embedding[tokens]
    return rows


def normalize_logits(logits: Float32Array) -> Float32Array:
    """Turn logits `[rows, vocabulary]` into log-probabilities in place, and return them."""
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True), dtype=np.float32)
    return logits


def check_weights(
    weights: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]], max_weight: float = MAX_WEIGHT
) -> None:
    """Raise a RunError unless the tensors have the given shapes and no number beyond `max_weight`."""
    check_names(weights, shapes)
    for name, tensor in weights.items():
        if isinstance(tensor, Int8Rows):
            arrays: dict[str, npt.NDArray[Any]] = {name: tensor.values, name + SCALE_SUFFIX: tensor.scales}
            min_value, max_value, forbidden = 0.0, max_weight / 128, "negative, not finite"
        else:
            arrays, min_value, max_value, forbidden = {name: tensor}, -max_weight, max_weight, "not finite"
        check_tensors({key: (str(array.dtype), array.shape) for key, array in arrays.items()}, {name: shapes[name]})
        checked, numbers = list(arrays.items())[-1]
        lowest, highest = float(numbers.min()), float(numbers.max())
        if not min_value <= lowest <= highest <= max_value:  # NaN fails the comparison
            value = f"{highest if highest > max_value else lowest:g}"
            forbidden = f"{forbidden} or beyond {max_value:g}, such as {value}"
            raise RunError(f"{checked} holds values that are {forbidden}; the run is damaged")
