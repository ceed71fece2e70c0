"""Earlier words that the heads of a Transformer look back at from one word of a typed line."""

import numpy as np

from engine.data.arrays import Float32Array

EXAMPLE = "Frodo has the Ring, and Sam has the"
GOAL = 0.5
"""Weight that the head which a student looks for exceeds."""


def strongest_earlier(weights: Float32Array) -> tuple[int, float] | None:
    """Return the earlier word with the largest weight, and the weight.

    The start of the text is not a word, and the word itself is not an earlier one.

    Args:
        weights: Weights `[positions]` of the start, the earlier words and the word itself, which is the last.

    Returns:
        The position and its weight; None for the first word of the text.
    """
    earlier = weights[1:-1]
    if not len(earlier):
        return None
    position = 1 + int(np.argmax(earlier))
    return position, float(weights[position])
