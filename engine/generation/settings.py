"""How words are to be drawn, as people ask for it; apart from the drawing, so that it is read without numpy."""

import os
from dataclasses import dataclass

from engine.errors import UnusableInput

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class SamplerSettings:
    """How a word is drawn. The stages apply in the order of the fields; the defaults of all but temperature are off."""

    repetition_penalty: float = 1.0
    """Above 1, words already in the text become less likely (Keskar et al. 2019, section 4.1)."""
    temperature: float = 0.8
    """0 always takes the likeliest word; 1 is the model's own distribution; 2 is wild."""
    top_k: int = 0
    """Keep the k likeliest words; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest words that together have this probability (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Keep words at least this share as likely as the likeliest."""
    max_tokens: int = 30
    """At most so many words."""

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, 0, 2, "0 is greedy, 1 is the model's own distribution")
        _within("top-k", self.top_k, 0, 1_000_000, "0 keeps all words")
        _within("top-p", self.top_p, 0, 1, "1 keeps all words", open_low=True)
        _within("min-p", self.min_p, 0, 1, "0 keeps all words")
        _within("repetition-penalty", self.repetition_penalty, 0.1, 10, "1 is off")
        _within("max-tokens", self.max_tokens, 1, 1_000_000, "30 is usual")

    def chain(self) -> str:
        """The stages in effect, in order, for people to read."""
        stages = [f"temperature {self.temperature:.2f}" if self.temperature else "greedy (temperature 0)"]
        if self.repetition_penalty != 1:
            stages.insert(0, f"repetition penalty {self.repetition_penalty:g}")
        if self.top_k:
            stages.append(f"top-k {self.top_k}")
        if self.top_p < 1:
            stages.append(f"top-p {self.top_p:g}")
        if self.min_p:
            stages.append(f"min-p {self.min_p:g}")
        return " → ".join(stages)


def draw_seed() -> int:
    """A seed for someone who named none; small enough to be typed again."""
    return int.from_bytes(os.urandom(8)) % 1_000_000


def check_seed(seed: int) -> None:
    """Refuse a seed that no generator takes.

    Raises:
        UnusableInput: it is out of range.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UnusableInput(f"seed {seed} is out of range; use a whole number from 0 to {MAX_SEED}")


def _within(name: str, value: float, low: float, high: float, hint: str, *, open_low: bool = False) -> None:
    if not low <= value <= high or (open_low and value == low):  # NaN fails the comparison
        bracket = "(" if open_low else "["
        raise UnusableInput(f"{name} {value} is out of range; use a number in {bracket}{low:g}, {high:g}]; {hint}")
