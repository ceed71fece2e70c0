"""One-line input for the text that a screen analyses."""

import re
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Label

from engine.data.vocabulary import EOS
from lotr_tui.screens.text.layout import sanitize_text
from lotr_tui.widgets.line_input import LineInput

MAX_TEXT_CHARACTERS = 20_000
"""Maximum length of a text, about 4,000 words."""

_EOS_OR_NEWLINE = re.compile(rf" *{EOS} *|\n")


class TextInputBar(Horizontal):
    """A prompt mark and a one-line input; line ends are shown as `<eos>`. Enter posts `Input.Submitted`."""

    DEFAULT_CSS = """
    TextInputBar { height: 1; padding: 0 1; }
    TextInputBar Label { color: $accent; margin-right: 1; }
    TextInputBar Input { width: 1fr; padding: 0; background: $background; }
    TextInputBar Input:focus { background: $panel; }
    """
    PLACEHOLDER: ClassVar[str] = "type a text and press enter"

    def __init__(self, text: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._input = LineInput(
            newlines_to_eos(text),
            placeholder=self.PLACEHOLDER,
            compact=True,
            max_length=MAX_TEXT_CHARACTERS,
            select_on_focus=False,
        )

    def compose(self) -> ComposeResult:
        """Yield the prompt mark and the input."""
        yield Label("❯")
        yield self._input

    @property
    def text(self) -> str:
        """The typed text, with line feeds for `<eos>`."""
        return eos_to_newlines(self._input.value)

    def set_text(self, text: str) -> None:
        """Replace the typed text."""
        self._input.value = newlines_to_eos(text)


def eos_to_newlines(text: str) -> str:
    """Return the first `MAX_TEXT_CHARACTERS` of `text`, sanitized, with a line feed for each `<eos>`."""
    return _EOS_OR_NEWLINE.sub("\n", sanitize_text(text[:MAX_TEXT_CHARACTERS]))


def newlines_to_eos(text: str) -> str:
    """Return `text` sanitized and on one line, with `<eos>` for each line end.

    A result longer than `MAX_TEXT_CHARACTERS` is cut between words.
    """
    line = _EOS_OR_NEWLINE.sub(f" {EOS} ", sanitize_text(text[:MAX_TEXT_CHARACTERS])).strip(" ")
    if len(line) > MAX_TEXT_CHARACTERS:  # half of an <eos> would be read as a word
        line = line[: MAX_TEXT_CHARACTERS + 1].rpartition(" ")[0] or line[:MAX_TEXT_CHARACTERS]
    return line
