"""Dialog that chooses a model to compare with."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList
from textual.widgets.option_list import Option

from engine.errors import printable
from engine.runs.directory import bundled_run_names
from engine.runs.loading import EpochCheckpoint
from engine.runs.summary import list_runs
from lotr_tui.formatting import format_model_row, format_run_row
from lotr_tui.screens.dialogs.keys_line import KeysLine
from lotr_tui.session.baselines import ModelChoice
from lotr_tui.textual_fixes.option_list import RobustOptionList
from lotr_tui.textual_fixes.screen import TextualFixesScreen


class ModelChoiceDialog(TextualFixesScreen, ModalScreen[ModelChoice | None]):
    """List of models to add as a column; it returns the chosen one, or None if cancelled."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="model-choice.cancel", tooltip="Close without adding a model")
    ]

    def __init__(self, base_run: str, saved_epochs: Sequence[EpochCheckpoint], runs_dir: Path | None) -> None:
        """List the baseline, the mixture and the saved epochs of the session's run, and the runs in a directory."""
        super().__init__()
        baseline = f"Kneser-Ney, counted on the training text of {printable(Path(base_run).name)}"
        mixture = ModelChoice("mixture", base_run)
        epochs = [(ModelChoice("run", base_run, checkpoint.epoch), checkpoint) for checkpoint in saved_epochs]
        self._rows = [
            (ModelChoice("kneser-ney", base_run), baseline),
            (mixture, f"{mixture.name}, weights chosen on validation"),
            *(
                (choice, format_model_row(choice.name, f"epoch {choice.epoch}", saved.valid_perplexity))
                for choice, saved in epochs
            ),
            *((ModelChoice("run", name), name) for name in bundled_run_names()),
            *(
                (ModelChoice("run", str(run.path)), format_run_row(run))
                for run in list_runs(runs_dir)
                if run.valid_perplexity is not None
            ),
        ]

    def compose(self) -> ComposeResult:
        """Yield the baseline, the mixture, the saved epochs, the bundled models and the runs, latest first."""
        with Vertical(classes="dialog"):
            yield Label("Add a model", classes="dialog-title")
            yield RobustOptionList(*(Option(text) for _, text in self._rows), id="models", markup=False)
            yield KeysLine(("enter", "add", ""), ("esc", "cancel", "dismiss(None)"))

    @on(OptionList.OptionSelected)
    def _submit(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._rows[event.option_index][0])
