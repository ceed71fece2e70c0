"""Which run to play with."""

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList, Static
from textual.widgets.option_list import Option

from engine.config import BUNDLED
from engine.runs import list_runs
from lotr_tui.wording import run_row


class ChooseModel(ModalScreen[str | None]):
    """Lists the runs that have a model; dismissed with a name, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="choose-model.cancel"),
    ]

    def __init__(self, runs_dir: Path | None) -> None:
        super().__init__()
        self._runs_dir = runs_dir

    def compose(self) -> ComposeResult:
        """The bundled model, then the runs, latest first."""
        rows = [Option("bundled", id=BUNDLED)]
        for run in list_runs(self._runs_dir):
            if run.valid_perplexity is not None:
                rows.append(Option(run_row(run), id=run.name))
        with Vertical(classes="dialog"):
            yield Label("Play with which model?", classes="dialog-title")
            yield OptionList(*rows, id="models", markup=False)
            yield Static("enter chooses   esc cancels", classes="dialog-keys", markup=False)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)
