"""Side-by-side screen: one prompt and one seed, a column for each model."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual.widget import Widget
from textual.widgets import Input

from engine.config import BUNDLED
from engine.errors import describe_error, printable
from engine.generation.settings import SamplerSettings
from engine.runs.directory import bundled_run_name
from engine.runs.loading import list_epoch_checkpoints
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import token_noun
from lotr_tui.screens.comparison.columns import CompareWith
from lotr_tui.screens.comparison.model_dialog import ModelChoiceDialog
from lotr_tui.screens.comparison.screen import GenerationColumnsScreen
from lotr_tui.screens.comparison.temperatures import format_temperature, step_temperature
from lotr_tui.session.baselines import ModelChoice, load_model_choice
from lotr_tui.session.column_output import ColumnOutput, ColumnSlot, PromptContext
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.number_field import NumberField

MAX_COLUMNS = 3


class SideBySideScreen(GenerationColumnsScreen):
    """Texts of up to three models. Models with the same vocabulary share the sampling noise of every word."""

    HEADING: ClassVar[str] = "side by side"
    MIN_COLUMN_WIDTH: ClassVar[int] = 24  # three columns, each with the name of a run, fit into 80 cells
    COMPARE_WITH: ClassVar[CompareWith] = "first"

    def __init__(
        self,
        session_model: SessionModel,
        runs_dir: Path | None,
        prompt: str,
        settings: SamplerSettings,
        seed: int | None,
        pace: float,
        context: PromptContext | None = None,
    ) -> None:
        """Start with `session_model` and, if it has a run, the Kneser-Ney baseline of that run.

        More models can be added from `runs_dir`; None is the default directory.
        """
        super().__init__(session_model, prompt, settings, seed, pace, context)
        self._runs_dir = runs_dir

    def get_help_line(self) -> str:
        """Return the help, with the noun for what the Kneser-Ney baseline counts."""
        noun = token_noun(self.session_model.model.tokenizer)
        return f"One prompt and seed for all models. Kneser-Ney counts {noun}s; F3 adds a model"

    @property
    def is_loading(self) -> bool:
        """True while a model is being loaded."""
        return any(worker.node is self and worker.group == "loading" for worker in self.workers)

    def make_first_slots(self) -> list[ColumnSlot]:
        """Return the column of the session's model."""
        slot = ColumnSlot(ColumnOutput(""), None, 0.0)
        self._set_model(slot, self.session_model)
        return [slot]

    def compose_controls(self) -> Iterable[Widget]:
        """Yield the input for the temperature of all columns."""
        temperature = format_temperature(self.settings.temperature)
        yield NumberField("temperature", temperature, id="temperature", width=4, placeholder="0.8", decimal=True)

    def title_parts(self) -> tuple[str, str]:
        """Return no name, because the columns have theirs, and the sampler settings."""
        return "", self.settings.describe()

    def load_initial_columns(self) -> None:
        """Add the Kneser-Ney baseline, if the model has a run."""
        if self.session_model.run is not None:
            self._add_model_column(ModelChoice("kneser-ney", self._base_run))
            self.show_slots(0)

    def apply_controls(self) -> None:
        """Apply the typed temperature to every column.

        Raises:
            InvalidInputError: If the temperature is out of range.
        """
        temperature = self._parse_temperature_input()
        self.settings = replace(self.settings, temperature=temperature)
        for slot in self.slots:
            slot.temperature = temperature

    def action_adjust_temperature(self, steps: int) -> None:
        """Change the temperature of all columns by a number of steps, and generate them again."""

        def adjust() -> None:
            value = format_temperature(step_temperature(self._parse_temperature_input(), steps))
            self.query_one("#temperature Input", Input).value = value

        if self.try_or_show_error(adjust) and self.prompt_and_seed:
            self.action_generate()

    def action_add_column(self) -> None:
        """Ask for a model and add it as a column."""
        if len(self.slots) == MAX_COLUMNS:
            self.show_note(f"there are {MAX_COLUMNS} models, the maximum; f4 removes one", is_problem=True)
        else:
            run = self.session_model.run
            saved_epochs = list_epoch_checkpoints(run) if run is not None else []
            dialog = ModelChoiceDialog(self._base_run, saved_epochs, self._runs_dir)
            self.app.push_screen(dialog, self._add_model_column)

    def action_remove_column(self) -> None:
        """Remove the selected column, unless it is the last one."""
        if len(self.slots) == 1:
            self.show_note("one column must stay; f3 adds another", is_problem=True)
        else:
            del self.slots[self.selected_index]
            self.show_slots()

    @property
    def _base_run(self) -> str:
        """Run that the baseline and the mixture belong to."""
        run = self.session_model.run
        return BUNDLED if run is None else bundled_run_name(run) or str(run)

    def _parse_temperature_input(self) -> float:
        typed = self.query_one("#temperature", NumberField).parse_float()
        return SamplerSettings().temperature if typed is None else SamplerSettings(temperature=typed).temperature

    def _add_model_column(self, choice: ModelChoice | None) -> None:
        """Add a column whose model is loaded in a thread."""
        if choice is None:
            return
        output = ColumnOutput(choice.name, placeholder=choice.loading_message)
        self.slots.append(ColumnSlot(output, None, self.settings.temperature))
        self.run_worker(self._load_model(self.slots[-1], choice), group="loading")
        self.show_slots(len(self.slots) - 1)

    async def _load_model(self, slot: ColumnSlot, choice: ModelChoice) -> None:
        """Load the model of a column, or remove the column if that fails."""
        failure = ""
        try:
            self._set_model(slot, await run_in_thread(load_model_choice, choice, self._runs_dir))
        except Exception as error:
            failure = f"{slot.output.title}: {describe_error(error)}"
        if slot not in self.slots or is_closed(self):
            return  # the column was removed, or the screen closed, while the model was loading
        if failure:
            self.slots.remove(slot)
        self.show_slots()
        if failure:
            self.show_note(failure, is_problem=True)
        else:
            self.generate_empty_columns()

    def _set_model(self, slot: ColumnSlot, session_model: SessionModel) -> None:
        slot.model, slot.temperature = session_model.model, self.settings.temperature
        slot.output.title = printable(session_model.name)
        slot.output.description = printable(session_model.description)
        slot.output.placeholder = ""
