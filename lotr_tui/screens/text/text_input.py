"""The line in which the text that a screen looks at can be changed."""

import re
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Label

from engine.data.vocabulary import EOS
from lotr_tui.screens.text.layout import clean
from lotr_tui.textual_fixes.line_box import LineBox

MOST_CHARACTERS = 20_000
"""Of a text; some 4,000 words."""

_EOS = re.compile(rf" *{EOS} *|\n")


class TextLine(Horizontal):
    """A text on one line, its line ends written as `<eos>`. Enter reads it (`Input.Submitted`)."""

    DEFAULT_CSS = """
    TextLine { height: 1; padding: 0 1; }
    TextLine Label { color: $accent; margin-right: 1; }
    TextLine Input { width: 1fr; padding: 0; background: $background; }
    TextLine Input:focus { background: $panel; }
    """
    PLACEHOLDER: ClassVar[str] = "type a text; enter reads it"

    def __init__(self, text: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._input = LineBox(
            one_line(text),
            placeholder=self.PLACEHOLDER,
            compact=True,
            max_length=MOST_CHARACTERS,
            select_on_focus=False,
        )

    def compose(self) -> ComposeResult:
        """The mark, then the input."""
        yield Label("❯")
        yield self._input

    @property
    def text(self) -> str:
        """What stands in it, with line ends."""
        return with_line_ends(self._input.value)

    def show(self, text: str) -> None:
        """Replace what stands in it."""
        self._input.value = one_line(text)


def with_line_ends(text: str) -> str:
    """`text` clean, and each `<eos>` a line end; no longer than `MOST_CHARACTERS`."""
    return _EOS.sub("\n", clean(text[:MOST_CHARACTERS]))


def one_line(text: str) -> str:
    """`text` with each line end written as `<eos>`; cut between words where that is longer than `MOST_CHARACTERS`."""
    line = _EOS.sub(f" {EOS} ", clean(text[:MOST_CHARACTERS])).strip(" ")
    if len(line) > MOST_CHARACTERS:  # an <eos> cut in two would be read as a word
        line = line[: MOST_CHARACTERS + 1].rpartition(" ")[0] or line[:MOST_CHARACTERS]
    return line
