"""Low-rank adapters of a Transformer (Hu et al. 2021, arXiv 2106.09685): their tensors, and merging them into weights.

The matrix of a layer is W + lora_alpha / lora_rank · B A, with A `[rank, inputs]` and B `[outputs, rank]`.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.errors import ConfigError, suggest_nearest
from engine.models.matrices import check_weights
from engine.models.transformer_layout import transformer_weight_shapes
from engine.storage.tensor_file import Int8Rows, StoredTensor, quantize_rows, to_float32, to_int8

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_ADAPTER_WEIGHT = 1e4
BLOCK_SIZE = 2**16  # numbers merged at once stay in the processor's cache: three times as fast as a whole matrix


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
    for name, shape in transformer_weight_shapes(config, 0).items():
        matrix = name.removesuffix(".weight")
        if matrix.rpartition(".")[2] in targets and len(shape) == 2:
            shapes[f"{matrix}.lora_A.weight"] = (rank, shape[1])
            shapes[f"{matrix}.lora_B.weight"] = (shape[0], rank)
    return shapes


def check_adapter(config: ModelConfig, adapter: Mapping[str, StoredTensor]) -> None:
    """Raise a RunError if a tensor of an adapter is of the wrong shape, or contains NaN or huge values."""
    for name, shape in adapter_shapes(config).items():
        check_weights({name: adapter[name]}, {name: shape}, MAX_ADAPTER_WEIGHT)


class MergedWeights(Mapping[str, StoredTensor]):
    """Weights of a model with an adapter, or none, in 8 bits or single precision, each computed when it is read."""

    def __init__(
        self, config: ModelConfig, base: Mapping[str, StoredTensor], adapter: Mapping[str, StoredTensor], *, int8: bool
    ) -> None:
        self._base, self._adapter, self._int8 = base, adapter, int8
        self._scale = np.float32(config.lora_alpha / max(1, config.lora_rank))

    def __getitem__(self, name: str) -> StoredTensor:
        matrix = name.removesuffix(".weight")
        if f"{matrix}.lora_A.weight" not in self._adapter:
            return (to_int8 if self._int8 else to_float32)(self._base[name])
        first, second = (to_float32(self._adapter[f"{matrix}.lora_{part}.weight"]) for part in "AB")
        second = second * self._scale
        base = self._base[name]
        if not self._int8:
            return second @ first + to_float32(base)
        import numkong

        # OpenBLAS would compute these products in more threads, which wait for each other.
        packed, halves = numkong.dots_pack(np.ascontiguousarray(first.T, np.float16)), second.astype(np.float16)
        values, scales = np.empty((len(second), first.shape[1]), np.int8), np.empty(len(second), np.float32)
        step = max(1, BLOCK_SIZE // first.shape[1])
        for start in range(0, len(second), step):
            rows = slice(start, start + step)
            block: Float32Array = np.asarray(numkong.dots_packed(halves[rows], packed))
            block += base.values[rows] * base.scales[rows, None] if isinstance(base, Int8Rows) else base[rows]
            values[rows], scales[rows] = quantize_rows(block)
        return Int8Rows(values, scales)

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)
