"""The ladder, columns that differ by temperature, and side by side: columns that differ by model or speaker."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual import on, widgets
from textual.binding import BindingType
from textual.widget import Widget

from engine.config import LSTM
from engine.data.speakers import display_name
from engine.errors import InvalidInputError, describe_error, printable
from engine.generation.settings import SamplerSettings
from engine.generation.turns import SpeakerProb
from engine.models.pretrained.names import parse_pretrained_name
from engine.runs.directory import bundled_runs, list_runs, resolve_run, summarize_run
from engine.runs.loading import list_epoch_checkpoints
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import PRETRAINED_NOTE, format_model_row, format_percent, token_noun
from lotr_tui.monitor.training_view import LossUnit
from lotr_tui.screens.dialogs.dialog import Dialog, Field
from lotr_tui.screens.inspect.columns_screen import FINDING_SPEAKER, ColumnsScreen
from lotr_tui.session.cast import read_name, shown_name
from lotr_tui.session.comparison import Column, ModelChoice, load_model_choice
from lotr_tui.session.model_loading import known_model_names
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import MAX_MODEL_NAME_CHARACTERS, MAX_STRENGTH, read_strength
from lotr_tui.widgets.inputs import LineInput
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.slider import MAX_TEMPERATURE, TemperatureSlider

WIDE_TEMPERATURES = (0.3, 0.6, 0.9, 1.2, 1.5)  # temperatures that the ladder starts with, from cautious to wild
STEP = 0.05
MAX_COLUMNS = 12
MAX_MODELS = 3
MAX_SPEAKERS = 8  # maximum number of columns if the session's model knows speakers
NUM_FIRST_SPEAKERS = 3
SPEAKER_WIDTH = 24
ColumnChoice = ModelChoice | SpeakerProb


def format_temperature(temperature: float) -> str:
    """Return a temperature with two decimals, or with more if it has more."""
    return f"{temperature:.2f}" if round(temperature, 2) == temperature else f"{temperature:g}"


def read_temperature(text: str) -> float:
    try:
        temperature = float(text)
    except ValueError:
        raise InvalidInputError(f"temperature {text!r} is not a number; write them like 0.5 0.8 1") from None
    SamplerSettings(temperature=temperature)  # raises if out of range
    return round(temperature, 4)


def parse_ladder(text: str, name: str = "temperature") -> list[float]:
    read = read_temperature if name == "temperature" else read_strength
    values = [read(part) for part in text.replace(",", " ").split()]
    if not 0 < len(values) <= MAX_COLUMNS:
        wrong = f"{len(values)} {name}s are too many" if values else f"there is no {name}"
        raise InvalidInputError(f"{wrong}; write 1 to {MAX_COLUMNS}, like 0.5 0.8 1")
    return values


class LadderScreen(ColumnsScreen):
    """Texts that share the sampling noise of one seed and differ only by temperature."""

    HEADING = "temperatures"
    HELP_LINE = "One seed, several temperatures: low is safe, high is wild"
    MIN_COLUMN_WIDTH = 14  # "4.21 bits/word" fits, and five columns fit into 80 cells
    COMPARES_WITH_FIRST = False
    NAME, TITLE, MAXIMUM = "temperature", "temp", MAX_TEMPERATURE  # of the number in which the columns differ
    FIRST_VALUES: ClassVar[Sequence[float]] = WIDE_TEMPERATURES

    def make_first_slots(self) -> list[Column]:
        self._speaker = self.prompt_context.roles.speaker
        return list(map(self._make_slot, self.FIRST_VALUES))

    def compose_controls(self) -> Iterable[Widget]:
        yield widgets.Label(f"{self.TITLE}s")
        text = " ".join(map(format_temperature, self.FIRST_VALUES))
        yield LineInput(text, id="temperatures", restrict=r"[0-9., ]*", compact=True)
        if self.session_model.cast:
            yield widgets.Label("to" if self.prompt_context.is_answer else "as", id="role")
            yield LineInput(display_name(self._speaker), id="speaker", placeholder="a name", compact=True)

    def use_ranking(self) -> None:
        if self._ranking and not self._speaker:  # none was typed meanwhile
            self._set_speaker(self._ranking[0].name)

    def _set_speaker(self, name: str) -> None:
        self._speaker = name
        self.query_one("#speaker", widgets.Input).value = display_name(name)
        self.slots = [self._make_slot(self._value(slot)) for slot in self.slots]

    def describe(self) -> str:
        stages = [stage for stage in self.settings.describe().split(" → ") if "temperature" not in stage]
        return " · ".join(filter(None, [self.session_model.name, self.session_model.description, *stages]))

    def apply_controls(self) -> None:
        if self.session_model.cast and (name := self.query_one("#speaker", widgets.Input).value.strip()):
            self._set_speaker(read_name("to", name, self.session_model.cast))
            self.use_ranking()  # if anyone may answer
        values = parse_ladder(self.query_one("#temperatures", widgets.Input).value, self.NAME)
        self.slots = list(map(self._make_slot, values))
        self._show_values()

    def action_add_column(self) -> None:
        """Add a column between the selected and the next one, or one with a higher number at the end."""
        if len(self.slots) == MAX_COLUMNS:
            self.show_note(f"there are {MAX_COLUMNS} columns, the maximum; x removes one")
            return
        index = self.selected_index
        this = self._value(self.slots[index])
        following = self._value(self.slots[index + 1]) if index + 1 < len(self.slots) else this + 0.2
        self.slots.insert(index + 1, self._make_slot(round(min(self.MAXIMUM, (this + following) / 2), 3)))
        self.show_change(index + 1)

    def action_adjust_temperature(self, steps: int) -> None:
        index = self.selected_index
        number = round(self._value(self.slots[index]) / STEP) + steps
        self.slots[index] = self._make_slot(round(min(self.MAXIMUM, max(0.0, number * STEP)), 2))
        self.show_change(index)

    def show_change(self, selected_index: int | None = None) -> None:
        self._show_values()
        super().show_change(selected_index)

    def _show_values(self) -> None:
        values = " ".join(format_temperature(self._value(slot)) for slot in self.slots)
        self.query_one("#temperatures", widgets.Input).value = values

    def _value(self, slot: Column) -> float:
        value: float = getattr(slot, self.NAME)
        return value

    def _make_slot(self, value: float) -> Column:
        title, model = f"{self.TITLE} {format_temperature(value)}", self.session_model
        if self.NAME == "temperature":
            column = Column(title, model.model, value, self._speaker)
        else:  # of the first change of the model
            model = model.with_strengths({next(iter(model.strengths)): value})
            column = Column(title, model.model, self.settings.temperature, self._speaker, strength=value)
        if model.cast and not self._speaker:
            column.model, column.placeholder = None, FINDING_SPEAKER
        return column


class StrengthLadderScreen(LadderScreen):
    """Texts that share the sampling noise of one seed and differ only by how much of an adapter acts."""

    HEADING = "strengths"
    NAME, TITLE, MAXIMUM = "strength", "strength", MAX_STRENGTH
    FIRST_VALUES = (0.0, 0.5, 1.0, 1.5)
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "columns", "raise | plus | adjust_temperature(1) | strength | Raise the strength by 0.05 | +/-", show=True
        ),
        *binding_table(
            "columns", "lower | minus | adjust_temperature(-1) | lower strength | Lower the strength by 0.05"
        ),
    ]

    def get_help_line(self) -> str:
        (name, _), *others = self.session_model.strengths.items()
        if others:
            kept = ", ".join(f"{other} {strength:.2f}" for other, strength in others)
            return f"One seed, several strengths of {name}; unchanged: {kept}"
        return "One seed, several strengths: 0 is the model as it came, 1 as trained"


class ModelChoiceDialog(Dialog[ColumnChoice]):
    """List of models and speakers to add as a column. A name such as `hf:FOLDER` can be typed, too."""

    def __init__(self, title: str, rows: Sequence[tuple[str, ColumnChoice]]) -> None:
        def submit(texts: Mapping[str, str]) -> ColumnChoice:
            parse_pretrained_name(typed := texts["name"].strip())
            return ModelChoice("run", typed)

        placeholder = "type a part of a name, or hf:FOLDER, hf:owner/name, gguf:FILE"
        field = Field("name", placeholder=placeholder, max_length=MAX_MODEL_NAME_CHARACTERS)
        super().__init__(title, answers=rows, fields=[field], submit=submit, finds=True, verb="add")


class SideBySideScreen(ColumnsScreen):
    """Texts of up to three models, or of several speakers of a model that knows them.

    It starts with the session's model and the Kneser-Ney baseline of its run, or else the default model, or with the
    likeliest speakers. Models with the same vocabulary share the sampling noise of every word.
    """

    HEADING = "side by side"
    MIN_COLUMN_WIDTH = 24  # three columns, each with the name of a run, fit into 80 cells
    COMPARES_WITH_FIRST = True

    def get_help_line(self) -> str:
        if self.session_model.cast:
            return "One line and seed for all; a adds a speaker or another model"
        noun = token_noun(self.session_model.model.tokenizer)
        return f"One prompt and seed for all models. Kneser-Ney counts {noun}s; a adds a model"

    @property
    def is_loading(self) -> bool:
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
        yield TemperatureSlider(self.settings.temperature)

    def describe(self) -> str:
        return self.settings.describe()  # the columns have the names

    def on_mount(self) -> None:
        default = ModelChoice("run", bundled_runs()[resolve_run(None)])
        if self.session_model.cast:
            return
        if self.session_model.source:
            self._add_column(default)
        elif self.session_model.run is not None:
            self._add_column(ModelChoice("kneser-ney", self._base_run), otherwise=default)

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
        self.settings = replace(self.settings, temperature=self.query_one(TemperatureSlider).value)
        for slot in self.slots:
            slot.temperature = self.settings.temperature

    def action_adjust_temperature(self, steps: int) -> None:
        self.query_one(TemperatureSlider).action_step(steps)

    @on(TemperatureSlider.Changed)
    def _generate_again(self) -> None:
        if self.prompt_and_seed:
            self.action_generate()

    @property
    def _base_run(self) -> str:
        """Run that the baseline belongs to."""
        run = self.session_model.run
        return LSTM if run is None else bundled_runs().get(run) or str(run)

    def action_add_column(self) -> None:
        """Add a speaker, a baseline of the run, one of its epochs, another run or a model by others."""
        maximum, noun = (MAX_SPEAKERS, "columns") if self.session_model.cast else (MAX_MODELS, "models")
        if len(self.slots) >= maximum:
            self.show_note(f"there are {maximum} {noun}, the maximum; x removes one")
            return
        run, base = self.session_model.run, self._base_run
        ranked = {speaker.name for speaker in self._ranking}
        others = (SpeakerProb(name, 0.0) for name in self.session_model.cast if name not in ranked)
        rows: list[tuple[str, ColumnChoice]] = []
        for speaker in (*self._ranking, *others):
            prob = f"{format_percent(speaker.prob):>8} likely to answer" if speaker.prob else ""
            rows.append((f"{display_name(speaker.name):{SPEAKER_WIDTH}}{prob}".rstrip(), speaker))
        baseline = f"Kneser-Ney, counted on the training text of {printable(Path(base).name)}"
        rows.append((baseline, ModelChoice("kneser-ney", base)))
        if run is not None and (epochs := list_epoch_checkpoints(run)):
            unit = LossUnit.of(summarize_run(run))
            for epoch, perplexity in epochs.items():
                choice = ModelChoice("run", base, epoch)
                rows.append((format_model_row(choice.name, f"epoch {epoch}", unit.format(perplexity)), choice))
        rows += [(name, ModelChoice("run", name)) for name in bundled_runs().values()]
        for each in (run for run in list_runs(self.state.runs_dir) if run.valid_perplexity is not None):
            is_comparable = not each.pretrained_on_other_text  # perplexities of different tokens do not compare
            valid = LossUnit.of(each).format(each.valid_perplexity) if is_comparable else ""
            row = format_model_row(each.name, each.state, valid)
            rows.append((row if is_comparable else f"{row} {PRETRAINED_NOTE}", ModelChoice("run", str(each.path))))
        names = known_model_names(self.state.settings.current.recent_models)
        rows += [(printable(name), ModelChoice("run", name)) for name in names]
        title = "A speaker or a model" if self.session_model.cast else "Add a model"
        self.app.push_screen(ModelChoiceDialog(title, rows), self._add_column)

    def _add_column(self, choice: ColumnChoice | None, otherwise: ModelChoice | None = None) -> None:
        """Add a column. The model of a run is loaded in a thread; if it cannot be loaded, `otherwise` is added."""
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
        self.slots.append(slot)
        self.show_slots(len(self.slots) - 1)

    def _speaker_slot(self, name: str) -> Column:
        prob = next((speaker.prob for speaker in self._ranking if speaker.name == name), None)
        likely = "" if prob is None else f"{format_percent(prob)} likely to answer"
        return Column(shown_name(name), self.session_model.model, self.settings.temperature, name, likely)

    async def _load_model(self, slot: Column, choice: ModelChoice, otherwise: ModelChoice | None) -> None:
        failure = ""
        try:
            self._set_model(slot, await run_in_thread(load_model_choice, choice, self.state.runs_dir))
        except Exception as error:
            failure = f"{slot.title}: {describe_error(error)}"
        if slot not in self.slots or is_closed(self):
            return  # the column was removed, or the screen closed, while the model was loading
        if failure:
            self.slots.remove(slot)
            self._add_column(otherwise)
            self.show_note(failure)
        self.show_slots()

    def _set_model(self, slot: Column, session_model: SessionModel) -> None:
        cast = session_model.cast
        slot.model, slot.temperature = session_model.model, self.settings.temperature
        slot.title = printable(session_model.name)
        name = shown_name(slot.speaker) if cast else ""
        role = f"{name} answers" if self.prompt_context.is_answer else f"as {name}"
        slot.description = f"{role} · " * bool(name) + printable(session_model.description)
        slot.placeholder = ""
