"""The weights of a Transformer for inference, converted in threads: matrices that multiply the same vector are one."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.models.matmul import Int8Matrix, Matrix, make_matrix
from engine.models.numpy_decoder import check_tensor
from engine.models.transformer_layout import head_size, transformer_weight_shapes
from engine.runtime.process import use_huge_pages
from engine.storage.quantization import Int8Rows
from engine.storage.tensor_file import StoredTensor, check_names, to_float32, to_int8

MAX_TRANSFORMER_WEIGHT = 1e4
"""Maximum absolute value of a weight, so that vectors between the layers of models of usual sizes are finite."""
Number = TypeVar("Number", np.float32, np.int8)


@dataclass(frozen=True)
class TransformerLayer:
    """Weights of one layer."""

    attention_norm: Float32Array  # [width]
    qkv: Matrix
    """`[query, key and value units, width]`; units of queries and keys are in the order of `pair_units`."""
    qkv_bias: Float32Array | None
    output: Matrix  # [width, query units]
    feed_forward_norm: Float32Array  # [width]
    gate_up: Matrix
    """`[2 inner, width]`: halves of the gates, and then the values that they are multiplied by."""
    down: Matrix  # [width, inner]


@dataclass(frozen=True)
class TransformerWeights:
    """All weights of a model."""

    embedding: StoredTensor  # [vocabulary, width]
    layers: list[TransformerLayer]
    final_norm: Float32Array  # [width]
    output: Matrix  # [vocabulary, width]
    has_int8: bool
    """True if a matrix was stored in 8 bits."""

    def use_huge_pages(self) -> None:
        """Move matrices in 8 bits into huge pages, in which a product is about an eighth faster."""
        layers = (matrix for each in self.layers for matrix in (each.qkv, each.output, each.gate_up, each.down))
        use_huge_pages(matrix.memory for matrix in (*layers, self.output) if isinstance(matrix, Int8Matrix))


def prepare_weights(
    config: ModelConfig, vocabulary_size: int, weights: Mapping[str, StoredTensor], *, int8: bool
) -> TransformerWeights:
    """Check and convert tensors, named as in `transformer_weight_shapes`; with `int8`, all matrices have 8 bits.

    Each tensor is read once, in a thread, so that those of a mapping that computes them are not in memory together.

    Raises:
        RunError: If a tensor is missing, unknown, of the wrong shape, or contains NaN or huge values.
        InvalidInputError: If 8 bits are needed and numkong is not installed.
    """
    reader = _Reader(config, vocabulary_size, weights, int8)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        embedding = threads.submit(reader.matrix, "model.embed_tokens.weight")
        untied = None if config.tie_weights else threads.submit(reader.matrix, "lm_head.weight")
        output = threads.submit(lambda: make_matrix((untied or embedding).result()))
        layers = list(threads.map(reader.layer, range(config.num_layers)))
        final_norm = reader.vector("model.norm.weight")
        return TransformerWeights(embedding.result(), layers, final_norm, output.result(), reader.has_int8)


class _Reader:
    """Reading of tensors, each of which is checked."""

    def __init__(
        self, config: ModelConfig, vocabulary_size: int, weights: Mapping[str, StoredTensor], int8: bool
    ) -> None:
        self._shapes = transformer_weight_shapes(config, vocabulary_size)
        check_names(weights, self._shapes)
        self._weights, self._int8, self._head_size, self._has_bias = weights, int8, head_size(config), config.qkv_bias
        self.has_int8 = False

    def layer(self, index: int) -> TransformerLayer:
        """Read the weights of a layer."""
        attention, feed_forward = f"model.layers.{index}.self_attn", f"model.layers.{index}.mlp"
        queries, keys, values = (self.matrix(f"{attention}.{name}_proj.weight") for name in "qkv")
        gates, ups = (self.matrix(f"{feed_forward}.{name}_proj.weight") for name in ("gate", "up"))
        bias = None
        if self._has_bias:
            q, k, v = (self.vector(f"{attention}.{name}_proj.bias") for name in "qkv")
            bias = np.concatenate([pair_units(q, self._head_size), pair_units(k, self._head_size), v])
        return TransformerLayer(
            attention_norm=self.vector(f"model.layers.{index}.input_layernorm.weight"),
            qkv=_join([*(_pair_rows(matrix, self._head_size) for matrix in (queries, keys)), values]),
            qkv_bias=bias,
            output=_join([self.matrix(f"{attention}.o_proj.weight")]),
            feed_forward_norm=self.vector(f"model.layers.{index}.post_attention_layernorm.weight"),
            gate_up=_join([_halve(gates), ups]),
            down=_join([self.matrix(f"{feed_forward}.down_proj.weight")]),
        )

    def vector(self, name: str) -> Float32Array:
        """Return a tensor in single precision."""
        tensor = self._weights[name]
        check_tensor(name, tensor, self._shapes[name], MAX_TRANSFORMER_WEIGHT)
        return to_float32(tensor)

    def matrix(self, name: str) -> StoredTensor:
        """Return a tensor in the precision of the products."""
        tensor = self._weights[name]
        if isinstance(tensor, Int8Rows):
            self.has_int8 = True
        elif self._int8:
            tensor = to_int8(tensor)
        check_tensor(name, tensor, self._shapes[name], MAX_TRANSFORMER_WEIGHT)
        return tensor


def pair_units(units: npt.NDArray[Number], size: int) -> npt.NDArray[Number]:
    """Reorder the first axis, heads of `size` units, so that both units of each pair are neighbours.

    Unit `i` of the first half of a head and unit `i` of its second half are rotated together, see
    `rotary_frequencies`. Products of queries and keys do not depend on the order of the units.
    """
    heads = units.reshape(-1, 2, size // 2, *units.shape[1:])
    return heads.swapaxes(1, 2).reshape(units.shape)


def _pair_rows(matrix: StoredTensor, size: int) -> StoredTensor:
    if isinstance(matrix, Int8Rows):
        return Int8Rows(pair_units(matrix.values, size), pair_units(matrix.scales, size))
    return pair_units(matrix, size)


def _halve(matrix: StoredTensor) -> StoredTensor:
    if isinstance(matrix, Int8Rows):
        return Int8Rows(matrix.values, matrix.scales * np.float32(0.5))
    halved: Float32Array = matrix * np.float32(0.5)
    return halved


def _join(parts: Sequence[StoredTensor]) -> Matrix:
    """Return one matrix with the rows of all parts, in 8 bits if all of them are."""
    rows = [part for part in parts if isinstance(part, Int8Rows)]
    if len(rows) < len(parts):
        return make_matrix(np.concatenate([to_float32(part) for part in parts]), by_columns=True)
    return make_matrix(
        Int8Rows(np.concatenate([part.values for part in rows]), np.concatenate([part.scales for part in rows]))
    )
