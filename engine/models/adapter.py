"""Low-rank adapters of a Transformer (Hu et al. 2021, arXiv 2106.09685): their tensors, and merging them into weights.

The matrix of a layer is W + lora_alpha / lora_rank · B A, with A `[rank, inputs]` and B `[outputs, rank]`.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.errors import ConfigError, suggest_nearest
from engine.models.transformer_layout import transformer_weight_shapes
from engine.models.weight_checks import check_weights
from engine.storage.quantization import quantize_rows
from engine.storage.tensor_file import StoredTensor, to_float32

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Matrices of a layer that can be changed."""
MAX_ADAPTER_WEIGHT = 1e4
"""Maximum absolute value of a number of an adapter."""


def lora_targets(config: ModelConfig) -> tuple[str, ...]:
    """Return the names of the matrices that an adapter changes, in the order of `LORA_TARGETS`.

    Raises:
        ConfigError: If the setting names no matrix, or an unknown one.
    """
    names = [name.strip() for name in config.lora_targets.split(",") if name.strip()]
    for name in names:
        if name not in LORA_TARGETS:
            nearest = suggest_nearest(name, LORA_TARGETS)
            raise ConfigError(f"lora_targets names {name!r}{nearest} The matrices: {', '.join(LORA_TARGETS)}")
    if not names:
        raise ConfigError(f"lora_targets={config.lora_targets} names no matrix; use some of {','.join(LORA_TARGETS)}")
    return tuple(name for name in LORA_TARGETS if name in names)


def lora_scale(config: ModelConfig) -> float:
    """Return the factor of the product B A."""
    return config.lora_alpha / config.lora_rank


def adapter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of an adapter; `NAME.lora_A.weight` belongs to the matrix `NAME.weight`.

    Raises:
        ConfigError: If the setting `lora_targets` is invalid.
    """
    targets, rank, shapes = lora_targets(config), config.lora_rank, dict[str, tuple[int, ...]]()
    for name, shape in transformer_weight_shapes(config, 0).items():
        matrix = name.removesuffix(".weight")
        if matrix.rpartition(".")[2] in targets and len(shape) == 2:
            shapes[f"{matrix}.lora_A.weight"] = (rank, shape[1])
            shapes[f"{matrix}.lora_B.weight"] = (shape[0], rank)
    return shapes


def check_adapter(config: ModelConfig, adapter: Mapping[str, StoredTensor]) -> None:
    """Raise a RunError if a tensor of an adapter is missing, unknown, of the wrong shape, or contains NaN."""
    check_weights(adapter, adapter_shapes(config), MAX_ADAPTER_WEIGHT)


def merge_adapter(
    config: ModelConfig, base: Mapping[str, StoredTensor], adapter: Mapping[str, StoredTensor], *, int8: bool
) -> dict[str, StoredTensor]:
    """Return the weights of the adapted model, with the names of `base`; `adapter` has passed `check_adapter`.

    The changed matrices are in single precision, or with `int8` in 8 bits; all other tensors are those of `base`.
    """
    scale = lora_scale(config)

    def merge(name: str) -> StoredTensor:
        """Merge one matrix, so that few of them are in single precision at once."""
        matrix = name.removesuffix(".weight")
        if f"{matrix}.lora_A.weight" not in adapter:
            return base[name]
        a, b = (to_float32(adapter[f"{matrix}.lora_{part}.weight"]) for part in "AB")
        merged: Float32Array = b @ a
        merged *= scale
        merged += to_float32(base[name])
        return quantize_rows(merged) if int8 else merged

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(base, pool.map(merge, base), strict=True))
