"""Dialogs that ask for one line of text."""

from typing import ClassVar, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from engine.errors import LotrError
from lotr_tui.textual_fixes.screen import TextualFixesScreen
from lotr_tui.widgets.line_input import LineInput

ResultT = TypeVar("ResultT")


class LineDialog(TextualFixesScreen, ModalScreen[ResultT | None]):
    """Dialog with a title and one input, dismissed with the parsed line, or with None if cancelled.

    A subclass implements `parse` and binds a key to `dismiss(None)`.
    """

    KEYS: ClassVar[str] = "enter save   esc cancel"
    """Line that names the keys."""

    def __init__(self, title: str, value: str, *, placeholder: str, max_length: int) -> None:
        super().__init__()
        self._title = title
        self._value = value
        self._placeholder = placeholder
        self._max_length = max_length

    def compose(self) -> ComposeResult:
        """Create the title, the input, a line for an error and the line of keys."""
        with Vertical(classes="dialog"):
            yield Label(self._title, classes="dialog-title", markup=False)
            yield LineInput(self._value, placeholder=self._placeholder, compact=True, max_length=self._max_length)
            yield Static("", id="problem", markup=False)
            yield Static(self.KEYS, classes="dialog-keys", markup=False)

    def parse(self, line: str) -> ResultT:
        """Return the result for a line.

        Raises:
            LotrError: If the line is invalid. The dialog shows the error and stays open.
        """
        raise NotImplementedError

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            self.dismiss(self.parse(event.value))
        except LotrError as error:
            self.query_one("#problem", Static).update(str(error))


class NameDialog(LineDialog[str]):
    """Dialog that asks for a name; an empty name is valid."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="name.cancel", tooltip="Keep the name")
    ]

    def __init__(self, current_name: str, title: str = "Name of this branch", max_length: int = 40) -> None:
        super().__init__(title, current_name, placeholder="a name", max_length=max_length)

    def parse(self, line: str) -> str:
        """Return the name without surrounding spaces."""
        return line.strip()
