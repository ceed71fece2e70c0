"""The weights of a Transformer's layers for inference: matrices that are multiplied by the same vector are one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.models.matmul import Float32Matrix, Int8Matrix, Matrix, make_matrix
from engine.storage.quantization import Int8Rows
from engine.storage.tensor_file import StoredTensor, to_float32


@dataclass(frozen=True)
class TransformerLayer:
    """Weights of one layer."""

    attention_norm: Float32Array  # [width]
    qkv: Matrix
    """`[query and key and value units, width]`: first queries, then keys and values."""
    qkv_bias: Float32Array | None
    output: Matrix  # [width, query units]
    feed_forward_norm: Float32Array  # [width]
    gate_up: Matrix
    """`[2 inner, width]`: first the gates, then the values that they are multiplied by."""
    down: Matrix  # [width, inner]


class _MatrixRows(NamedTuple):
    """Rows of a matrix that are one tensor of the model."""

    matrix: Float32Matrix | Int8Matrix
    start: int
    end: int


class TransformerTensors:
    """All tensors of a model. Tensors that a layer stores in another form are kept only in that form."""

    def __init__(self, weights: Mapping[str, StoredTensor], *, quantize: bool) -> None:
        """Use the tensors `weights`; with `quantize`, matrices in single precision are quantized for products."""
        self._tensors: dict[str, StoredTensor | _MatrixRows] = dict(weights)
        self._quantize = quantize
        self.has_int8 = any(isinstance(tensor, Int8Rows) for tensor in weights.values())
        """True if a matrix was stored in 8 bits."""

    def make_layers(self, config: ModelConfig) -> list[TransformerLayer]:
        """Convert the weights of all layers."""
        return [self._make_layer(f"model.layers.{index}", config.qkv_bias) for index in range(config.num_layers)]

    def _make_layer(self, prefix: str, has_bias: bool) -> TransformerLayer:
        biases = [self.vector(f"{prefix}.self_attn.{name}_proj.bias") for name in "qkv" if has_bias]
        return TransformerLayer(
            attention_norm=self.vector(f"{prefix}.input_layernorm.weight"),
            qkv=self._fuse([f"{prefix}.self_attn.{name}_proj.weight" for name in "qkv"]),
            qkv_bias=np.concatenate(biases) if biases else None,
            output=self._fuse([f"{prefix}.self_attn.o_proj.weight"]),
            feed_forward_norm=self.vector(f"{prefix}.post_attention_layernorm.weight"),
            gate_up=self._fuse([f"{prefix}.mlp.{name}_proj.weight" for name in ("gate", "up")]),
            down=self._fuse([f"{prefix}.mlp.down_proj.weight"]),
        )

    def vector(self, name: str) -> Float32Array:
        """Return a tensor in single precision."""
        tensor = self._tensors[name]
        assert not isinstance(tensor, _MatrixRows), name
        return to_float32(tensor)

    def _fuse(self, names: Sequence[str]) -> Matrix:
        """Return one matrix with the rows of the named ones, in 8 bits if all of them are."""
        parts = [tensor for name in names if not isinstance(tensor := self._tensors[name], _MatrixRows)]
        rows = [part for part in parts if isinstance(part, Int8Rows)]
        fused: StoredTensor
        if len(rows) == len(parts):
            fused = Int8Rows(
                np.concatenate([part.values for part in rows]), np.concatenate([part.scales for part in rows])
            )
        else:
            fused = np.concatenate([to_float32(part) for part in parts])
        matrix = make_matrix(fused, quantize=self._quantize, by_columns=True)
        if isinstance(matrix, Int8Matrix if rows else Float32Matrix) and len(rows) in (0, len(parts)):
            self._replace_by_rows(names, parts, matrix)
        return matrix

    def _replace_by_rows(
        self, names: Sequence[str], parts: Sequence[StoredTensor], matrix: Float32Matrix | Int8Matrix
    ) -> None:
        """Keep tensors only as rows of `matrix`, which has exactly their values."""
        start = 0
        for name, part in zip(names, parts, strict=True):
            end = start + len(part.scales if isinstance(part, Int8Rows) else part)
            self._tensors[name] = _MatrixRows(matrix, start, end)
            start = end

    def to_dict(self) -> dict[str, StoredTensor]:
        """Return all tensors by name, as they were given; tensors of layers are computed at every call."""
        rows_by_matrix: dict[int, StoredTensor] = {}
        tensors: dict[str, StoredTensor] = {}
        for name, tensor in self._tensors.items():
            if not isinstance(tensor, _MatrixRows):
                tensors[name] = tensor
                continue
            matrix, start, end = tensor
            if id(matrix) not in rows_by_matrix:
                rows_by_matrix[id(matrix)] = matrix.to_rows() if isinstance(matrix, Int8Matrix) else matrix.matrix
            whole = rows_by_matrix[id(matrix)]
            if isinstance(whole, Int8Rows):
                tensors[name] = Int8Rows(whole.values[start:end], whole.scales[start:end])
            else:
                tensors[name] = np.ascontiguousarray(whole[start:end])
        return tensors
