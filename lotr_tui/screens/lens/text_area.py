"""Where a text for the lens is typed or pasted."""

from textual import events
from textual.message import Message
from textual.widgets import TextArea

from lotr_tui.screens.text.layout import clean

MOST_CHARACTERS = 20_000
"""That are edited here; a longer text is shown, but a text box would take seconds to arrange it."""


class LensBox(TextArea):
    """Some lines of text. What is pasted is cleaned; what is too long to be edited here is passed on."""

    DEFAULT_CSS = """
    LensBox {
        padding: 0 1;
        background: $background;
        border: none;
        height: 4;
        scrollbar-size-vertical: 1;
        scrollbar-background: $background;
        scrollbar-color: $border;
    }
    LensBox:focus { background-tint: $foreground 0%; border: none; }
    LensBox .text-area--cursor-line { background: $background; }
    """

    class Pasted(Message):
        """A text that is too long to be edited."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, text: str, *, id: str | None = None) -> None:
        super().__init__(
            text,
            id=id,
            compact=True,
            highlight_cursor_line=False,
            placeholder="type or paste a text; ctrl+o opens a file",
        )
        self.cursor_blink = False  # it would send bytes for ever

    async def _on_paste(self, event: events.Paste) -> None:
        """Insert what was pasted, or pass it on."""
        event.prevent_default()  # of the base class
        event.stop()
        if len(self.text) + len(event.text) > MOST_CHARACTERS:
            self.post_message(self.Pasted(event.text))
        elif result := self._replace_via_keyboard(clean(event.text), *self.selection):
            self.move_cursor(result.end_location)

    def place_of_cursor(self) -> int:
        """The character of the text that the cursor stands before."""
        row, column = self.cursor_location
        return sum(len(self.document.get_line(line)) + 1 for line in range(row)) + column
