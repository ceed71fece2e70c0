"""Question of the first start: a model that understands, which is downloaded, or the small one that is included."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList, Static
from textual.widgets.option_list import Option

from lotr_tui.screens.dialogs.keys_line import KeysLine
from lotr_tui.textual_fixes.app import TextualFixesScreen
from lotr_tui.textual_fixes.widgets import RobustOptionList

EXPLANATION = (
    "SmolLM2 was pre-trained on other text; an adapter lets it speak like the cast. It downloads in the background, "
    "while you play with the small LSTM. Later, /fetch brings it."
)


class FirstModelDialog(TextualFixesScreen, ModalScreen[bool]):
    """Question which model to talk to, dismissed with True for SmolLM2 and False for the small LSTM."""

    CSS = "FirstModelDialog #explanation { color: $muted; text-style: $muted-style; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(False)", "later", id="first-model.later", tooltip="Use the small LSTM")
    ]

    def compose(self) -> ComposeResult:
        """Create the question, its two answers, and their meaning."""
        with Vertical(classes="dialog"):
            yield Label("Which model do you want to talk to?", classes="dialog-title")
            yield RobustOptionList(
                Option("SmolLM2, 98 MB, understands you", "smollm2"),
                Option("the small LSTM, included, babbles, shows everything", "lstm"),
                markup=False,
            )
            yield Static(EXPLANATION, id="explanation", markup=False)
            yield KeysLine(("enter", "choose", ""), ("esc", "the small LSTM", "dismiss(False)"))

    @on(OptionList.OptionSelected)
    def _choose(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id == "smollm2")
