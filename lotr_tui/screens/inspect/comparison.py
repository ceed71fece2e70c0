"""Texts from one prompt and one seed in columns: the ladder of temperatures, and models or speakers side by side."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Label, Rule, Static

from engine.config import LSTM
from engine.data.speakers import display_name
from engine.errors import InvalidInputError, LotrError, describe_error, printable
from engine.generation.settings import SamplerSettings, check_seed, random_seed
from engine.generation.turns import SpeakerProb
from engine.runs.directory import bundled_runs, default_run_name
from engine.runs.loading import list_epoch_checkpoints
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import format_percent, plural, token_noun
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.inspect.columns import DIFFERENCE_MARK, ColumnWriters, GenerationColumns
from lotr_tui.screens.inspect.model_choice import ColumnChoice, ModelChoiceDialog
from lotr_tui.screens.inspect.text_screen import export_picture
from lotr_tui.session.cast import named_speaker, read_name, shown_name
from lotr_tui.session.columns import (
    Column,
    PromptContext,
)
from lotr_tui.session.model_loading import known_model_names
from lotr_tui.session.next_tokens import find_turn, read_next_token
from lotr_tui.session.read_text import TextReader, to_prompt_line
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.training_text import ModelChoice, load_model_choice
from lotr_tui.theme import MUTED
from lotr_tui.widgets.inputs import LineInput, NumberField
from lotr_tui.widgets.keys import KeyFooter, binding_table
from lotr_tui.widgets.prompt import MAX_PROMPT_CHARACTERS
from lotr_tui.widgets.screen_lines import HelpLine, StatusBar

FINDING_SPEAKER = "finding out who is likely to answer …"
"""Text of a column whose speaker is not known yet."""
WIDE_TEMPERATURES = (0.3, 0.6, 0.9, 1.2, 1.5)
"""Temperatures that the ladder starts with, from cautious to wild."""
NOTEBOOK_TEMPERATURES = (0.5, 0.7, 0.75, 0.8, 1.0)
"""Temperatures of the classroom notebook; their texts are often the same."""
TEMPERATURE_STEP = 0.05
MAX_TEMPERATURES = 12
MAX_MODELS = 3
MAX_SPEAKERS = 8
"""Maximum number of columns if the session's model knows speakers."""
NUM_FIRST_SPEAKERS = 3


def step_temperature(temperature: float, steps: int) -> float:
    """Return the temperature changed by a number of steps, rounded to a multiple of the step, from 0 to 2."""
    return round(min(2.0, max(0.0, (round(temperature / TEMPERATURE_STEP) + steps) * TEMPERATURE_STEP)), 2)


def format_temperature(temperature: float) -> str:
    """Return a temperature with two decimals, or with more if it has more."""
    return f"{temperature:.2f}" if round(temperature, 2) == temperature else f"{temperature:g}"


def parse_temperatures(text: str) -> list[float]:
    """Return the temperatures in `text`, which are separated by spaces or commas."""
    temperatures = []
    for part in text.replace(",", " ").split():
        try:
            temperature = float(part)
        except ValueError:
            raise InvalidInputError(f"temperature {part!r} is not a number; write them like 0.5 0.8 1") from None
        SamplerSettings(temperature=temperature)  # raises if out of range
        temperatures.append(round(temperature, 4))
    if not temperatures:
        raise InvalidInputError("there is no temperature; write some, like 0.5 0.8 1")
    if len(temperatures) > MAX_TEMPERATURES:
        raise InvalidInputError(f"{len(temperatures)} temperatures are too many; write at most {MAX_TEMPERATURES}")
    return temperatures


def rank_speakers(session_model: SessionModel, prompt: str, context: PromptContext) -> list[SpeakerProb]:
    """Return who may answer a prompt in its context, likeliest first, or who may begin a scene that is continued."""
    line = to_prompt_line(prompt) if context.is_answer else ""
    previous = context.previous_reply if context.is_answer else None
    read = read_next_token(TextReader(), find_turn(session_model, line, previous, context.roles))
    return [] if read is None else list(read.speakers)


