"""Expected changes of the state that a key changes."""

from collections.abc import Callable
from typing import Any

Expect = Callable[[Any, Any], bool]
"""Function that returns True if the state before and after the key differ as they should."""


def changes(before: Any, after: Any) -> bool:
    return bool(before != after)


def increases(before: Any, after: Any) -> bool:
    return bool(after > before)


def decreases(before: Any, after: Any) -> bool:
    return bool(after < before)


def becomes(value: Any) -> Expect:
    """Return the expectation that the state becomes `value`."""
    return lambda before, after: bool(before != value and after == value)


def moves(steps: int) -> Expect:
    """Return the expectation that a number changes by `steps`."""
    return lambda before, after: bool(after == before + steps)
