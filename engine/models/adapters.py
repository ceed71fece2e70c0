"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): their tensors, and products with them beside their base.

An adapter makes W + lora_alpha / lora_rank · B A of the matrix W of a layer, with A `[rank, inputs]` and B
`[outputs, rank]`. Beside W, the change is multiplied by a strength, which may differ from one product to the next.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.errors import ConfigError, suggest_nearest
from engine.models import weights as layout
from engine.storage.tensor_file import Int8Rows, StoredTensor, quantize_rows, to_float32

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_ADAPTER_WEIGHT = 1e4
ROW_MULTIPLE = 8  # products with another number of rows take a third longer


def lora_targets(config: ModelConfig) -> tuple[str, ...]:
    """Return the names of the matrices that an adapter changes; a ConfigError if there is none or an unknown one."""
    names = [name.strip() for name in config.lora_targets.split(",") if name.strip()]
    for name in names:
        if name not in LORA_TARGETS:
            nearest = suggest_nearest(name, LORA_TARGETS)
            raise ConfigError(f"lora_targets names {name!r}{nearest} The matrices: {', '.join(LORA_TARGETS)}")
    if not names:
        raise ConfigError(f"lora_targets={config.lora_targets} names no matrix; use some of {','.join(LORA_TARGETS)}")
    return tuple(name for name in LORA_TARGETS if name in names)


def adapter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of an adapter; `NAME.lora_A.weight` belongs to the matrix `NAME.weight`."""
    targets, rank, shapes = lora_targets(config), config.lora_rank, dict[str, tuple[int, ...]]()
    for name, shape in layout.weight_shapes(config, 0).items():
        matrix = name.removesuffix(".weight")
        if matrix.rpartition(".")[2] in targets and len(shape) == 2:
            shapes[f"{matrix}.lora_A.weight"] = (rank, shape[1])
            shapes[f"{matrix}.lora_B.weight"] = (shape[0], rank)
    return shapes


@dataclass(frozen=True, eq=False)
class Adapter:
    """The change that a training made of a base."""

    name: str
    config: ModelConfig  # of the run
    tensors: Mapping[str, StoredTensor]  # as `adapter_shapes` lists them

    def change(self, matrix: str) -> tuple[Float32Array, Float32Array] | None:
        """Return A, and B times lora_alpha / lora_rank, of the matrix with this name; None if it does not change."""
        name = matrix.removesuffix(".weight")
        if f"{name}.lora_A.weight" not in self.tensors:
            return None
        first, second = (to_float32(self.tensors[f"{name}.lora_{part}.weight"]) for part in "AB")
        return first, second * np.float32(self.config.lora_alpha / self.config.lora_rank)

    def norms(self) -> dict[str, list[float]]:
        """Return the Frobenius norm of the change of each layer, by the name of the matrix."""
        norms: dict[str, list[float]] = {name: [] for name in lora_targets(self.config)}
        for name in adapter_shapes(self.config):
            matrix, _, part = name.partition(".lora_")
            if part == "A.weight" and (change := self.change(matrix)):
                # The trace of (BA)ᵀBA is the sum of the products of the elements of BᵀB and AAᵀ, which are symmetric.
                square = np.sum((change[1].T @ change[1]) * (change[0] @ change[0].T), dtype=np.float64)
                norms[matrix.rpartition(".")[2]].append(math.sqrt(max(0.0, float(square))))
        return norms


@dataclass(frozen=True, eq=False)
class MergedWeights(Mapping[str, StoredTensor]):
    """Weights of a base with adapters at their strengths, in single precision, each computed when it is read."""

    base: Mapping[str, StoredTensor]
    adapters: Sequence[tuple[Adapter, float]]

    def __getitem__(self, name: str) -> Float32Array:
        merged = to_float32(self.base[name])
        for adapter, strength in self.adapters:
            if change := adapter.change(name):
                merged = merged + np.float32(strength) * (change[1] @ change[0])
        return merged

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)


# Index of the adapter, which chooses the strength, its A, and its B with its scale.
LowRankChange = tuple[int, Float32Array, Float32Array]


class AdaptedMatrix:
    """Matrices joined by rows, with changes beside them, which has the same products as a `layout.Matrix`.

    The rows of all A's follow the rows of the matrices, so that one product reads both. Products with all B's are in
    single precision, and together too: groups of as many rows of one matrix are a batch.
    """

    def __init__(self, parts: Sequence[StoredTensor], changes: Sequence[Sequence[LowRankChange]]) -> None:
        """Join `parts`, each with its `changes`, whose strengths are 0."""
        sizes = [len(part.scales if isinstance(part, Int8Rows) else part) for part in parts]
        size = math.gcd(*sizes)
        rank = max(sum(len(first) for _, first, _ in each) for each in changes)
        num_inputs = next(first.shape[1] for each in changes for _, first, _ in each)
        firsts = np.zeros((-(-len(parts) * rank // ROW_MULTIPLE) * ROW_MULTIPLE, num_inputs), np.float32)
        seconds, self._adapters = np.zeros((sum(sizes), rank), np.float32), np.zeros((len(parts), rank), np.intp)
        for part, own in enumerate(changes):
            start, outputs = 0, slice(sum(sizes[:part]), sum(sizes[: part + 1]))
            for adapter, first, second in own:
                ranks = slice(start, start := start + len(first))
                firsts[part * rank : (part + 1) * rank][ranks] = first
                seconds[outputs, ranks], self._adapters[part, ranks] = second, adapter
        is_int8 = all(isinstance(part, Int8Rows) for part in parts)
        self.joined = layout.join_rows(*parts, quantize_rows(firsts) if is_int8 else firsts)
        # [groups, rank, rows of a group]
        self._seconds = np.ascontiguousarray(seconds.reshape(-1, size, rank).swapaxes(1, 2))
        self._part_of_group = np.repeat(np.arange(len(parts)), [rows // size for rows in sizes])
        self._outputs, self._firsts = slice(0, sum(sizes)), slice(sum(sizes), sum(sizes) + len(parts) * rank)
        self._strengths = np.zeros((len(parts), 1, rank), np.float32)

    def at(self, strengths: Float32Array) -> Self:
        """Return the same matrix with other strengths `[adapters]`."""
        matrix = copy.copy(self)
        matrix._strengths = strengths[self._adapters][:, None]
        return matrix

    def matmul(self, vectors: Float32Array) -> Float32Array:
        joined = self.joined.matmul(vectors)
        strengths = self._strengths[:, 0]
        firsts = joined[..., self._firsts].reshape(-1, *strengths.shape) * strengths
        groups = firsts[:, self._part_of_group].swapaxes(0, 1)  # [groups, vectors, rank]
        changes: Float32Array = np.matmul(groups, self._seconds)
        products = changes.swapaxes(0, 1).reshape(*vectors.shape[:-1], -1)
        products += joined[..., self._outputs]
        return products

    def matmul_each(
        self, vectors: Float32Array, factors: Sequence[float] | None = None, plus: Float32Array | None = None
    ) -> Float32Array:
        joined = self.joined.matmul_each(vectors, factors)
        firsts = joined[:, self._firsts].reshape(len(vectors), *self._strengths.shape) * self._strengths
        if len(self._part_of_group) > firsts.shape[1]:
            firsts = firsts.take(self._part_of_group, axis=1)
        # A product of each vector alone, of one group after the other, whose B is then in the processor's cache.
        changes: Float32Array = np.matmul(firsts.swapaxes(0, 1), self._seconds[:, None])
        products = changes.swapaxes(0, 1).reshape(len(vectors), -1)
        products += joined[:, self._outputs]
        if plus is not None:
            products += plus
        return products
