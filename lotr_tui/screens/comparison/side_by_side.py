"""Side-by-side screen: one prompt and one seed, a column for each model, or for each of several speakers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lotr_tui.screens.comparison.model_dialog import ColumnChoice, ModelChoiceDialog
from lotr_tui.screens.comparison.temperatures import format_temperature, step_temperature
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import Input

from engine.config import LSTM
from engine.data.speakers import display_name
from engine.errors import describe_error, printable
from engine.generation.settings import SamplerSettings
from engine.generation.turns import SpeakerProb
from engine.runs.directory import bundled_run_name, default_run_name
from engine.runs.loading import list_epoch_checkpoints
from lotr_tui.app_base import LotrAppBase
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import format_percent, token_noun
from lotr_tui.screens.comparison.columns import CompareWith
from lotr_tui.screens.comparison.screen import GenerationColumnsScreen
from lotr_tui.screens.comparison.speakers import FINDING_SPEAKER, rank_speakers_in_thread
from lotr_tui.session.cast import named_speaker
from lotr_tui.session.columns import ColumnOutput, ColumnSlot, PromptContext
from lotr_tui.session.model_loading import known_model_names
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.training_text import ModelChoice, load_model_choice
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.number_field import NumberField

MAX_COLUMNS = 3
MAX_SPEAKER_COLUMNS = 8
"""Maximum number of columns if the session's model knows speakers."""
NUM_FIRST_SPEAKERS = 3


