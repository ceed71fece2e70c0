"""One line to type in."""

from typing import Any

from textual.widgets import Input

MOST_CHARACTERS = 1000
"""Of what is asked for on one line, be it a path; Textual measures the whole line at each key."""


class LineBox(Input):
    """Textual's input with a bound, and a cursor that does not blink: over SSH a blinking one never rests."""

    def __init__(self, *arguments: Any, max_length: int = MOST_CHARACTERS, **options: Any) -> None:
        """As `Input`."""
        super().__init__(*arguments, max_length=max_length, **options)
        self.cursor_blink = False
