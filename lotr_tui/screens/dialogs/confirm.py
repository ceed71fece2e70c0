"""Dialog that asks a yes-or-no question."""

from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from lotr_tui.screens.dialogs.keys_line import KeysLine
from lotr_tui.textual_fixes.app import TextualFixesScreen


class ConfirmDialog(TextualFixesScreen, ModalScreen[bool]):
    """Yes-or-no question, dismissed with True for yes and False for no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes", id="confirm.yes"),
        Binding("n,escape,q", "answer(False)", "no", id="confirm.no"),
        Binding("enter", "answer_by_enter", "yes or no", id="confirm.enter"),
    ]

    def __init__(self, question: str, *, enter_confirms: bool = True) -> None:
        """Ask a question; enter means no where it was the key of the list below, and `enter_confirms` is False."""
        super().__init__()
        self._question = question
        self._enter_confirms = enter_confirms

    def compose(self) -> ComposeResult:
        """Create the question and the line of keys."""
        with Vertical(classes="dialog"):
            yield Static(self._question, markup=False)
            yield KeysLine(("y", "yes", "answer(True)"), ("n", "no", "answer(False)"))

    def action_answer(self, confirmed: bool) -> None:
        """Close the dialog with an answer."""
        self.dismiss(confirmed)

    def action_answer_by_enter(self) -> None:
        """Close the dialog with the answer of the enter key."""
        self.dismiss(self._enter_confirms)


def confirm(app: App[Any], question: str, on_yes: Callable[[], object], *, enter_confirms: bool = True) -> None:
    """Ask a question, and call `on_yes` if the user confirms; see `ConfirmDialog`."""

    def on_answer(confirmed: bool | None) -> None:
        if confirmed:
            on_yes()

    app.push_screen(ConfirmDialog(question, enter_confirms=enter_confirms), on_answer)
