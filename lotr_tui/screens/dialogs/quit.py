"""Dialog that asks what becomes of the training when the user quits."""

from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList
from textual.widgets.option_list import Option

from lotr_tui.textual_fixes.app import TextualFixesScreen
from lotr_tui.textual_fixes.widgets import RobustOptionList

QuitChoice = Literal["stop", "detach"]
"""stop: the training saves and stops; detach: the training continues in the background."""


class QuitDialog(TextualFixesScreen, ModalScreen[QuitChoice | None]):
    """Question about the running training, dismissed with the choice, or with None to keep lotr-tui open."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "dismiss('stop')", "stop", id="quit.stop", tooltip="Save and stop the training, and quit"),
        Binding(
            "d", "dismiss('detach')", "detach", id="quit.detach", tooltip="Continue it in the background, and quit"
        ),
        Binding("escape,q,n", "dismiss(None)", "cancel", id="quit.cancel", tooltip="Do not quit"),
    ]

    def compose(self) -> ComposeResult:
        """Create the question and the choices."""
        with Vertical(classes="dialog"):
            yield Label("Quit? A model is being trained.", classes="dialog-title", markup=False)
            yield RobustOptionList(
                Option("s    stop the training; the best model is kept", "stop"),
                Option("d    detach: it continues in the background", "detach"),
                Option("esc  cancel", "cancel"),
                markup=False,
            )

    @on(OptionList.OptionSelected)
    def _choose(self, event: OptionList.OptionSelected) -> None:
        choice = event.option_id
        self.dismiss(choice if choice == "stop" or choice == "detach" else None)
