"""The interface of trained networks for inference in numpy, and the check of their tensors."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import TokenIds, Tokenizer
from engine.errors import RunError
from engine.models.base import HiddenVector, LogProbs, ModelState, SequenceOutput
from engine.storage.quantization import Int8Rows
from engine.storage.tensor_file import SCALE_SUFFIX, StoredTensor, check_names, check_tensors, to_float32

MAX_WEIGHT = 1e15
"""Maximum absolute value of a weight. Sums of products of two weights are then finite, and so are all probabilities."""


class NumpyDecoder(ABC):
    """A trained network as a `LanguageModel`. The model itself never changes, so threads may share it."""

    tokenizer: Tokenizer
    config: ModelConfig
    int8: bool
    """True if weights in single precision were quantized for inference."""

    @property
    @abstractmethod
    def has_int8_weights(self) -> bool:
        """True if a matrix was stored in 8 bits."""

    @property
    @abstractmethod
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Tensors by name, as they were given."""

    @property
    def weights(self) -> dict[str, Float32Array]:
        """The same tensors in single precision; those in 8 bits are computed at every access."""
        return {name: to_float32(tensor) for name, tensor in self.tensors.items()}

    @abstractmethod
    def start(self) -> ModelState: ...

    @abstractmethod
    def advance(self, state: Any, token: int) -> tuple[LogProbs, ModelState]: ...

    @abstractmethod
    def hidden_vector(self, state: Any) -> HiddenVector: ...

    @abstractmethod
    def _iter_chunks(self, ids: TokenIds) -> Iterator[tuple[Float32Array, Float32Array]]:
        """Yield the distributions `[time, vocabulary]` of consecutive tokens, and their vectors `[time, width]`."""

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        start = 0
        for log_probs, hidden in self._iter_chunks(ids):
            targets = ids[start : start + len(hidden)]
            yield SequenceOutput(log_probs[np.arange(len(targets)), targets].astype(np.float64), hidden)
            start += len(hidden)


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
        check_tensor(name, tensor, shapes[name], max_weight)


def check_tensor(name: str, tensor: StoredTensor, shape: tuple[int, ...], max_weight: float = MAX_WEIGHT) -> None:
    """Raise a RunError unless a tensor has the given shape and no number beyond `max_weight`."""
    if isinstance(tensor, Int8Rows):
        arrays: dict[str, npt.NDArray[Any]] = {name: tensor.values, name + SCALE_SUFFIX: tensor.scales}
        min_value, max_value, forbidden = 0.0, max_weight / 128, "negative, not finite"
    else:
        arrays, min_value, max_value, forbidden = {name: tensor}, -max_weight, max_weight, "not finite"
    check_tensors({key: (str(array.dtype), array.shape) for key, array in arrays.items()}, {name: shape})
    checked, numbers = list(arrays.items())[-1]
    lowest, highest = float(numbers.min()), float(numbers.max())
    if not min_value <= lowest <= highest <= max_value:  # NaN fails the comparison
        value = highest if highest > max_value else lowest
        raise RunError(
            f"{checked} holds values that are {forbidden} or beyond {max_value:g}, such as {value:g}; "
            "the run is damaged"
        )
