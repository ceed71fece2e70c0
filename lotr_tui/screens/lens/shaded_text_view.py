"""View of a text in which words are shaded by a difference in bits."""

from typing import ClassVar

import numpy as np

from lotr_tui.screens.text.view import TokenTextView

DIFFERENCE_THRESHOLDS = (-3.0, -1.0, 1.0, 3.0)
"""Bits that separate the five shades of a difference."""
DIFFERENCE_COMPONENT_CLASSES = ("lens--much-worse", "lens--worse", "lens--even", "lens--better", "lens--much-better")


class ShadedTextView(TokenTextView):
    """Words with shades of two colours; each shade also differs in text style, for terminals without colour."""

    DEFAULT_CSS = """
    ShadedTextView > .lens--even { color: $foreground; text-style: dim; }
    ShadedTextView > .lens--better { color: $foreground; background: $success 20%; text-style: underline; }
    ShadedTextView > .lens--much-better { color: $foreground; background: $success 45%; text-style: bold underline; }
    ShadedTextView > .lens--worse { color: $foreground; background: $error 20%; }
    ShadedTextView > .lens--much-worse { color: $foreground; background: $error 45%; text-style: bold; }
    ShadedTextView:ansi {
        & > .lens--better { color: $success; background: $background; }
        & > .lens--much-better { color: $block-cursor-foreground; background: $success; }
        & > .lens--worse { color: $error; background: $background; }
        & > .lens--much-worse { color: $block-cursor-foreground; background: $error; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {*DIFFERENCE_COMPONENT_CLASSES}


def difference_class(bits: float) -> str:
    """Return the component class of a difference in bits; "better" is above 0."""
    return DIFFERENCE_COMPONENT_CLASSES[int(np.digitize(bits, DIFFERENCE_THRESHOLDS))]
