"""Single-line text input."""

from typing import Any

from textual.widgets import Input

MAX_LINE_CHARACTERS = 1000
"""Default maximum length; Textual measures the whole line at each key."""


class LineInput(Input):
    """Input with a maximum length and a steady cursor: a blinking one would send bytes over SSH all the time."""

    def __init__(self, *args: Any, max_length: int = MAX_LINE_CHARACTERS, **kwargs: Any) -> None:
        """Create the input with the arguments of `Input`."""
        super().__init__(*args, max_length=max_length, **kwargs)
        self.cursor_blink = False
