"""What something is to be called."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from lotr_tui.textual_fixes.line_box import LineBox
from lotr_tui.textual_fixes.screen import Steady


class AskName(Steady, ModalScreen[str | None]):
    """Asks for a name; dismissed with it ("" takes a name away), or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="name.cancel", tooltip="Leave the name as it is"),
    ]

    def __init__(self, name: str, question: str = "What is this branch called?", most: int = 40) -> None:
        """Start from the name there is; at most `most` characters."""
        super().__init__()
        self._name_before = name
        self._question = question
        self._most = most

    def compose(self) -> ComposeResult:
        """A name to type."""
        with Vertical(classes="dialog"):
            yield Label(self._question, classes="dialog-title", markup=False)
            yield LineBox(self._name_before, placeholder="a name", id="name", compact=True, max_length=self._most)
            yield Static("enter keeps it   esc cancels", classes="dialog-keys", markup=False)

    @on(Input.Submitted)
    def _named(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value.strip())
