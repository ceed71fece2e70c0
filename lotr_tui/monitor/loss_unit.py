"""Unit of the figures of a training: perplexity, or bits per character where another model made the tokens."""

import math
from dataclasses import dataclass

from engine.events import Started
from lotr_tui.formatting import MISSING, PRETRAINED_NOTE, format_perplexity


@dataclass(frozen=True)
class LossUnit:
    """Unit in which perplexities are shown."""

    tokens_per_character: float = 0.0  # of the validation split, by which training perplexities are converted too
    is_perplexity: bool = True
    name: str = "perplexity"
    title: str = "perplexity"  # the name with remarks on the figures

    @classmethod
    def of(cls, started: Started | None) -> "LossUnit":
        """Return the unit of a training: bits per character if it starts from a model by others."""
        if started is None or not started.base or not started.valid_characters:
            return PERPLEXITY
        ratio, name = started.valid_tokens / started.valid_characters, "bits/character"
        return cls(ratio, False, name, f"{name}, {PRETRAINED_NOTE}")

    def value(self, perplexity: float) -> float:
        """Return a perplexity, which is positive, in this unit."""
        return perplexity if self.is_perplexity else math.log2(perplexity) * self.tokens_per_character

    def perplexity(self, value: float) -> float:
        """Return the perplexity of a value in this unit."""
        return value if self.is_perplexity else 2.0 ** (value / self.tokens_per_character)

    def format(self, perplexity: float | None) -> str:
        """Return a perplexity in this unit as text, and "-" if it is unknown or not finite."""
        if self.is_perplexity or perplexity is None:
            return format_perplexity(perplexity)
        return f"{self.value(perplexity):.3f}" if math.isfinite(perplexity) and perplexity > 0 else MISSING


PERPLEXITY = LossUnit()
"""The unit of most trainings."""
