"""Validation of control commands."""

from typing import Any

import pytest

from engine.control import ControlCommand
from engine.errors import InvalidInputError


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("stpo", ""), ("stop", 7), ("lr", "0"), ("lr", "1.5"), ("lr", "nan"), ("lr", "half")),
        *(("prompt", text) for text in ("", "a\nb", "x" * 201, "\x1b[31m")),
    ],
)
def test_invalid_commands_are_refused(kind: Any, value: Any) -> None:
    with pytest.raises(InvalidInputError):
        ControlCommand(kind, value)
