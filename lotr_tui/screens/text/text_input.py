"""One-line input for the text that a screen analyses."""

import re
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Label

from engine.data.tokenizers.base import EOS
from lotr_tui.formatting import LINE_END_MARK
from lotr_tui.screens.text.layout import sanitize_text
from lotr_tui.widgets.line_input import LineInput

MAX_TEXT_CHARACTERS = 20_000
"""Maximum length of a text, about 4,000 words."""

_SPACE = re.compile(r"\s")
_LINE_END = re.compile(rf" *(?:{LINE_END_MARK}|{EOS}) *|\n")


class TextInputBar(Horizontal):
    """A prompt mark and a one-line input; line ends are shown as `¶`. Enter posts `Input.Submitted`."""

    DEFAULT_CSS = """
    TextInputBar { height: 1; padding: 0 1; }
    TextInputBar Label { color: $accent; margin-right: 1; }
    TextInputBar Input { width: 1fr; padding: 0; background: $background; }
    TextInputBar Input:focus { background: $panel; }
    """
    PLACEHOLDER: ClassVar[str] = "type a text and press enter"
    HELP_LINE = "Enter analyses the text; ¶ is the end of a line"

    def __init__(self, text: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._input = LineInput(
            newlines_to_marks(text),
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
        """The typed text, with a line feed for each `¶`."""
        return marks_to_newlines(self._input.value)

    def set_text(self, text: str) -> None:
        """Replace the typed text."""
        self._input.value = newlines_to_marks(text)


def cut_text(text: str) -> str:
    """Return the last `MAX_TEXT_CHARACTERS` characters of `text`, from the start of a word on."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    end = text[-MAX_TEXT_CHARACTERS - 1 :]
    space = _SPACE.search(end)
    return end[space.end() :] if space else end[1:]


def marks_to_newlines(text: str) -> str:
    """Return `text` sanitized, with a line feed for each `¶` or `<eos>`."""
    return _LINE_END.sub("\n", sanitize_text(text))


def newlines_to_marks(text: str) -> str:
    """Return `text` sanitized and on one line, with `¶` for each line end; a long text loses its beginning."""
    return cut_text(_LINE_END.sub(f" {LINE_END_MARK} ", sanitize_text(text)).strip(" "))
