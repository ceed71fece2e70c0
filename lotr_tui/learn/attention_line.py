"""What the heads of a Transformer look back at from one word of a typed line."""

from collections.abc import Iterable

import numpy as np

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import Tokenizer

EXAMPLE = "Frodo has the Ring, and Sam has the"
EXAMPLE_WORDS = range(6, 12)
"""Words of an example."""
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


def find_example(lines: Iterable[str], tokenizer: Tokenizer) -> str:
    """Return `EXAMPLE` if the tokenizer knows its words, or else the first of `lines` of ordinary length."""
    if not tokenizer.unknown_spans(EXAMPLE):
        return EXAMPLE
    return next((line for line in lines if len(line.split()) in EXAMPLE_WORDS), EXAMPLE)
