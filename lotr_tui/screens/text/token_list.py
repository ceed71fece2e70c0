"""Base class for lists with one line per token of a text."""

from dataclasses import dataclass

from textual.message import Message

from lotr_tui.widgets.line_list import LineList


class TokenList(LineList):
    """List with one line per token. The screen moves the cursor, by the list's method to show a text."""

    @dataclass
    class TokenSelected(Message):
        """Posted when the cursor is to move to a token; the screen then shows the list with the cursor there."""

        index: int

    def __init__(self, noun: str = "word", *, id: str | None = None) -> None:
        """Start without a text; `noun` is the noun for a token of the model."""
        super().__init__(id=id)
        self._noun = noun
        self.cursor = 0
        """Index of the token under the cursor."""

    @property
    def cursor_line(self) -> int | None:
        """Line of the cursor, or None if there are no tokens."""
        return self.cursor if self.line_count() else None

    def select_line(self, line: int) -> None:
        """Post `TokenSelected` for the token on a line."""
        if line != self.cursor:
            self.post_message(self.TokenSelected(line))
