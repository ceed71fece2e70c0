"""Checks of a model's tensors before they are used: names, shapes and magnitudes."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from engine.errors import RunError
from engine.storage.quantization import Int8Rows
from engine.storage.tensor_file import SCALE_SUFFIX, StoredTensor, check_names, check_tensors

MAX_WEIGHT = 1e15
"""Maximum absolute value of a weight. Sums of products of two weights are then finite, and so are all probabilities."""


def check_weights(
    weights: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]], max_weight: float = MAX_WEIGHT
) -> None:
    """Raise a RunError unless the tensors have the given shapes and no number beyond `max_weight`."""
    check_names(weights, shapes)
    for name, tensor in weights.items():
        check_tensor(name, tensor, shapes[name], max_weight)


def check_tensor(name: str, tensor: StoredTensor, shape: tuple[int, ...], max_weight: float = MAX_WEIGHT) -> None:
    """Raise a RunError unless a tensor has the given shape and no number beyond `max_weight`."""
    if isinstance(tensor, Int8Rows):
        arrays: dict[str, npt.NDArray[Any]] = {name: tensor.values, name + SCALE_SUFFIX: tensor.scales}
        numbers, min_value, max_value, forbidden = tensor.scales, 0.0, max_weight / 128, "negative, not finite"
    else:
        arrays, numbers, min_value, max_value = {name: tensor}, tensor, -max_weight, max_weight
        forbidden = "not finite"
    check_tensors({key: (str(array.dtype), array.shape) for key, array in arrays.items()}, {name: shape})
    lowest, highest = float(numbers.min()), float(numbers.max())
    if not min_value <= lowest <= highest <= max_value:  # NaN fails the comparison
        value = highest if highest > max_value else lowest
        *_, checked = arrays
        raise RunError(
            f"{checked} holds values that are {forbidden} or beyond {max_value:g}, such as {value:g}; "
            "the run is damaged"
        )
