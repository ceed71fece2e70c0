"""Line that shows how strongly the rounds of a mogrifier scale the input and the hidden values on one token."""

from collections.abc import Sequence

import numpy as np
from rich.cells import cell_len

from engine.data.arrays import Float32Array

TARGETS = "layer input", "hidden"
"""Names of what the rounds multiply in turn: the layer's input and its hidden values before the token."""
EXPLANATION = "layer input and last hidden scale each other in turn: mean (range)"


def mogrifier_line(factors: Sequence[Float32Array], width: int) -> tuple[str, str]:
    """Return the most detailed description of `factors` that fits `width` cells, and an explanation if it fits too.

    `factors` are those of each round `[size]`. A description that does not fit leaves out the ranges, and then the
    rounds: the factors of the same target are multiplied.
    """
    rounds = [(TARGETS[index % 2], factor) for index, factor in enumerate(factors)]
    products = [
        (TARGETS[first], np.prod(factors[first::2], axis=0)) for first in range(min(len(TARGETS), len(factors)))
    ]
    forms = [
        _join([f"{target} {_describe(factor, with_range=True)}" for target, factor in rounds]),
        _join([f"{target} {_describe(factor, with_range=False)}" for target, factor in rounds]),
        _join([f"{target} {_describe(factor, with_range=True)}" for target, factor in products]),
        _join([f"{target} {_describe(factor, with_range=False)}" for target, factor in products]),
    ]
    form = next((form for form in forms if cell_len(form) <= width), forms[-1])
    return form, EXPLANATION if form is forms[0] and cell_len(form) + len(EXPLANATION) + 3 <= width else ""


def _join(parts: Sequence[str]) -> str:
    return f"mogrifier  {'  '.join(parts)}"


def _describe(factor: Float32Array, *, with_range: bool) -> str:
    text = f"×{factor.mean():.2f}"
    return f"{text} ({factor.min():.1f}–{factor.max():.1f})" if with_range else text
