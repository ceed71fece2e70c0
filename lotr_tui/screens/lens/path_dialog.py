"""Dialog that asks for a text file."""

from pathlib import Path
from typing import ClassVar

from textual.binding import Binding, BindingType

from engine.errors import CorpusError
from engine.storage.text_files import read_text_file
from lotr_tui.screens.dialogs.line_dialog import LineDialog
from lotr_tui.widgets.line_input import MAX_LINE_CHARACTERS


class OpenTextDialog(LineDialog[tuple[str, str]]):
    """Dialog for the path of a text file; it returns the path and the text, or None if cancelled."""

    KEYS = "enter opens   esc cancels"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="open-text.cancel", tooltip="Close without opening a file")
    ]

    def __init__(self) -> None:
        super().__init__("Open a text file", "", placeholder="path of a text file", max_length=MAX_LINE_CHARACTERS)

    def parse(self, line: str) -> tuple[str, str]:
        """Return the path and the text of the file.

        Raises:
            CorpusError: If there is no path, or the file cannot be read as text.
        """
        if not (path := line.strip()):
            raise CorpusError("type the path of a text file, or press esc")
        return path, read_text_file(Path(path))
