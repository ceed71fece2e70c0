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

    def replace(self, text: str, start: int, end: int) -> None:
        """Replace a part of the line, unless it would become too long; a pasted text is then reported."""
        length = len(self.value) - abs(end - start) + len(text)
        if len(text) > 1 and self.max_length and length > self.max_length:
            self.notify(
                f"Not pasted: the line has room for {self.max_length:,} characters, not {length:,}.",
                severity="warning",
                markup=False,
            )
        super().replace(text, start, end)
