"""Result of one check."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]
"""ok: works; warning: works in part, or not as well as it could; problem: something does not work."""


@dataclass(frozen=True)
class Finding:
    """Finding of a check, in texts of one line."""

    name: str
    """Subject of the check, in one or two words."""
    state: State
    summary: str
    """State of the subject, and the parts that work."""
    advice: str = ""
    """What to do; empty if there is nothing to do."""
