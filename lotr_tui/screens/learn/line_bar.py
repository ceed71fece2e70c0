"""Input line of a figure, which reacts to each key."""

from typing import ClassVar

from lotr_tui.screens.text.text_input import TextInputBar


class LineBar(TextInputBar):
    """A line to change. Each key posts `Input.Changed`."""

    PLACEHOLDER: ClassVar[str] = "type a line"
    HELP_LINE = "Type a line of your own; the figure follows each key"

    def __init__(self, example: str) -> None:
        super().__init__(example, id="line")
        self._example = example

    def set_example(self, example: str) -> None:
        """Replace the example and the line, such as by a line of the user's corpus."""
        self._example = example
        self.set_text(example)

    @property
    def is_edited(self) -> bool:
        """True if the line is not the example and not empty."""
        return bool(self.text.strip()) and self.text != self._example
