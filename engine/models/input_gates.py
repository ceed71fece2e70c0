"""Lookup of what the tokens contribute to the gates of an LSTM's first layer, instead of a product per token."""

from functools import lru_cache, partial

import numpy as np

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import TokenIds
from engine.models.matmul import Float32Matrix, Int8Matrix, Matrix
from engine.storage.quantization import Int8Rows
from engine.storage.tensor_file import StoredTensor, to_float32

MAX_TABLE_SIZE = 2**22
"""Maximum elements of the table; computing a larger one takes longer than the products of a long text."""
NUM_CACHED_TOKENS = 128
"""Tokens whose gates are kept without a table: two thirds of the tokens of a text are among the last 128 others."""


class InputGates:
    """The products of the first layer's input weights with the embedding of each token, and the bias.

    They are computed once for all tokens if this table is small, and otherwise kept for the last tokens that were read.
    """

    table: Float32Array | None = None
    """The products `[vocabulary, 4 hidden]`; None if they would be too large, or are stored in 8 bits and fast."""

    def __init__(self, weight_ih: Matrix, bias: Float32Array, embedding: StoredTensor) -> None:
        """Compute the table, or prepare the computation.

        Args:
            weight_ih: Input weights `[4 hidden, embedding]` of the first layer.
            bias: Bias `[4 hidden]` of the first layer.
            embedding: Embedding `[vocabulary, embedding]`.
        """
        vocabulary_size = len(embedding.values if isinstance(embedding, Int8Rows) else embedding)
        if isinstance(weight_ih, Float32Matrix) and vocabulary_size * len(bias) <= MAX_TABLE_SIZE:
            self.table = weight_ih.matmul(to_float32(embedding)) + bias
        else:
            self._products = partial(_products, weight_ih, bias, embedding)
            # The cache holds no reference to this object, which would keep the weights until the garbage collection.
            self._cached_product = lru_cache(NUM_CACHED_TOKENS)(partial(_product, weight_ih, bias, embedding))

    def __getitem__(self, token: int | TokenIds) -> Float32Array:
        """Return the products `[..., 4 hidden]` of `token`; not to be changed."""
        if self.table is not None:
            gates: Float32Array = self.table[token]
            return gates
        return self._products(token) if isinstance(token, np.ndarray) else self._cached_product(token)


def _products(weight_ih: Matrix, bias: Float32Array, embedding: StoredTensor, tokens: TokenIds) -> Float32Array:
    """Return the products `[tokens, 4 hidden]`. An embedding in 8 bits is not quantized again."""
    if isinstance(weight_ih, Int8Matrix) and isinstance(embedding, Int8Rows):
        gates = weight_ih.matmul_rows(Int8Rows(embedding.values[tokens], embedding.scales[tokens]))
    else:
        gates = weight_ih.matmul(embed(embedding, tokens))
    gates += bias
    return gates


def _product(weight_ih: Matrix, bias: Float32Array, embedding: StoredTensor, token: int) -> Float32Array:
    """Return the products `[4 hidden]` of one token."""
    gates: Float32Array = _products(weight_ih, bias, embedding, np.array([token], np.int32))[0]
    return gates


def embed(embedding: StoredTensor, token: int | TokenIds) -> Float32Array:
    """Return the rows `[..., embedding]` of `token`."""
    if isinstance(embedding, Int8Rows):
        return embedding.values[token] * embedding.scales[token, None]
    rows: Float32Array = embedding[token]
    return rows
