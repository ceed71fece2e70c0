"""Sampler settings and seeds. This module imports no numpy, so that screens and the CLI start fast."""

import os
from dataclasses import dataclass

from engine.errors import InvalidInputError

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class SamplerSettings:
    """Settings of the sampler chain, which are checked. Its stages apply in the order of the fields."""

    repetition_penalty: float = 1.0
    """Penalty on words that are already in the text (Keskar et al. 2019, section 4.1), never on `<eos>`; 1: off."""
    temperature: float = 0.8
    """Divisor of the log-probabilities; 0: always the likeliest token, 1: the model's own distribution."""
    top_k: int = 0
    """Number of likeliest tokens to keep; 0: all."""
    top_p: float = 1.0
    """Total probability of the likeliest tokens to keep (Holtzman et al. 2020); 1: all."""
    min_p: float = 0.0
    """Minimum probability of the tokens to keep, as a fraction of the likeliest token's; 0: all."""
    max_tokens: int = 30

    def __post_init__(self) -> None:
        _check_range("temperature", self.temperature, 0, 2, "0 is greedy, 1 is the model's own distribution")
        _check_range("top-k", self.top_k, 0, 1_000_000, "0 keeps all words")
        _check_range("top-p", self.top_p, 0, 1, "1 keeps all words", exclude_minimum=True)
        _check_range("min-p", self.min_p, 0, 1, "0 keeps all words")
        _check_range("repetition-penalty", self.repetition_penalty, 0.1, 10, "1 is off")
        _check_range("max-tokens", self.max_tokens, 1, 1_000_000, "30 is usual")

    def describe(self) -> str:
        """Return the active stages in the order they apply, for people to read."""
        stages = [f"temperature {self.temperature:.2f}" if self.temperature else "greedy (temperature 0)"]
        if self.repetition_penalty != 1:
            stages.insert(0, f"penalty {self.repetition_penalty:g}")
        return " → ".join([*stages, *self._describe_filters()])

    def describe_filters(self) -> str:
        """Return the active stages that remove tokens, for people to read; "" if there are none."""
        return " → ".join([*([] if self.temperature else ["greedy"]), *self._describe_filters()])

    def _describe_filters(self) -> list[str]:
        filters = []
        if self.top_k:
            filters.append(f"top-k {self.top_k}")
        if self.top_p < 1:
            filters.append(f"top-p {self.top_p:g}")
        if self.min_p:
            filters.append(f"min-p {self.min_p:g}")
        return filters


def random_seed() -> int:
    """Return a random seed of at most six digits, short enough to type again."""
    return int.from_bytes(os.urandom(8)) % 1_000_000


def check_seed(seed: int) -> None:
    """Raise an InvalidInputError if NumPy's generators do not accept a seed."""
    if not 0 <= seed <= MAX_SEED:
        raise InvalidInputError(f"seed {seed} is out of range; use a whole number from 0 to {MAX_SEED}")


def _check_range(
    name: str, value: float, minimum: float, maximum: float, hint: str, *, exclude_minimum: bool = False
) -> None:
    if not minimum <= value <= maximum or (exclude_minimum and value == minimum):  # NaN fails the comparison
        allowed = f"above {minimum:,}, at most {maximum:,}" if exclude_minimum else f"from {minimum:,} to {maximum:,}"
        raise InvalidInputError(f"{name} {value} is out of range; use a number {allowed}; {hint}")
