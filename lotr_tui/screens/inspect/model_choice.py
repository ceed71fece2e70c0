"""Dialog that chooses a column to compare with: another model, or a speaker of the session's model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from engine.data.speakers import display_name
from engine.errors import InvalidInputError, printable
from engine.generation.turns import SpeakerProb
from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name
from engine.runs.directory import bundled_runs, list_runs
from lotr_tui.formatting import format_model_row, format_percent, format_run_row
from lotr_tui.screens.dialogs.dialog import KeysLine
from lotr_tui.session.settings import MAX_MODEL_NAME_CHARACTERS
from lotr_tui.session.training_text import ModelChoice
from lotr_tui.textual_fixes.app import RobustOptionList, TextualFixesScreen
from lotr_tui.widgets.inputs import LineInput
from lotr_tui.widgets.keys import binding_table

ColumnChoice = ModelChoice | SpeakerProb
SPEAKER_WIDTH = 24


class ModelChoiceDialog(TextualFixesScreen, ModalScreen[ColumnChoice | None]):
    """List of models and speakers to add as a column; it returns the chosen one, or None if cancelled.

    A typed part of a name shortens the list, and a typed name such as `hf:owner/name` or `gguf:FILE` is a model by
    others.
    """

    CSS_PATH = "inspect.tcss"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "model-choice",
        """
        cancel | escape | dismiss(None) | cancel | Close without adding a model
        up     | up     | step(-1)      | up     | The row above
        down   | down   | step(1)       | down   | The row below
        """,
    )

    def __init__(
        self,
        base_run: str,
        saved_epochs: Mapping[int, float | None],
        runs_dir: Path | None,
        speakers: Sequence[SpeakerProb] = (),
        models_by_others: Sequence[str] = (),
    ) -> None:
        super().__init__()
        baseline = f"Kneser-Ney, counted on the training text of {printable(Path(base_run).name)}"
        mixture = ModelChoice("mixture", base_run)
        epochs = [(ModelChoice("run", base_run, epoch), valid) for epoch, valid in saved_epochs.items()]
        self._has_speakers = bool(speakers)
        self._rows: list[tuple[ColumnChoice, str]] = [
            *((speaker, _format_speaker_row(speaker)) for speaker in speakers),
            (ModelChoice("kneser-ney", base_run), baseline),
            (mixture, f"{mixture.name}, weights chosen on validation"),
            *((choice, format_model_row(choice.name, f"epoch {choice.epoch}", valid)) for choice, valid in epochs),
            *((ModelChoice("run", name), name) for name in bundled_runs().values()),
            *(
                (ModelChoice("run", str(run.path)), format_run_row(run))
                for run in list_runs(runs_dir)
                if run.valid_perplexity is not None
            ),
            *((ModelChoice("run", name), printable(name)) for name in models_by_others),
        ]
        self._matches = list(self._rows)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label("A speaker or a model" if self._has_speakers else "Add a model", classes="dialog-title")
            placeholder = "type a part of a name, or hf:FOLDER, hf:owner/name, gguf:FILE"
            yield LineInput(
                placeholder=placeholder, compact=True, max_length=MAX_MODEL_NAME_CHARACTERS, select_on_focus=False
            )
            yield RobustOptionList(*(Option(text) for _, text in self._rows), id="models", markup=False)
            yield Static("", id="problem", markup=False)
            yield KeysLine(("enter", "add", ""), ("esc", "cancel", "dismiss(None)"))

    def on_mount(self) -> None:
        if not self._has_speakers:
            self.query_one(OptionList).focus()

    def on_key(self, event: events.Key) -> None:
        line = self.query_one(Input)
        if event.is_printable and event.character is not None and self.focused is not line:
            event.stop()
            line.focus()
            line.insert_text_at_cursor(event.character)

    def action_step(self, offset: int) -> None:
        rows = self.query_one(OptionList)
        rows.action_cursor_down() if offset > 0 else rows.action_cursor_up()

    @on(Input.Changed)
    def _filter(self, event: Input.Changed) -> None:
        self.query_one("#problem", Static).update("")
        typed = event.value.strip().casefold()
        matches = [row for row in self._rows if typed in row[1].casefold()]
        self._matches = sorted(matches, key=lambda row: not row[1].casefold().startswith(typed))
        rows = self.query_one(OptionList)
        rows.clear_options()
        rows.add_options([Option(text) for _, text in self._matches])
        rows.highlighted = 0 if self._matches else None

    @on(Input.Submitted)
    def _submit_highlighted(self) -> None:
        typed = self.query_one(Input).value.strip()
        if is_pretrained_name(typed):
            try:
                parse_pretrained_name(typed)
            except InvalidInputError as error:
                self.query_one("#problem", Static).update(str(error))
                return
            self.dismiss(ModelChoice("run", typed))
            return
        highlighted = self.query_one(OptionList).highlighted
        if highlighted is not None:
            self.dismiss(self._matches[highlighted][0])

    @on(OptionList.OptionSelected)
    def _submit(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._matches[event.option_index][0])


def _format_speaker_row(speaker: SpeakerProb) -> str:
    prob = f"{format_percent(speaker.prob):>8} likely to answer" if speaker.prob else ""
    return f"{display_name(speaker.name):{SPEAKER_WIDTH}}{prob}".rstrip()
