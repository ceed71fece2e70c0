"""Dialogs that ask for one line of text."""

from collections.abc import Callable
from typing import ClassVar, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from engine.errors import LotrError
from lotr_tui.screens.dialogs.keys_line import KeysLine
from lotr_tui.textual_fixes.app import TextualFixesScreen
from lotr_tui.widgets.line_input import LineInput

ResultT = TypeVar("ResultT")


class LineDialog(TextualFixesScreen, ModalScreen[ResultT | None]):
    """Dialog with a title and one input, dismissed with the parsed line, or with None if cancelled.

    A subclass implements `parse` and binds a key to `dismiss(None)`.
    """

    KEYS: ClassVar[tuple[tuple[str, str, str], ...]] = (("enter", "save", "submit"), ("esc", "cancel", "dismiss(None)"))
    """Keys with their descriptions and actions, for the last line."""

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
            yield from self.create_fields(self._value, placeholder=self._placeholder, max_length=self._max_length)
            yield Static("", id="problem", markup=False)
            yield KeysLine(*self.KEYS)

    def create_fields(self, value: str, *, placeholder: str, max_length: int) -> ComposeResult:
        """Create the input, and what belongs to it."""
        yield LineInput(value, placeholder=placeholder, compact=True, max_length=max_length)

    def parse(self, line: str) -> ResultT:
        """Return the result for a line.

        Raises:
            LotrError: If the line is invalid. The dialog shows the error and stays open.
        """
        raise NotImplementedError

    def action_submit(self) -> None:
        """Use the line."""
        self.submit(self.query_one(Input).value)

    def submit(self, line: str) -> None:
        """Close the dialog with the result for a line, or show why the line is invalid."""
        try:
            self.dismiss(self.parse(line))
        except LotrError as error:
            self.show_problem(str(error))

    def show_problem(self, text: str) -> None:
        """Show a line below the input; "" removes it."""
        self.query_one("#problem", Static).update(text)

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_submit()


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


class RenameDialog(NameDialog):
    """Dialog that asks for another name of something until it can be renamed."""

    KEYS = (("enter", "rename", "submit"), ("esc", "cancel", "dismiss(None)"))

    def __init__(self, current_name: str, title: str, max_length: int, rename: Callable[[str], object]) -> None:
        """Ask for a name and call `rename` with it, which raises a LotrError if the name is invalid or taken."""
        super().__init__(current_name, title, max_length)
        self._rename = rename

    def parse(self, line: str) -> str:
        """Rename, and return the new name."""
        name = super().parse(line)
        if name != self._value:
            self._rename(name)
        return name