class SideBySideScreen(GenerationColumnsScreen):
    """Texts of up to three models, or of several speakers of a model that knows them.

    Models with the same vocabulary share the sampling noise of every word.
    """

    HEADING: ClassVar[str] = "side by side"
    MIN_COLUMN_WIDTH: ClassVar[int] = 24  # three columns, each with the name of a run, fit into 80 cells
    COMPARE_WITH: ClassVar[CompareWith] = "first"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "side-by-side",
        """
        change | f2 | change_column | change | Choose another model or speaker for the selected column
        """,
        show=True,
    )

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

        A model by others starts beside the default model, and a model that knows speakers with the likeliest ones. More
        models can be added from `runs_dir`; None is the default directory.
        """
        self._ranking: Sequence[SpeakerProb] = ()
        super().__init__(session_model, prompt, settings, seed, pace, context)
        self._runs_dir = runs_dir

    def get_help_line(self) -> str:
        """Return the help, with the noun for what the Kneser-Ney baseline counts."""
        if self.session_model.knows_speakers:
            return "One line and seed for all; F3 adds a speaker or a model by name, F2 changes a column"
        noun = token_noun(self.session_model.model.tokenizer)
        return f"One prompt and seed for all models. Kneser-Ney counts {noun}s; F3 adds a model"

    @property
    def is_loading(self) -> bool:
        """True while a model is being loaded."""
        return any(worker.node is self and worker.group == "loading" for worker in self.workers)

    def make_first_slots(self) -> list[ColumnSlot]:
        """Return the column of the session's model, or of the speaker that is chosen."""
        if self.session_model.knows_speakers:
            speaker = self.prompt_context.roles.speaker
            return [
                self._speaker_slot(speaker) if speaker else ColumnSlot(ColumnOutput("", "", FINDING_SPEAKER), None, 0)
            ]
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
        """Add the likeliest speakers, or the default model, or the Kneser-Ney baseline if the model has a run."""
        if self.session_model.knows_speakers:
            self.run_worker(self._add_likely_speakers(), group="loading")
        elif self.session_model.is_by_others:
            self._add_column(ModelChoice("run", default_run_name()))
            self.show_slots(0)
        elif self.session_model.run is not None:
            self._add_column(ModelChoice("kneser-ney", self._base_run))
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
        """Ask for a model or a speaker, and add a column."""
        maximum = MAX_SPEAKER_COLUMNS if self.session_model.knows_speakers else MAX_COLUMNS
        if len(self.slots) >= maximum:
            noun = "columns" if self.session_model.knows_speakers else "models"
            self.show_note(f"there are {maximum} {noun}, the maximum; f4 removes one", is_problem=True)
        else:
            self._choose_column(self._add_column)

    def action_change_column(self) -> None:
        """Ask for a model or a speaker, and show it in the selected column."""
        slot = self.slots[self.selected_index]
        self._choose_column(lambda choice: self._add_column(choice, replaced=slot))

    def _choose_column(self, use: Callable[[ColumnChoice | None], None]) -> None:
        run = self.session_model.run
        saved_epochs = list_epoch_checkpoints(run) if run is not None else []
        speakers = self._ranking_of_cast() if self.session_model.knows_speakers else ()
        recent = self.app.settings_store.current.recent_models if isinstance(self.app, LotrAppBase) else ()
        models_by_others = known_model_names(recent)
        dialog = ModelChoiceDialog(self._base_run, saved_epochs, self._runs_dir, speakers, models_by_others)
        self.app.push_screen(dialog, use)

    def _ranking_of_cast(self) -> list[SpeakerProb]:
        """Return the whole cast: who may answer, likeliest first, and then the others."""
        ranked = {speaker.name for speaker in self._ranking}
        return [*self._ranking, *(SpeakerProb(name, 0.0) for name in self.session_model.cast if name not in ranked)]

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
        return LSTM if run is None else bundled_run_name(run) or str(run)

    def _parse_temperature_input(self) -> float:
        typed = self.query_one("#temperature", NumberField).parse_float()
        return SamplerSettings().temperature if typed is None else SamplerSettings(temperature=typed).temperature

    def _add_column(self, choice: ColumnChoice | None, replaced: ColumnSlot | None = None) -> None:
        """Add a column, or put it in the place of another one. The model of a run is loaded in a thread."""
        if choice is None:
            return
        if isinstance(choice, SpeakerProb):
            slot = self._speaker_slot(choice.name)
        else:
            output = ColumnOutput(choice.name, placeholder=choice.loading_message)
            slot = ColumnSlot(output, None, self.settings.temperature, self._first_speaker)
            self.run_worker(self._load_model(slot, choice), group="loading")
        index = self.slots.index(replaced) if replaced in self.slots else len(self.slots)
        self.slots[index : index + (replaced in self.slots)] = [slot]
        self.show_slots(index)
        self.generate_empty_columns()

    @property
    def _first_speaker(self) -> str:
        """Speaker of the first column that has one, who also speaks in the columns of other models."""
        return next((slot.speaker for slot in self.slots if slot.speaker), self.prompt_context.roles.speaker)

    def _speaker_slot(self, name: str) -> ColumnSlot:
        """Return the column of a member of the cast."""
        prob = next((speaker.prob for speaker in self._ranking if speaker.name == name), None)
        likely = "" if prob is None else f"{format_percent(prob)} likely to answer"
        return ColumnSlot(
            ColumnOutput(display_name(name), likely), self.session_model.model, self.settings.temperature, name
        )

    async def _add_likely_speakers(self) -> None:
        """Show the likeliest speakers, after the one that is chosen."""
        ranking = await rank_speakers_in_thread(self, self._prompt)
        if is_closed(self) or not ranking:
            return
        self._ranking = ranking
        chosen = self.prompt_context.roles.speaker
        names = [*filter(None, [chosen]), *(speaker.name for speaker in ranking if speaker.name != chosen)]
        known = [slot for slot in self.slots if slot.model is not None]
        if known:
            known[0].output.description = self._speaker_slot(names[0]).output.description
        self.slots = [*known, *map(self._speaker_slot, names[len(known) : NUM_FIRST_SPEAKERS])]
        self.show_slots(0)
        self.generate_empty_columns()

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
        cast = session_model.cast
        if cast and not slot.speaker:
            # The role of a model with a chat template is a speaker of this one, if it knows that.
            slot.speaker = named_speaker(cast, self.prompt_context.roles.system_prompt)
        slot.model, slot.temperature = session_model.model, self.settings.temperature
        slot.output.title = printable(session_model.name)
        name = display_name(slot.speaker) if cast else ""
        role = f"{name} answers" if self.prompt_context.is_answer else f"as {name}"
        slot.output.description = f"{role} · " * bool(name) + printable(session_model.description)
        slot.output.placeholder = ""
