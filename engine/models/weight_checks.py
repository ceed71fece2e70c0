"""Checks of a model's tensors before they are used: names, shapes and magnitudes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import RunError
from engine.storage.quantization import Int8Rows
from engine.storage.tensor_file import SCALE_SUFFIX, StoredTensor, check_tensors

MAX_WEIGHT = 1e15
"""Maximum absolute value of a weight. Sums of products of two weights are then finite, and so are all probabilities."""
MAX_SCALE = MAX_WEIGHT / 128
"""Maximum scale of a row of 8-bit integers, which reach from -128 to 127."""


def check_weights(
    weights: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]], max_weight: float = MAX_WEIGHT
) -> None:
    """Raise a RunError unless the tensors have the given shapes and no number beyond `max_weight`."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in weights.items():
        if isinstance(tensor, Int8Rows):
            arrays[name], arrays[name + SCALE_SUFFIX] = tensor
        else:
            arrays[name] = tensor
    check_tensors({name: (str(array.dtype), array.shape) for name, array in arrays.items()}, shapes)
    for name, array in arrays.items():
        if array.dtype == np.int8:
            continue
        lowest, highest = float(array.min()), float(array.max())
        min_value, max_value = (-max_weight, max_weight) if name in shapes else (0.0, max_weight / 128)
        if not min_value <= lowest <= highest <= max_value:  # NaN fails the comparison
            value = highest if highest > max_value else lowest
            forbidden = "not finite" if name in shapes else "negative, not finite"
            raise RunError(
                f"{name} holds values that are {forbidden} or beyond {max_value:g}, such as {value:g}; "
                "the run is damaged"
            )
