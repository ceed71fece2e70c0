"""The single-line input for text."""

from typing import Any

from textual.widgets import Input

MAX_LINE_CHARACTERS = 1000  # Textual measures the whole line at each key


class LineInput(Input):
    """Input with a maximum length and a steady cursor: a blinking one would send bytes over SSH all the time."""

    def __init__(self, *args: Any, max_length: int = MAX_LINE_CHARACTERS, **kwargs: Any) -> None:
        super().__init__(*args, max_length=max_length, **kwargs)
        self.cursor_blink = False

    def replace(self, text: str, start: int, end: int) -> None:
        length = len(self.value) - abs(end - start) + len(text)
        if len(text) > 1 and self.max_length and length > self.max_length:
            reason = f"Not pasted: the line has room for {self.max_length:,} characters, not {length:,}."
            self.notify(reason, severity="warning", markup=False)
        super().replace(text, start, end)
