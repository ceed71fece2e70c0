"""Dialog that asks a yes-or-no question."""

from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from lotr_tui.screens.dialogs.keys_line import KeysLine
from lotr_tui.textual_fixes.screen import TextualFixesScreen


class ConfirmDialog(TextualFixesScreen, ModalScreen[bool]):
    """Yes-or-no question, dismissed with True for yes and False for no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "yes", id="confirm.yes"),
        Binding("n,escape,q", "answer(False)", "no", id="confirm.no"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """Create the question and the line of keys."""
        with Vertical(classes="dialog"):
            yield Static(self._question, markup=False)
            yield KeysLine(("y", "yes", "answer(True)"), ("n", "no", "answer(False)"))

    def action_answer(self, confirmed: bool) -> None:
        """Close the dialog with an answer."""
        self.dismiss(confirmed)


def confirm(app: App[Any], question: str, on_yes: Callable[[], object]) -> None:
    """Ask a question, and call `on_yes` if the user confirms."""

    def on_answer(confirmed: bool | None) -> None:
        if confirmed:
            on_yes()

    app.push_screen(ConfirmDialog(question), on_answer)