class ColumnsScreen(AppScreen[None]):
    """Columns of generated text with a prompt and controls below; a subclass decides what the columns are."""

    CSS_PATH = "inspect.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (76, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (14, "-low"), (30, "-high")]  # noqa: RUF012
    AUTO_FOCUS = ""
    HEADING: ClassVar[str]
    MIN_COLUMN_WIDTH: ClassVar[int]
    COMPARES_WITH_FIRST: ClassVar[bool]
    """True if each column is compared with the first one, False with the one to its left."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "generate", "run", id="columns.generate", tooltip="Generate all columns again", priority=True),
        *binding_table(
            "columns",
            """
            close    | escape | close                  | back   | Stop what is written, or return to the previous screen
            again    | r      | new_seed               | again  | Generate again with another seed
            add      | a      | add_column             | add    | Add a column
            remove   | x      | remove_column          | remove | Remove the selected column
            raise    | plus   | adjust_temperature(1)  | temp   | Raise the temperature by 0.05  | +/-
            next     | right  | select_column(1)       | column | Select the column to the right | ←→
            edit     | e      | edit                   | edit   | Edit the prompt
            """,
            show=True,
        ),
        *binding_table(
            "columns",
            """
            lower     | minus    | adjust_temperature(-1) | lower temp      | Lower the temperature by 0.05
            previous  | left     | select_column(-1)      | previous column | Select the column to the left
            page-up   | pageup   | scroll_page(-1)        | page up         | A page up
            page-down | pagedown | scroll_page(1)         | page down       | A page down
            export    | ctrl+s   | export                 | export          | Write a picture of what is shown to a file
            """,
        ),
        Binding("ctrl+c", "stop", "stop", show=False, id="columns.stop", tooltip="Stop the generation", priority=True),
    ]

    def __init__(
        self,
        session_model: SessionModel,
        prompt: str,
        settings: SamplerSettings,
        seed: int | None,
        pace: float,
        context: PromptContext | None = None,
    ) -> None:
        """Continue or answer `prompt` in every column, at most `pace` words per second; 0 is no limit.

        All columns share the seed, which is drawn if it is None, and the settings except for the temperature. `context`
        is how they read the prompt; None continues it.
        """
        super().__init__()
        self.session_model = session_model
        self.settings = settings
        self.prompt_context = context or PromptContext()
        self._prompt, self._pace = prompt, pace
        self._seed = random_seed() if seed is None else seed
        self.prompt_and_seed: tuple[str, int] | None = None
        """Prompt and seed of the shown texts, or None before the first generation."""
        self.writers = ColumnWriters(self, self._refresh_columns, self._finish_writing)
        self.slots = self.make_first_slots()
        """Columns from left to right."""
        self._note: str | None = None  # None explains the marks

    # Parts that a subclass implements, besides the actions that add and remove columns and adjust temperatures

    def make_first_slots(self) -> list[Column]:
        """Return the columns that need no loading."""
        raise NotImplementedError

    def compose_controls(self) -> Iterable[Widget]:
        raise NotImplementedError

    def apply_controls(self) -> None:
        """Apply the controls of the subclass to slots and settings, or raise `InvalidInputError`."""
        raise NotImplementedError

    def title_parts(self) -> tuple[str, str]:
        """Return a name and a description for the status line."""
        raise NotImplementedError

    def load_initial_columns(self) -> None:
        """Start to load further columns when the screen is mounted."""
        raise NotImplementedError

    # Screen

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield Rule(line_style="solid")
        yield GenerationColumns(self.MIN_COLUMN_WIDTH, compares_with_first=self.COMPARES_WITH_FIRST)
        yield Static("", id="note", markup=False)
        yield Rule(line_style="solid")
        with Horizontal(id="controls"):
            yield from self.compose_controls()
            seed_width = max(8, len(str(self._seed)))
            yield NumberField("seed", str(self._seed), id="seed", width=seed_width, placeholder="random")
            noun = token_noun(self.session_model.model.tokenizer)
            yield NumberField(f"{noun}s", str(self.settings.max_tokens), id="max_tokens", width=4, placeholder="30")
        with Horizontal(id="prompt-line"):
            yield Label(self.prompt_context.prompt_mark, id="prompt-mark", markup=False)
            yield LineInput(
                self._prompt,
                placeholder="type a line to answer" if self.prompt_context.is_answer else "type a text to continue",
                id="prompt",
                compact=True,
                max_length=MAX_PROMPT_CHARACTERS,
                select_on_focus=False,
            )
        yield HelpLine()
        yield KeyFooter()

    def on_mount(self) -> None:
        self.query_one("#columns" if self._prompt.strip() else "#prompt").focus()
        self._show_status()
        self.show_slots(0)
        self.load_initial_columns()
        if self._prompt.strip() or self.prompt_context.is_next_turn:
            self.action_generate()

    def on_unmount(self) -> None:
        self.writers.discard()

    def on_resize(self) -> None:
        self.call_after_refresh(lambda: self.show_note(self._note))

    def show_note(self, problem: str | None = None) -> None:
        """Show a problem below the columns; without one, explain the mark in the columns and say which are visible."""
        if is_closed(self):
            return
        self._note = problem
        columns = self.query_one(GenerationColumns)
        visible = columns.visible_columns()
        hidden = f"columns {visible.start + 1}–{visible.stop} of {len(self.slots)} · "
        other = "first column" if self.COMPARES_WITH_FIRST else "left column"
        text = f"{hidden * (len(visible) < len(self.slots))}{DIFFERENCE_MARK} first word unlike the {other}"
        text = problem or f"{text} · bits/word: surprise"
        self.query_one("#note", Static).update(Content.styled(printable(text), "$warning" if problem else MUTED))

    def try_or_show_error(self, change: Callable[[], None]) -> bool:
        """Call `change`, and show its error as the note. Return True if there was none."""
        try:
            change()
        except LotrError as error:
            self.show_note(str(error))
            return False
        self.show_note()
        return True

    def _show_status(self) -> None:
        name, about = self.title_parts()
        is_answer = self.prompt_context.is_answer
        previous = self.prompt_context.previous_reply if is_answer and self.prompt_and_seed is not None else None
        number = 0 if previous is None else len(previous.path())
        after = f" · after {plural(number, 'earlier reply', 'earlier replies')}" if number else ""
        left = Content.assemble(
            ("lotr-tui", "bold $accent"),
            f"  {self.HEADING}: {'answers' if is_answer else 'continuations'}{after}  ",
            (name, "bold"),
            (" · " if name and about else "", MUTED),
            (about, MUTED),
        )
        seed = "" if self.prompt_and_seed is None else f"seed {self.prompt_and_seed[1]}"
        self.query_one("#status", StatusBar).show(left, Content.styled(seed, MUTED))

    # Generation

    def action_generate(self) -> None:
        """Generate every column again with the values of the controls."""
        if not self.try_or_show_error(self._read_controls):
            return
        self.writers.discard()
        for slot in self.slots:
            slot.clear()
        self._show_status()
        self.show_slots()
        self.generate_empty_columns()

    def generate_empty_columns(self) -> None:
        """Generate the columns that have no text, with the prompt and the seed of the others."""
        if self.prompt_and_seed is None:
            return
        prompt, seed = self.prompt_and_seed
        self.writers.start(self.slots, prompt, self.prompt_context, self.settings, seed, self._pace)
        self._finish_writing()

    def _read_controls(self) -> None:
        prompt = self.query_one("#prompt", Input).value
        if not prompt.strip() and not self.prompt_context.is_next_turn:
            raise InvalidInputError("type a prompt first")
        typed_max_tokens = self.query_one("#max_tokens", NumberField).number()
        limits = SamplerSettings() if typed_max_tokens is None else SamplerSettings(max_tokens=typed_max_tokens)
        typed_seed = self.query_one("#seed", NumberField).number()
        seed = random_seed() if typed_seed is None else typed_seed
        check_seed(seed)
        self.apply_controls()
        self.settings = replace(self.settings, max_tokens=limits.max_tokens)
        self.prompt_and_seed = (prompt, seed)
        self.query_one("#seed Input", Input).value = str(seed)

    def _refresh_columns(self) -> None:
        self.query_one(GenerationColumns).redraw_changes()

    def _finish_writing(self) -> None:
        self._refresh_columns()
        self.refresh_bindings()

    def action_stop(self) -> None:
        self.writers.stop()

    def action_close(self) -> None:
        if self.writers.is_writing:
            self.writers.stop()
        else:
            self.dismiss()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "stop" or self.writers.is_writing

    def action_edit(self) -> None:
        self.query_one("#prompt", Input).focus()

    def action_export(self) -> None:
        export_picture(self, "columns")

    def action_new_seed(self) -> None:
        self.query_one("#seed Input", Input).value = str(random_seed())
        if self.query_one("#prompt", Input).value.strip() or self.prompt_context.is_next_turn:
            self.action_generate()

    # Columns

    @property
    def selected_index(self) -> int:
        """Index of the column that the keys act on."""
        return self.query_one(GenerationColumns).selected_index

    def show_slots(self, selected_index: int | None = None) -> None:
        """Show the slots after a change, and stop generating for removed ones."""
        self.writers.stop(except_for=self.slots)
        index = self.selected_index if selected_index is None else selected_index
        self.query_one(GenerationColumns).show(self.slots, index)
        self.show_note(self._note)

    def action_select_column(self, offset: int) -> None:
        self.show_slots(self.selected_index + offset)

    @on(GenerationColumns.ColumnSelected)
    def _select_clicked_column(self, message: GenerationColumns.ColumnSelected) -> None:
        self.show_slots(message.index)

    def action_scroll_page(self, pages: int) -> None:
        self.query_one(GenerationColumns).scroll_pages(pages)

    async def rank_speakers(self) -> list[SpeakerProb]:
        """Return who may answer the prompt; if the model fails or the screen is closed, return an empty list."""
        try:
            ranking = await run_in_thread(rank_speakers, self.session_model, self._prompt, self.prompt_context)
        except Exception as error:
            self.show_note(f"Cannot rank the speakers: {describe_error(error)}")
            return []
        return [] if is_closed(self) else ranking


class LadderScreen(ColumnsScreen):
    """Texts that share the sampling noise of one seed and differ only by temperature."""

    HEADING = "ladder"
    HELP_LINE = "One seed, several temperatures: low is safe, high is wild"
    MIN_COLUMN_WIDTH = 14  # "4.21 bits/word" fits, and five columns fit into 80 cells
    COMPARES_WITH_FIRST = False
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "ladder",
        """
        temperatures | t | next_preset | temperatures | The temperatures of the notebook, or again 0.3 to 1.5
        """,
        show=True,
    )

    def make_first_slots(self) -> list[Column]:
        self._speaker = self.prompt_context.roles.speaker
        return [self._make_slot(temperature) for temperature in WIDE_TEMPERATURES]

    def compose_controls(self) -> Iterable[Widget]:
        yield Label("temps")
        text = " ".join(map(format_temperature, WIDE_TEMPERATURES))
        yield LineInput(text, id="temperatures", restrict=r"[0-9., ]*", compact=True)
        if self.session_model.knows_speakers:
            yield Label("to" if self.prompt_context.is_answer else "as", id="role")
            yield LineInput(display_name(self._speaker), id="speaker", placeholder="a name", compact=True)

    def load_initial_columns(self) -> None:
        if self.session_model.knows_speakers and not self._speaker:
            self.run_worker(self._find_speaker(), group="loading")

    async def _find_speaker(self) -> None:
        """Let the likeliest speaker say the text of all columns."""
        ranking = await self.rank_speakers()
        if ranking and not self._speaker:
            self._set_speaker(ranking[0].name)
            self.show_slots()
            self.generate_empty_columns()

    def _set_speaker(self, name: str) -> None:
        self._speaker = name
        self.query_one("#speaker", Input).value = display_name(name)
        for slot in self.slots:
            slot.speaker, slot.model = name, self.session_model.model
            slot.placeholder = ""

    def title_parts(self) -> tuple[str, str]:
        stages = [stage for stage in self.settings.describe().split(" → ") if "temperature" not in stage]
        return self.session_model.name, " · ".join(filter(None, [self.session_model.description, *stages]))

    def apply_controls(self) -> None:
        if self.session_model.knows_speakers and (name := self.query_one("#speaker", Input).value.strip()):
            self._set_speaker(read_name(name, self.session_model.cast))
        self._set_temperatures(self._read_temperatures(), self.selected_index)

    def action_next_preset(self) -> None:
        shown = tuple(slot.temperature for slot in self.slots)
        self._set_temperatures(WIDE_TEMPERATURES if shown == NOTEBOOK_TEMPERATURES else NOTEBOOK_TEMPERATURES, 0)
        self.show_note()
        self.generate_empty_columns()

    def action_add_column(self) -> None:
        """Add a column between the selected and the next one, or one with a higher temperature at the end."""

        def add(values: list[float], index: int) -> int:
            if len(values) == MAX_TEMPERATURES:
                raise InvalidInputError(f"there are {MAX_TEMPERATURES} columns, the maximum; x removes one")
            is_last = index == len(values) - 1
            new = min(2.0, values[index] + 0.1) if is_last else (values[index] + values[index + 1]) / 2
            values.insert(index + 1, round(new, 3))
            return index + 1

        self._change_columns(add)

    def action_remove_column(self) -> None:
        def remove(values: list[float], index: int) -> int:
            if len(values) == 1:
                raise InvalidInputError("one column must stay; a adds another")
            del values[index]
            return index

        self._change_columns(remove)

    def action_adjust_temperature(self, steps: int) -> None:
        """Change the temperature of the selected column."""

        def adjust(values: list[float], index: int) -> int:
            values[index] = step_temperature(values[index], steps)
            return index

        self._change_columns(adjust)

    def _change_columns(self, change: Callable[[list[float], int], int]) -> None:
        """Change the columns, and generate the new ones with the prompt and seed of the others.

        `change` modifies a list of temperatures, given the selected index, and returns the new index.
        """

        def apply() -> None:
            values = self._read_temperatures()
            self._set_temperatures(values, change(values, min(self.selected_index, len(values) - 1)))

        if self.try_or_show_error(apply):
            self.generate_empty_columns()

    def _read_temperatures(self) -> list[float]:
        return parse_temperatures(self.query_one("#temperatures", Input).value)

    def _set_temperatures(self, values: Sequence[float], selected_index: int) -> None:
        """Show a column for each temperature; columns that exist already keep their text."""
        unused, self.slots = self.slots, []
        for temperature in values:
            slot = next((slot for slot in unused if slot.temperature == temperature), None)
            if slot is not None:
                unused.remove(slot)
            self.slots.append(slot or self._make_slot(temperature))
        self.query_one("#temperatures", Input).value = " ".join(map(format_temperature, values))
        self.show_slots(selected_index)

    def _make_slot(self, temperature: float) -> Column:
        column = Column(f"temp {format_temperature(temperature)}", self.session_model.model, temperature, self._speaker)
        if self.session_model.knows_speakers and not self._speaker:
            column.model, column.placeholder = None, FINDING_SPEAKER
        return column


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
        """Compare `session_model` with models of `runs_dir`; None is the default directory."""
        self._ranking: Sequence[SpeakerProb] = ()
        super().__init__(session_model, prompt, settings, seed, pace, context)
        self._runs_dir = runs_dir

    def get_help_line(self) -> str:
        if self.session_model.knows_speakers:
            return "One line and seed for all; a adds a speaker or a model by name, c changes a column"
        noun = token_noun(self.session_model.model.tokenizer)
        return f"One prompt and seed for all models. Kneser-Ney counts {noun}s; a adds a model"

    @property
    def is_loading(self) -> bool:
        """True while a model is being loaded."""
        return any(worker.node is self and worker.group == "loading" for worker in self.workers)

    def make_first_slots(self) -> list[Column]:
        if self.session_model.knows_speakers:
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
        if self.session_model.knows_speakers:
            self.run_worker(self._add_likely_speakers(), group="loading")
        elif self.session_model.is_by_others:
            self._add_column(ModelChoice("run", default_run_name()))
        elif self.session_model.run is not None:
            self._add_column(
                ModelChoice("kneser-ney", self._base_run), otherwise=ModelChoice("run", default_run_name())
            )
        self.show_slots(0)

    def apply_controls(self) -> None:
        self.settings = replace(self.settings, temperature=self._read_temperature())
        for slot in self.slots:
            slot.temperature = self.settings.temperature

    def action_adjust_temperature(self, steps: int) -> None:
        """Change the temperature of all columns, and generate them again."""

        def adjust() -> None:
            value = format_temperature(step_temperature(self._read_temperature(), steps))
            self.query_one("#temperature Input", Input).value = value

        if self.try_or_show_error(adjust) and self.prompt_and_seed:
            self.action_generate()

    def _read_temperature(self) -> float:
        typed = self.query_one("#temperature", NumberField).number()
        return SamplerSettings().temperature if typed is None else SamplerSettings(temperature=typed).temperature

    def action_add_column(self) -> None:
        maximum, noun = (MAX_SPEAKERS, "columns") if self.session_model.knows_speakers else (MAX_MODELS, "models")
        if len(self.slots) >= maximum:
            self.show_note(f"there are {maximum} {noun}, the maximum; x removes one")
        else:
            self._choose_column(self._add_column)

    def action_change_column(self) -> None:
        slot = self.slots[self.selected_index]
        self._choose_column(lambda choice: self._add_column(choice, replaced=slot))

    def _choose_column(self, use: Callable[[ColumnChoice | None], None]) -> None:
        run = self.session_model.run
        saved_epochs = list_epoch_checkpoints(run) if run is not None else {}
        ranked = {speaker.name for speaker in self._ranking}
        others = (SpeakerProb(name, 0.0) for name in self.session_model.cast if name not in ranked)
        speakers = [*self._ranking, *others] if self.session_model.knows_speakers else ()
        recent = self.state.settings.current.recent_models
        names = known_model_names(recent)
        self.app.push_screen(ModelChoiceDialog(self._base_run, saved_epochs, self._runs_dir, speakers, names), use)

    def action_remove_column(self) -> None:
        if len(self.slots) == 1:
            self.show_note("one column must stay; a adds another")
        else:
            del self.slots[self.selected_index]
            self.show_slots()

    @property
    def _base_run(self) -> str:
        """Run that the baseline and the mixture belong to."""
        run = self.session_model.run
        return LSTM if run is None else bundled_runs().get(run) or str(run)

    def _add_column(
        self,
        choice: ColumnChoice | None,
        replaced: Column | None = None,
        otherwise: ModelChoice | None = None,
    ) -> None:
        """Add a column, or put it in the place of another one. The model of a run is loaded in a thread.

        If it cannot be loaded, the model `otherwise` is added.
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

    async def _add_likely_speakers(self) -> None:
        """Show the likeliest speakers, after the one that is chosen."""
        self._ranking = ranking = await self.rank_speakers()
        known = [slot for slot in self.slots if slot.model is not None]
        if not ranking:
            self.slots = known or self.slots[:1]
            self.show_slots(0)
            return
        chosen = self.prompt_context.roles.speaker
        names = [*filter(None, [chosen]), *(speaker.name for speaker in ranking if speaker.name != chosen)]
        if known:
            known[0].description = self._speaker_slot(names[0]).description
        self.slots = [*known, *map(self._speaker_slot, names[len(known) : NUM_FIRST_SPEAKERS])]
        self.show_slots(0)
        self.generate_empty_columns()

    async def _load_model(self, slot: Column, choice: ModelChoice, otherwise: ModelChoice | None) -> None:
        """Load the model of a column, or remove the column if that fails."""
        failure = ""
        try:
            self._set_model(slot, await run_in_thread(load_model_choice, choice, self._runs_dir))
        except Exception as error:
            failure = f"{slot.title}: {describe_error(error)}"
        if slot not in self.slots or is_closed(self):
            return  # the column was removed, or the screen closed, while the model was loading
        if failure:
            self.slots.remove(slot)
            self.show_slots()
            self._add_column(otherwise)
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
