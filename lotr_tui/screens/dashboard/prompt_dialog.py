"""What the model being trained is to continue at every evaluation."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from engine.control import LONGEST_PROMPT, Command
from engine.errors import UnusableInput
from lotr_tui.textual_fixes.line_box import LineBox
from lotr_tui.textual_fixes.screen import Steady


class AskPrompt(Steady, ModalScreen[Command | None]):
    """Asks for another prompt; dismissed with the command to take it, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="sample-prompt.cancel", tooltip="Leave the prompt as it is"),
    ]

    def __init__(self, prompt: str) -> None:
        """Start from the prompt there is."""
        super().__init__()
        self._prompt = prompt

    def compose(self) -> ComposeResult:
        """A prompt to type, and what is wrong with it."""
        with Vertical(classes="dialog"):
            yield Label("Continue what, from the next evaluation on?", classes="dialog-title")
            yield LineBox(
                self._prompt, placeholder="the first words", id="prompt", compact=True, max_length=LONGEST_PROMPT
            )
            yield Static("", id="problem", markup=False)
            yield Static("enter takes it   esc cancels", classes="dialog-keys", markup=False)

    @on(Input.Submitted)
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            self.dismiss(Command("prompt", " ".join(event.value.split())))
        except UnusableInput as error:
            self.query_one("#problem", Static).update(str(error))
