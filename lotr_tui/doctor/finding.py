"""Result of one check."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]
"""ok: works; warning: works in part, or not as well as it could; problem: something does not work."""


@dataclass(frozen=True)
class Finding:
    """What a check found, on one line each."""

    name: str
    """Subject of the check, in one or two words."""
    state: State
    summary: str
    """What is there and what works."""
    advice: str = ""
    """What to do; empty if there is nothing to do."""
