"""The layers of the Transformer in numpy: from tokens to the vectors that the next tokens are predicted from."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array, Int64Array
from engine.data.tokenizers.base import TokenIds
from engine.models.causal_attention import (
    BatchAttention,
    RotaryEmbedding,
    attend_one,
    attend_segments,
    attend_windows,
)
from engine.models.key_value_cache import Segments
from engine.models.matmul import Int8Matrix, Matrix
from engine.models.transformer_layout import head_size, num_kv_heads
from engine.models.transformer_weights import TransformerWeights
from engine.storage.quantization import Int8Rows

Attend = Callable[[int, Float32Array], Float32Array]
"""Function from the index of a layer and heads `[rows, heads, head size]`, first those of queries, then of keys and of
values, to the attention output `[rows, query units]`."""

SAMPLE_TOKENS, SAMPLE_STRIDE = 16, 7919
"""Number of tokens of the text that shows which units are large, and the distance of their numbers."""
MIN_SUM, MAX_SUM = 1e-30, 1e30
"""Range of the sums of exponentials that single precision represents well."""
_ONE = np.array(1, np.float32)
"""An array, which numpy adds faster than a number."""


class TransformerLayers:
    """Embedding, layers and last norm. Nothing changes while tokens are read, except for the cache that is passed."""

    def __init__(self, config: ModelConfig, weights: TransformerWeights) -> None:
        self._width, self._eps = config.embedding_size, config.norm_eps
        self._num_heads, self._num_kv_heads, self._head_size = config.num_heads, num_kv_heads(config), head_size(config)
        self._group = self._num_heads // self._num_kv_heads
        self._weights, self._layers = weights, weights.layers
        self._rotary = RotaryEmbedding(config)
        self._multiply_large_inputs_exactly()

    def _multiply_large_inputs_exactly(self) -> None:
        """Find the two units that are the largest of the vectors between layers, and spare them the rounding to 8 bits.

        Large Transformers have few such units (Dettmers et al. 2022, arXiv 2208.07339); any text shows which.
        """
        if not isinstance(self._weights.output, Int8Matrix):
            return
        embedding = self._weights.embedding
        num_tokens = len(embedding.scales if isinstance(embedding, Int8Rows) else embedding)
        _, outputs = self.record((np.arange(SAMPLE_TOKENS) * SAMPLE_STRIDE % num_tokens).astype(np.int32))

        def spare(matrix: Matrix, rows: Float32Array, norm: Float32Array) -> None:
            if isinstance(matrix, Int8Matrix):
                squares = np.square(_normalize(rows, norm, self._eps)).sum(axis=0)
                matrix.multiply_exactly(*np.argsort(squares)[-2:].tolist())

        for layer, rows in zip(self._layers, outputs, strict=False):
            spare(layer.qkv, rows, layer.attention_norm)
            spare(layer.gate_up, rows, layer.feed_forward_norm)
        spare(self._weights.output, outputs[-1], self._weights.final_norm)

    def read_token(self, token: int, position: int, segments: Segments) -> Float32Array:
        """Write the keys and values of one token to the last row of `segments`, and return its vector `[width]`.

        The result equals `read_batch` for one text, with fewer operations: their overhead is much of the time.
        """
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            sums = np.empty((len(self._layers), self._num_heads), np.float32)
            vector = self._read_token(token, position, segments, sums)
            if not MIN_SUM < sums.min() <= sums.max() < MAX_SUM:  # NaN fails the comparison
                vector = self._read_token(token, position, segments, None)
            vector *= self._weights.final_norm * np.float32(self._norm_factor(vector))
        return vector

    def _read_token(self, token: int, position: int, segments: Segments, sums: Float32Array | None) -> Float32Array:
        """Return the vector `[width]` before the last norm; see `attend_one` for `sums` `[layers, heads]`."""
        num_units, size = self._num_heads * self._head_size, self._head_size
        num_rotated = num_units + self._num_kv_heads * size
        query_shape, row_shape = (self._num_kv_heads, self._group, size, 1), (2, self._num_kv_heads, size)
        rotations = self._rotary.rotations(position).reshape(-1)
        buffer, length = segments[-1]
        row = length - 1
        vector = self._embed(token)
        for index, layer in enumerate(self._layers):
            # A norm divides by a number, which is left to the product.
            qkv = layer.qkv.matmul_vector(vector * layer.attention_norm, self._norm_factor(vector), layer.qkv_bias)
            self._rotary.rotate(qkv[:num_rotated], rotations)
            buffer.layers[index][:, :, row] = qkv[num_units:].reshape(row_shape)
            queries = qkv[:num_units].reshape(query_shape)
            attended = attend_one(queries, index, segments, None if sums is None else sums[index])
            vector = layer.output.matmul_vector(attended, plus=vector)
            gate_up = layer.gate_up.matmul_vector(vector * layer.feed_forward_norm, self._norm_factor(vector))
            vector = layer.down.matmul_vector(_swiglu(gate_up), plus=vector)
        return vector

    def _norm_factor(self, vector: Float32Array) -> float:
        """Return one divided by the root mean square of a vector `[width]`."""
        return 1 / math.sqrt(vector.dot(vector) / self._width + self._eps)

    def read_batch(self, tokens: Sequence[int], positions: Sequence[int], texts: Sequence[Segments]) -> Float32Array:
        """Write the keys and values of one token per text to its last row; return their vectors `[texts, width]`."""
        attention = BatchAttention(texts)
        last_rows = [segments[-1] for segments in texts]

        def attend(index: int, heads: Float32Array) -> Float32Array:
            queries, keys_values = self._split(heads)
            for (buffer, length), row in zip(last_rows, keys_values, strict=True):
                buffer.layers[index][:, :, length - 1] = row
            return attention.attend(queries, index)

        return self.normalize(self._run(np.asarray(tokens), positions, attend))

    def read_tokens(self, tokens: Sequence[int] | TokenIds, segments: Segments) -> Float32Array:
        """Write the keys and values of a text's last tokens to its last rows; return their vectors `[tokens, width]`.

        `segments` includes the rows of `tokens`, all in the last segment.
        """
        num_positions = sum(length for _, length in segments)
        buffer, length = segments[-1]
        rows = slice(length - len(tokens), length)

        def attend(index: int, heads: Float32Array) -> Float32Array:
            queries, keys_values = self._split(heads)
            buffer.layers[index][:, :, rows] = keys_values.transpose(1, 2, 0, 3)
            output = attend_segments(queries.transpose(1, 2, 0, 3), index, segments)
            return output.transpose(2, 0, 1, 3).reshape(len(tokens), -1)

        positions = np.arange(num_positions - len(tokens), num_positions)
        return self.normalize(self._run(np.asarray(tokens), positions, attend))

    def read_windows(self, windows: TokenIds) -> Float32Array:
        """Return the vectors `[windows, time, width]` of whole windows of tokens `[windows, time]`, without a cache."""
        num_windows, time = windows.shape

        def attend(_index: int, heads: Float32Array) -> Float32Array:
            queries, keys_values = (
                part.reshape(num_windows, time, *part.shape[1:]) for part in self._split(heads)
            )  # [windows, time, ...]
            keys, values = keys_values.transpose(2, 0, 3, 1, 4)
            output, _ = attend_windows(queries.transpose(0, 2, 3, 1, 4), keys, values)
            return output.transpose(0, 3, 1, 2, 4).reshape(len(heads), -1)

        positions = np.tile(np.arange(time), num_windows)
        return self.normalize(self._run(windows.reshape(-1), positions, attend)).reshape(num_windows, time, -1)

    def record(self, tokens: TokenIds) -> tuple[Float32Array, Float32Array]:
        """Return the attention weights and the outputs of all layers for one window: see `AttentionRecord`."""
        time = len(tokens)
        weights = np.empty((len(self._layers), self._num_heads, time, time), np.float32)
        outputs = np.empty((len(self._layers) + 1, time, self._width), np.float32)

        def attend(index: int, heads: Float32Array) -> Float32Array:
            queries, keys_values = self._split(heads)
            keys, values = keys_values.transpose(1, 2, 0, 3)
            output, by_query = attend_windows(queries.transpose(1, 2, 0, 3), keys, values)
            weights[index] = by_query.reshape(self._num_heads, time, time)
            return output.transpose(2, 0, 1, 3).reshape(time, -1)

        self._run(tokens, np.arange(time), attend, outputs)
        return weights, outputs

    def _split(self, heads: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Return the queries `[rows, key heads, queries per key head, head size]` of heads `[rows, heads, head size]`.

        The second result are the keys and values `[rows, 2, key heads, head size]`.
        """
        num_rows, _, size = heads.shape
        queries = heads[:, : self._num_heads].reshape(num_rows, self._num_kv_heads, self._group, size)
        return queries, heads[:, self._num_heads :].reshape(num_rows, 2, self._num_kv_heads, size)

    def normalize(self, vectors: Float32Array) -> Float32Array:
        """Return the output `[rows, width]` of the last norm."""
        return _normalize(vectors, self._weights.final_norm, self._eps)

    def _run(
        self,
        tokens: TokenIds | Int64Array,
        positions: Sequence[int] | Int64Array,
        attend: Attend,
        outputs: Float32Array | None = None,
    ) -> Float32Array:
        """Return the output `[rows, width]` of the last layer for tokens `[rows]`, before the last norm.

        `outputs` `[layers + 1, rows, width]`, if given, receives the embeddings and the output of each layer.
        """
        num_rows = len(tokens)
        rotations = self._rotary.rotations(positions)
        vectors = self._embed(tokens)
        for index, layer in enumerate(self._layers):
            if outputs is not None:
                outputs[index] = vectors
            qkv = layer.qkv.matmul(_normalize(vectors, layer.attention_norm, self._eps))
            if layer.qkv_bias is not None:
                qkv += layer.qkv_bias
            heads = qkv.reshape(num_rows, -1, self._head_size)
            self._rotary.rotate(heads[:, : self._num_heads + self._num_kv_heads], rotations)
            vectors += layer.output.matmul(attend(index, heads))
            gate_up = layer.gate_up.matmul(_normalize(vectors, layer.feed_forward_norm, self._eps))
            vectors += layer.down.matmul(_swiglu(gate_up))
        if outputs is not None:
            outputs[-1] = vectors
        return vectors

    def _embed(self, tokens: int | TokenIds | Int64Array) -> Float32Array:
        """Return a copy of the embeddings `[..., width]` of `tokens`."""
        embedding = self._weights.embedding
        if isinstance(embedding, Int8Rows):
            return embedding.values[tokens] * embedding.scales[tokens, None]
        embeddings: Float32Array = embedding[tokens]
        return embeddings.copy() if embeddings.ndim == 1 else embeddings


def _normalize(vectors: Float32Array, weight: Float32Array, eps: float) -> Float32Array:
    """Divide vectors `[rows, width]` by their root mean square and multiply by `weight` `[width]` (RMSNorm)."""
    mean_squares = np.einsum("rw,rw->r", vectors, vectors) / np.float32(vectors.shape[1])
    normalized = vectors * weight
    normalized /= np.sqrt(mean_squares + np.float32(eps))[:, None]
    return normalized


def _swiglu(gate_up: Float32Array) -> Float32Array:
    """Return silu(gates) · values `[..., inner]` for halves of gates, and values, `[..., 2 inner]`.

    silu(x) = x · sigmoid(x) = x / 2 · (1 + tanh(x / 2)), which does not overflow.
    """
    inner = gate_up.shape[-1] // 2
    half_gates = gate_up[..., :inner]
    activated: Float32Array = np.tanh(half_gates)
    activated += _ONE
    activated *= half_gates
    activated *= gate_up[..., inner:]
    return activated
