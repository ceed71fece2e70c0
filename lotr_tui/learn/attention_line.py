"""Earlier words that the heads of a Transformer look back at from one word of a typed line."""

from collections.abc import Sequence

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


def describe_head(name: str, words: Sequence[str], weights: Float32Array) -> str:
    """Return a sentence about the weights `[positions]` of a head from the start of a line to the word that looks."""
    text = f'{name}: "{words[len(weights) - 1]}"'
    if (strongest := strongest_earlier(weights)) is None:
        return f"{text} is the first word, so it can look only at the start and at itself"
    position, weight = strongest
    own = format_weight(float(weights[-1]))
    return f'{text} looks {format_weight(weight)} at "{words[position]}", {own} at itself'


def format_weight(weight: float) -> str:
    """Return a weight as a percentage of at most four cells."""
    return "100%" if weight >= 0.995 else f"{100 * weight:.0f} %"
