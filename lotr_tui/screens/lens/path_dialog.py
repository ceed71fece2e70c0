"""Which text to open."""

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from engine.analysis.token_scores import read_file
from engine.errors import CorpusError
from lotr_tui.textual_fixes.line_box import LineBox
from lotr_tui.textual_fixes.screen import Steady


class AskPath(Steady, ModalScreen[tuple[str, str] | None]):
    """Asks for a file; dismissed with its name and text, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="lens-open.cancel", tooltip="Open nothing"),
    ]

    def compose(self) -> ComposeResult:
        """A path to type, and what is wrong with it."""
        with Vertical(classes="dialog"):
            yield Label("Open which text?", classes="dialog-title")
            yield LineBox(placeholder="path of a text file", id="path", compact=True)
            yield Static("", id="problem", markup=False)
            yield Static("enter opens   esc cancels", classes="dialog-keys", markup=False)

    @on(Input.Submitted)
    def _open(self, event: Input.Submitted) -> None:
        name = event.value.strip()
        try:
            if not name:
                raise CorpusError("type the path of a text file, or press esc")
            self.dismiss((name, read_file(Path(name))))
        except CorpusError as error:
            self.query_one("#problem", Static).update(str(error))
