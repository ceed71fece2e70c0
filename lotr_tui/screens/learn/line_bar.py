"""Input line of a figure, which reacts to each key."""

from typing import ClassVar

from textual import on
from textual.widgets import Input

from lotr_tui.screens.inspect.text_screen import TextInputBar
from lotr_tui.widgets.help_line import HelpLine

MAX_CHARACTERS = 2000
"""Default maximum length of the line, so that a figure follows each key."""


class LineBar(TextInputBar):
    """A line to change. Each key posts `Input.Changed`."""

    PLACEHOLDER: ClassVar[str] = "type a line"
    HELP_LINE = "Type a line of your own; the figure follows each key"

    def __init__(self, example: str, *, max_length: int = MAX_CHARACTERS) -> None:
        """Start with `example`; the user can type at most `max_length` characters."""
        super().__init__(example, id="line")
        self._input.max_length = max_length
        self._example = example
        self._was_full = False

    @property
    def is_full(self) -> bool:
        """True if the line has its maximum length."""
        return len(self._input.value) >= (self._input.max_length or MAX_CHARACTERS)

    def get_help_line(self) -> str:
        """Return what to type, or why the line takes no more characters."""
        return f"The line is full: {self._input.max_length:,} characters" if self.is_full else self.HELP_LINE

    @on(Input.Changed)
    def _update_help(self) -> None:
        if self.is_full != self._was_full:
            self._was_full = self.is_full
            self.screen.query_one(HelpLine).update_text()

    def set_example(self, example: str) -> None:
        """Replace the example and the line, such as by a line of the user's corpus."""
        self._example = example
        self.set_text(example)

    @property
    def input(self) -> Input:
        """The input with the line and its cursor."""
        return self._input

    @property
    def is_edited(self) -> bool:
        """True if the line is not the example and not empty."""
        return bool(self.text.strip()) and self.text != self._example
