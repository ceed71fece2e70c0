"""Sampler settings and seeds, without numpy, so that screens and the CLI start fast."""

import os
from dataclasses import dataclass

from engine.errors import InvalidInputError

MAX_SEED = 2**63 - 1
_RANGES = {
    "temperature": (0, 2, "0 is greedy, 1 is the model's own distribution"),
    "top_k": (0, 1_000_000, "0 keeps all words"),
    "top_p": (0, 1, "1 keeps all words"),
    "min_p": (0, 1, "0 keeps all words"),
    "repetition_penalty": (0.1, 10, "1 is off"),
    "max_tokens": (1, 1_000_000, "30 is usual"),
}


@dataclass(frozen=True)
class SamplerSettings:
    """Settings of the sampler chain, which are checked. Its stages apply in the order of the fields."""

    repetition_penalty: float = 1.0  # of words that are in the text (Keskar et al. 2019, section 4.1), never of `<eos>`
    temperature: float = 0.8  # divisor of the log-probabilities
    top_k: int = 0  # likeliest tokens to keep
    top_p: float = 1.0  # total probability of the likeliest tokens to keep (Holtzman et al. 2020)
    min_p: float = 0.0  # minimum probability of the tokens to keep, as a fraction of the likeliest token's
    max_tokens: int = 30

    def __post_init__(self) -> None:
        for name, (minimum, maximum, hint) in _RANGES.items():
            value, is_open = getattr(self, name), name == "top_p"
            if not minimum <= value <= maximum or (is_open and value == minimum):  # NaN fails the comparison
                allowed = f"above {minimum}, at most {maximum}" if is_open else f"from {minimum:,} to {maximum:,}"
                name = name.replace("_", "-")
                raise InvalidInputError(f"{name} {value} is out of range; use a number {allowed}; {hint}")

    def describe(self, *, only_filters: bool = False) -> str:
        """Return the active stages in their order, or only the filters of tokens, for people to read."""
        temperature = f"temperature {self.temperature:.2f}" if self.temperature else "greedy (temperature 0)"
        stages = [f"penalty {self.repetition_penalty:g}" if self.repetition_penalty != 1 else "", temperature]
        if only_filters:
            stages = ["" if self.temperature else "greedy"]
        stages.append(f"top-k {self.top_k}" if self.top_k else "")
        stages.append(f"top-p {self.top_p:g}" if self.top_p < 1 else "")
        stages.append(f"min-p {self.min_p:g}" if self.min_p else "")
        return " → ".join(filter(None, stages))


def random_seed() -> int:
    """Return a random seed of at most six digits, short enough to type again."""
    return int.from_bytes(os.urandom(8)) % 1_000_000


def check_seed(seed: int) -> None:
    """Raise an InvalidInputError if NumPy's generators do not accept a seed."""
    if not 0 <= seed <= MAX_SEED:
        raise InvalidInputError(f"seed {seed} is out of range; use a whole number from 0 to {MAX_SEED}")
