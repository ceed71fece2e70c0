"""Text area in which a text for the lens is typed or pasted."""

from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.widgets import TextArea

from lotr_tui.screens.text.layout import sanitize_text

MAX_EDITABLE_CHARACTERS = 20_000
"""Maximum length of an editable text; the text area would take seconds to lay out a longer one."""


class LensTextArea(TextArea):
    """Multi-line text area that sanitizes pasted text and rejects text too long to edit."""

    DEFAULT_CSS = """
    LensTextArea {
        padding: 0 1;
        background: $background;
        border: none;
        height: 4;
        scrollbar-size-vertical: 1;
        scrollbar-background: $background;
        scrollbar-color: $border;
    }
    LensTextArea:focus { background-tint: $foreground 0%; border: none; }
    LensTextArea .text-area--cursor-line { background: $background; }
    """

    HELP_LINE = "Type or paste a text; shift+tab goes to its words"

    @dataclass
    class LongTextPasted(Message):
        """Posted with a pasted text that is too long to edit; the text area itself does not change."""

        text: str

    def __init__(self, text: str, *, id: str | None = None) -> None:
        super().__init__(
            text,
            id=id,
            compact=True,
            highlight_cursor_line=False,
            placeholder="type or paste a text; ctrl+o opens a file",
        )
        self.cursor_blink = False  # over SSH, a blinking cursor sends bytes without end

    def on_mount(self) -> None:
        """Move the cursor to the end of the text, ready to type on."""
        self.call_after_refresh(self.move_cursor, self.document.end)

    async def _on_paste(self, event: events.Paste) -> None:
        """Insert a pasted text, or post it if it is too long."""
        event.prevent_default()  # TextArea would insert the text as it is
        event.stop()
        if len(self.text) + len(event.text) > MAX_EDITABLE_CHARACTERS:
            self.post_message(self.LongTextPasted(event.text))
        elif result := self._replace_via_keyboard(sanitize_text(event.text), *self.selection):
            self.move_cursor(result.end_location)

    def cursor_index(self) -> int:
        """Return the number of characters before the cursor."""
        row, column = self.cursor_location
        return sum(len(self.document.get_line(line)) + 1 for line in range(row)) + column
