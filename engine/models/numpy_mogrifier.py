"""Mogrifier of an LSTM layer in numpy; `engine.models.mogrifier` has its equations."""

from collections.abc import Mapping

import numpy as np

from engine.data.arrays import Float32Array
from engine.models.matmul import Float32Matrix, Matrix
from engine.storage.tensor_file import StoredTensor, to_float32

MAX_GATE_WEIGHT = 1e6
"""Largest weight of a mogrifier; a training comes nowhere near it."""

MogrifierRounds = tuple[tuple[Matrix, Matrix], ...]
"""Matrices `[rank, source]` and `[target, rank]` of each round; the second one is halved, as `mogrify` expects."""


def make_rounds(weights: Mapping[str, StoredTensor], layer: int, num_rounds: int) -> MogrifierRounds:
    """Convert the weights of a layer's mogrifier."""
    return tuple(
        (
            Float32Matrix(_clip(weights[f"mogrifiers.{layer}.down.{index}"])),
            Float32Matrix(_clip(weights[f"mogrifiers.{layer}.up.{index}"]) * np.float32(0.5)),
        )
        for index in range(num_rounds)
    )


def mogrify(
    rounds: MogrifierRounds, inputs: Float32Array, hidden: Float32Array
) -> tuple[Float32Array, Float32Array, tuple[Float32Array, ...]]:
    """Let the inputs `[..., input]` and hidden states `[..., hidden]` gate each other.

    Returns:
        The gated inputs and hidden states, and the factors, 0 to 2, by which each round multiplied its target.
    """
    factors = []
    for index, (down, up) in enumerate(rounds):
        factor = up.matmul(down.matmul(hidden if index % 2 == 0 else inputs))
        np.tanh(factor, out=factor)
        factor += 1  # 2 sigmoid(x) = 1 + tanh(x / 2)
        if index % 2 == 0:
            inputs = factor * inputs
        else:
            hidden = factor * hidden
        factors.append(factor)
    return inputs, hidden, tuple(factors)


def _clip(tensor: StoredTensor) -> Float32Array:
    """Return a matrix without the huge weights that would overflow in a product of two matrices."""
    clipped: Float32Array = np.clip(to_float32(tensor), -MAX_GATE_WEIGHT, MAX_GATE_WEIGHT)
    return clipped
