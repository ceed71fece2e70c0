"""Side by side: columns that differ by model or speaker, and the dialog that chooses one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import Input, OptionList

from engine.config import LSTM
from engine.data.speakers import display_name
from engine.errors import describe_error, printable
from engine.generation.settings import SamplerSettings
from engine.generation.turns import SpeakerProb
from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name
from engine.runs.directory import bundled_runs, list_runs, resolve_run
from engine.runs.loading import list_epoch_checkpoints
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import PRETRAINED_NOTE, format_model_row, format_percent, token_noun
from lotr_tui.screens.dialogs.dialog import Dialog, Field
from lotr_tui.screens.inspect.comparison import FINDING_SPEAKER, ColumnsScreen, format_temperature, step_temperature
from lotr_tui.session.cast import named_speaker, shown_name
from lotr_tui.session.columns import Column
from lotr_tui.session.model_loading import known_model_names
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import MAX_MODEL_NAME_CHARACTERS
from lotr_tui.session.training_text import ModelChoice, load_model_choice
from lotr_tui.widgets.inputs import NumberField
from lotr_tui.widgets.keys import binding_table

MAX_MODELS = 3
MAX_SPEAKERS = 8  # maximum number of columns if the session's model knows speakers
NUM_FIRST_SPEAKERS = 3
SPEAKER_WIDTH = 24
ColumnChoice = ModelChoice | SpeakerProb


class ModelChoiceDialog(Dialog[ColumnChoice]):
    """List of models and speakers to add as a column.

    A typed part of a name shortens the list, and a typed name such as `hf:owner/name` or `gguf:FILE` is a model by
    others.
    """

    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "model-choice",
        """
        up   | up   | step(-1) | up   | The row above
        down | down | step(1)  | down | The row below
        """,
    )

    def __init__(self, title: str, rows: Sequence[tuple[str, ColumnChoice]]) -> None:
        placeholder = "type a part of a name, or hf:FOLDER, hf:owner/name, gguf:FILE"
        field = Field("name", placeholder=placeholder, max_length=MAX_MODEL_NAME_CHARACTERS)
        super().__init__(title, answers=rows, fields=[field], verb="add")
        self._rows = rows

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def action_step(self, offset: int) -> None:
        rows = self.query_one(OptionList)
        rows.action_cursor_down() if offset > 0 else rows.action_cursor_up()

    @on(Input.Changed)
    def _filter(self, event: Input.Changed) -> None:
        self.show_problem("")
        typed = event.value.strip().casefold()
        matches = [row for row in self._rows if typed in row[0].casefold()]
        matches.sort(key=lambda row: not row[0].casefold().startswith(typed))
        self.answers = matches
        rows = self.query_one(OptionList)
        rows.set_options([label for label, _ in self.answers])
        rows.highlighted = 0 if self.answers else None

    async def use(self, texts: Mapping[str, str]) -> None:
        typed, highlighted = texts["name"].strip(), self.query_one(OptionList).highlighted
        if is_pretrained_name(typed):
            parse_pretrained_name(typed)
            self.dismiss(ModelChoice("run", typed))
        elif highlighted is not None:
            self.choose(highlighted)


class SideBySideScreen(ColumnsScreen):
    """Texts of up to three models, or of several speakers of a model that knows them.

    It starts with the session's model and the Kneser-Ney baseline of its run, or else the default model, or with the
    likeliest speakers. Models with the same vocabulary share the sampling noise of every word.
    """

    HEADING = "side by side"
    MIN_COLUMN_WIDTH = 24  # three columns, each with the name of a run, fit into 80 cells
    COMPARES_WITH_FIRST = True
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "side-by-side",
        """
        change | c | change_column | compare | Compare with another model or speaker in the selected column
        """,
        show=True,
    )

    def get_help_line(self) -> str:
        if self.session_model.cast:
            return "One line and seed for all; a adds a speaker or a model by name, c changes a column"
        noun = token_noun(self.session_model.model.tokenizer)
        return f"One prompt and seed for all models. Kneser-Ney counts {noun}s; a adds a model"

    @property
    def is_loading(self) -> bool:
        """True while a model is being loaded."""
        return any(worker.node is self and worker.group == "loading" for worker in self.workers)

    def make_first_slots(self) -> list[Column]:
        if self.session_model.cast:
            chosen = [self._speaker_slot(name) for name in (self.prompt_context.roles.speaker,) if name]
            unknown = [Column("", placeholder=FINDING_SPEAKER) for _ in range(NUM_FIRST_SPEAKERS)]
            return [*chosen, *unknown][:NUM_FIRST_SPEAKERS]
        slot = Column("")
        self._set_model(slot, self.session_model)
        return [slot]

    def compose_controls(self) -> Iterable[Widget]:
        temperature = format_temperature(self.settings.temperature)
        yield NumberField("temperature", temperature, id="temperature", width=4, placeholder="0.8", number_type=float)

    def title_parts(self) -> tuple[str, str]:
        return "", self.settings.describe()  # the columns have the names

    def load_initial_columns(self) -> None:
        if self.session_model.source:
            self._add_column(ModelChoice("run", bundled_runs()[resolve_run(None)]))
        elif self.session_model.run is not None:
            self._add_column(ModelChoice("kneser-ney", self._base_run), otherwise=bundled_runs()[resolve_run(None)])
        self.show_slots(0)

    def use_ranking(self) -> None:
        """Show the likeliest speakers, after the one that is chosen."""
        known = [slot for slot in self.slots if slot.model is not None]
        if not self._ranking:
            self.slots = known or self.slots[:1]
            return
        chosen = self.prompt_context.roles.speaker
        names = [*filter(None, [chosen]), *(speaker.name for speaker in self._ranking if speaker.name != chosen)]
        if known:
            known[0].description = self._speaker_slot(names[0]).description
        self.slots = [*known, *map(self._speaker_slot, names[len(known) : NUM_FIRST_SPEAKERS])]

    def apply_controls(self) -> None:
        typed = self.query_one("#temperature", NumberField).number()
        valid = SamplerSettings() if typed is None else SamplerSettings(temperature=typed)
        self.settings = replace(self.settings, temperature=valid.temperature)
        for slot in self.slots:
            slot.temperature = self.settings.temperature

    def action_adjust_temperature(self, steps: int) -> None:
        """Change the temperature of all columns, and generate them again."""
        field = self.query_one("#temperature", NumberField)
        typed = field.number()
        temperature = SamplerSettings().temperature if typed is None else typed
        field.input.value = format_temperature(step_temperature(temperature, steps))
        if self.prompt_and_seed:
            self.action_generate()

    def action_add_column(self) -> None:
        maximum, noun = (MAX_SPEAKERS, "columns") if self.session_model.cast else (MAX_MODELS, "models")
        if len(self.slots) >= maximum:
            self.show_note(f"there are {maximum} {noun}, the maximum; x removes one")
        else:
            self._choose_column(self._add_column)

    def action_change_column(self) -> None:
        slot = self.slots[self.selected_index]
        self._choose_column(lambda choice: self._add_column(choice, replaced=slot))

    @property
    def _base_run(self) -> str:
        """Run that the baseline and the mixture belong to."""
        run = self.session_model.run
        return LSTM if run is None else bundled_runs().get(run) or str(run)

    def _choose_column(self, use: Callable[[ColumnChoice | None], None]) -> None:
        """Ask for a speaker, a baseline of the run, one of its epochs, another run or a model by others."""
        run, base = self.session_model.run, self._base_run
        baseline = f"Kneser-Ney, counted on the training text of {printable(Path(base).name)}"
        mixture = ModelChoice("mixture", base)
        rows: list[tuple[str, ColumnChoice]] = [
            (baseline, ModelChoice("kneser-ney", base)),
            (f"{mixture.name}, weights chosen on validation", mixture),
        ]
        for epoch, valid in (list_epoch_checkpoints(run) if run is not None else {}).items():
            choice = ModelChoice("run", base, epoch)
            rows.append((format_model_row(choice.name, f"epoch {epoch}", valid), choice))
        rows += [(name, ModelChoice("run", name)) for name in bundled_runs().values()]
        trained = (run for run in list_runs(self.state.runs_dir) if run.valid_perplexity is not None)
        for each in trained:
            is_comparable = not each.pretrained_on_other_text  # perplexities of different tokens do not compare
            row = format_model_row(each.name, each.state, each.valid_perplexity if is_comparable else None)
            rows.append((row if is_comparable else f"{row} {PRETRAINED_NOTE}", ModelChoice("run", str(each.path))))
        names = known_model_names(self.state.settings.current.recent_models)
        rows += [(printable(name), ModelChoice("run", name)) for name in names]
        if not self.session_model.cast:
            self.app.push_screen(ModelChoiceDialog("Add a model", rows), use)
            return
        ranked = {speaker.name for speaker in self._ranking}
        others = (SpeakerProb(name, 0.0) for name in self.session_model.cast if name not in ranked)
        speakers: list[tuple[str, ColumnChoice]] = []
        for speaker in (*self._ranking, *others):
            prob = f"{format_percent(speaker.prob):>8} likely to answer" if speaker.prob else ""
            speakers.append((f"{display_name(speaker.name):{SPEAKER_WIDTH}}{prob}".rstrip(), speaker))
        self.app.push_screen(ModelChoiceDialog("A speaker or a model", [*speakers, *rows]), use)

    def _add_column(
        self, choice: ColumnChoice | None, replaced: Column | None = None, otherwise: str | None = None
    ) -> None:
        """Add a column, or put it in the place of another one. The model of a run is loaded in a thread.

        If it cannot be loaded, the model of the run `otherwise` is added.
        """
        if choice is None:
            return
        if isinstance(choice, SpeakerProb):
            slot = self._speaker_slot(choice.name)
        else:
            # Models of another kind let the speaker of the first column speak.
            speaker = next((slot.speaker for slot in self.slots if slot.speaker), self.prompt_context.roles.speaker)
            temperature, message = self.settings.temperature, choice.loading_message
            slot = Column(choice.name, None, temperature, speaker, placeholder=message)
            self.run_worker(self._load_model(slot, choice, otherwise), group="loading")
        index = self.slots.index(replaced) if replaced in self.slots else len(self.slots)
        self.slots[index : index + (replaced in self.slots)] = [slot]
        self.show_slots(index)
        self.generate_empty_columns()

    def _speaker_slot(self, name: str) -> Column:
        prob = next((speaker.prob for speaker in self._ranking if speaker.name == name), None)
        likely = "" if prob is None else f"{format_percent(prob)} likely to answer"
        return Column(shown_name(name), self.session_model.model, self.settings.temperature, name, likely)

    async def _load_model(self, slot: Column, choice: ModelChoice, otherwise: str | None) -> None:
        """Load the model of a column, or remove the column if that fails."""
        failure = ""
        try:
            self._set_model(slot, await run_in_thread(load_model_choice, choice, self.state.runs_dir))
        except Exception as error:
            failure = f"{slot.title}: {describe_error(error)}"
        if slot not in self.slots or is_closed(self):
            return  # the column was removed, or the screen closed, while the model was loading
        if failure:
            self.slots.remove(slot)
            self.show_slots()
            self._add_column(ModelChoice("run", otherwise) if otherwise else None)
            self.show_note(failure)
        else:
            self.show_slots()
            self.generate_empty_columns()

    def _set_model(self, slot: Column, session_model: SessionModel) -> None:
        cast = session_model.cast
        if cast and not slot.speaker:
            # The role of a model with a chat template is a speaker of this one, if it knows that.
            slot.speaker = named_speaker(cast, self.prompt_context.roles.system_prompt)
        slot.model, slot.temperature = session_model.model, self.settings.temperature
        slot.title = printable(session_model.name)
        name = shown_name(slot.speaker) if cast else ""
        role = f"{name} answers" if self.prompt_context.is_answer else f"as {name}"
        slot.description = f"{role} · " * bool(name) + printable(session_model.description)
        slot.placeholder = ""
