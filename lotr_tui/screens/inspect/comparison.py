"""Texts from one prompt and one seed in columns, and the ladder: columns that differ by temperature."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Label, Rule, Static

from engine.data.speakers import display_name
from engine.errors import InvalidInputError, LotrError, describe_error, printable
from engine.generation.generate import IndexedEvent
from engine.generation.settings import SamplerSettings, check_seed, random_seed
from engine.generation.turns import SpeakerProb
from lotr_tui.background_task import BackgroundTask, is_closed, run_in_thread
from lotr_tui.formatting import plural, token_noun
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.inspect.columns import DIFFERENCE_MARK, GenerationColumns
from lotr_tui.screens.inspect.text_screen import export_picture
from lotr_tui.session import columns
from lotr_tui.session.cast import read_name
from lotr_tui.session.columns import Column, PromptContext
from lotr_tui.session.read_text import TextReader, find_turn, read_next_token, to_prompt_line
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import MUTED
from lotr_tui.widgets.inputs import LineInput, NumberField
from lotr_tui.widgets.keys import KeyFooter, binding_table
from lotr_tui.widgets.prompt import MAX_PROMPT_CHARACTERS
from lotr_tui.widgets.screen_lines import HelpLine, StatusBar

FINDING_SPEAKER = "finding out who is likely to answer …"  # text of a column whose speaker is not known yet
WIDE_TEMPERATURES = (0.3, 0.6, 0.9, 1.2, 1.5)  # temperatures that the ladder starts with, from cautious to wild
TEMPERATURE_STEP = 0.05
MAX_TEMPERATURES = 12


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
    if not 0 < len(temperatures) <= MAX_TEMPERATURES:
        wrong = f"{len(temperatures)} temperatures are too many" if temperatures else "there is no temperature"
        raise InvalidInputError(f"{wrong}; write 1 to {MAX_TEMPERATURES}, like 0.5 0.8 1")
    return temperatures


class ColumnsScreen(AppScreen[None]):
    """Columns of generated text with a prompt and controls below; a subclass decides what the columns are.

    A task generates the columns of a model that start together, and another one each later column, so that a model
    that is slow or fails holds up no other model.
    """

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
        self.session_model, self.settings = session_model, settings
        self.prompt_context = context or PromptContext()
        self._prompt, self._pace = prompt, pace
        self._seed = random_seed() if seed is None else seed
        self.prompt_and_seed: tuple[str, int] | None = None
        """Prompt and seed of the shown texts, or None before the first generation."""
        self._tasks: dict[BackgroundTask[IndexedEvent], list[Column]] = {}
        self._note: str | None = None  # None explains the marks
        self._ranking: Sequence[SpeakerProb] = ()  # of the likely speakers
        self.slots = self.make_first_slots()  # columns from left to right

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

    def use_ranking(self) -> None:
        """Use the ranking of the speakers, which may be empty."""
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
        if any(slot.model is None for slot in self.slots):  # they wait for their speaker
            self.run_worker(self._rank_speakers(), group="loading")
        else:
            self.load_initial_columns()
        if self._prompt.strip() or self.prompt_context.is_next_turn:
            self.action_generate()

    def on_unmount(self) -> None:
        for task in self._tasks:
            task.cancel()

    def on_resize(self) -> None:
        self.call_after_refresh(lambda: self.show_note(self._note))

    async def _rank_speakers(self) -> None:
        """Find out who may answer the prompt, or may begin a scene that is continued."""
        context = self.prompt_context
        line = to_prompt_line(self._prompt) if context.is_answer else ""
        turn = find_turn(self.session_model, line, context.previous_reply if context.is_answer else None, context.roles)
        try:
            read = await run_in_thread(read_next_token, TextReader(), turn)
            self._ranking = () if read is None else read.speakers
        except Exception as error:
            self.show_note(f"Cannot rank the speakers: {describe_error(error)}")
        if not is_closed(self):
            self.use_ranking()
            self.show_slots()
            self.generate_empty_columns()

    def show_note(self, problem: str | None = None) -> None:
        """Show a problem below the columns; without one, explain the mark in the columns and say which are visible."""
        if is_closed(self):
            return
        self._note = problem
        visible = self.query_one(GenerationColumns).visible_columns()
        hidden = f"columns {visible.start + 1}–{visible.stop} of {len(self.slots)} · "
        other = "first column" if self.COMPARES_WITH_FIRST else "left column"
        text = f"{hidden * (len(visible) < len(self.slots))}{DIFFERENCE_MARK} first word unlike the {other}"
        text = problem or f"{text} · bits/word: surprise"
        self.query_one("#note", Static).update(Content.styled(printable(text), "$warning" if problem else MUTED))

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

    @property
    def is_writing(self) -> bool:
        return any(task.is_running for task in self._tasks)

    def action_generate(self) -> None:
        """Generate every column again with the values of the controls."""
        try:
            self._read_controls()
        except LotrError as error:
            self.show_note(str(error))
            return
        self.show_note()
        for task in self._tasks:
            task.cancel()
        for slot in self.slots:
            slot.clear()
        self._show_status()
        self.show_slots()
        self.generate_empty_columns()

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

    def generate_empty_columns(self) -> None:
        """Generate the idle columns that have no text, with the prompt and the seed of the others."""
        if self.prompt_and_seed is None:
            return
        prompt, seed = self.prompt_and_seed
        self._tasks = {task: written for task, written in self._tasks.items() if task.is_running}
        busy = {slot for written in self._tasks.values() for slot in written}
        groups: dict[int, list[Column]] = {}
        for slot in self.slots:
            if slot.model is not None and slot.is_empty and slot not in busy:
                groups.setdefault(id(slot.model), []).append(slot)
        for group in groups.values():
            try:
                texts = [slot.prepare(prompt, self.prompt_context, self.settings) for slot in group]
            except InvalidInputError as error:
                self._fail(group, error)
                continue
            task: BackgroundTask[IndexedEvent] = BackgroundTask(
                self, "columns", partial(self._take_events, group), partial(self._fail, group), self._show_texts
            )
            self._tasks[task] = group
            task.start(partial(columns.generate_columns, texts, seed, pace=self._pace))
        self._show_texts()

    def _take_events(self, slots: Sequence[Column], events: list[IndexedEvent]) -> None:
        for index, event in events:
            slots[index].add_event(event)
        self.query_one(GenerationColumns).redraw_changes()

    def _fail(self, slots: Sequence[Column], error: BaseException) -> None:
        for slot in slots:
            if slot.done_event is None:
                slot.failure = f"failed: {describe_error(error)}"
        self._show_texts()

    def _show_texts(self) -> None:
        self.query_one(GenerationColumns).redraw_changes()
        self.refresh_bindings()

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "stop" or self.is_writing

    def action_stop(self) -> None:
        for task in self._tasks:
            task.stop()  # its last tokens are still shown

    def action_close(self) -> None:
        if self.is_writing:
            self.action_stop()
        else:
            self.dismiss()

    def action_edit(self) -> None:
        self.query_one("#prompt", Input).focus()

    def action_export(self) -> None:
        export_picture(self, "columns")

    def action_new_seed(self) -> None:
        self.query_one("#seed Input", Input).value = str(random_seed())
        if self.query_one("#prompt", Input).value.strip() or self.prompt_context.is_next_turn:
            self.action_generate()

    @property
    def selected_index(self) -> int:
        """Index of the column that the keys act on."""
        return self.query_one(GenerationColumns).selected_index

    def show_slots(self, selected_index: int | None = None) -> None:
        """Show the slots after a change, and stop generating for removed ones."""
        for task, written in self._tasks.items():
            if not any(slot in self.slots for slot in written):
                task.stop()
        index = self.selected_index if selected_index is None else selected_index
        self.query_one(GenerationColumns).show(self.slots, index)
        self.show_note(self._note)

    def show_change(self, selected_index: int | None = None) -> None:
        """Show the slots after a change, and generate the new ones with the prompt and seed of the others."""
        self.show_note()
        self.show_slots(selected_index)
        self.generate_empty_columns()

    def action_remove_column(self) -> None:
        if len(self.slots) == 1:
            self.show_note("one column must stay; a adds another")
        else:
            del self.slots[self.selected_index]
            self.show_change()

    def action_select_column(self, offset: int) -> None:
        self.show_slots(self.selected_index + offset)

    @on(GenerationColumns.ColumnSelected)
    def _select_clicked_column(self, message: GenerationColumns.ColumnSelected) -> None:
        self.show_slots(message.index)

    def action_scroll_page(self, pages: int) -> None:
        self.query_one(GenerationColumns).scroll_pages(pages)


class LadderScreen(ColumnsScreen):
    """Texts that share the sampling noise of one seed and differ only by temperature."""

    HEADING = "ladder"
    HELP_LINE = "One seed, several temperatures: low is safe, high is wild"
    MIN_COLUMN_WIDTH = 14  # "4.21 bits/word" fits, and five columns fit into 80 cells
    COMPARES_WITH_FIRST = False

    def make_first_slots(self) -> list[Column]:
        self._speaker = self.prompt_context.roles.speaker
        return [self._make_slot(temperature) for temperature in WIDE_TEMPERATURES]

    def compose_controls(self) -> Iterable[Widget]:
        yield Label("temps")
        text = " ".join(map(format_temperature, WIDE_TEMPERATURES))
        yield LineInput(text, id="temperatures", restrict=r"[0-9., ]*", compact=True)
        if self.session_model.cast:
            yield Label("to" if self.prompt_context.is_answer else "as", id="role")
            yield LineInput(display_name(self._speaker), id="speaker", placeholder="a name", compact=True)

    def use_ranking(self) -> None:
        """Let the likeliest speaker say the text of all columns."""
        if self._ranking and not self._speaker:  # none was typed meanwhile
            self._set_speaker(self._ranking[0].name)

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
        if self.session_model.cast and (name := self.query_one("#speaker", Input).value.strip()):
            self._set_speaker(read_name(name, self.session_model.cast))
        temperatures = parse_temperatures(self.query_one("#temperatures", Input).value)
        self.slots = list(map(self._make_slot, temperatures))
        self._show_temperatures()

    def action_add_column(self) -> None:
        """Add a column between the selected and the next one, or one with a higher temperature at the end."""
        if len(self.slots) == MAX_TEMPERATURES:
            self.show_note(f"there are {MAX_TEMPERATURES} columns, the maximum; x removes one")
            return
        index = self.selected_index
        this = self.slots[index].temperature
        following = self.slots[index + 1].temperature if index + 1 < len(self.slots) else this + 0.2
        self.slots.insert(index + 1, self._make_slot(round(min(2.0, (this + following) / 2), 3)))
        self.show_change(index + 1)

    def action_adjust_temperature(self, steps: int) -> None:
        """Change the temperature of the selected column."""
        index = self.selected_index
        self.slots[index] = self._make_slot(step_temperature(self.slots[index].temperature, steps))
        self.show_change(index)

    def show_change(self, selected_index: int | None = None) -> None:
        self._show_temperatures()
        super().show_change(selected_index)

    def _show_temperatures(self) -> None:
        self.query_one("#temperatures", Input).value = " ".join(format_temperature(s.temperature) for s in self.slots)

    def _make_slot(self, temperature: float) -> Column:
        column = Column(f"temp {format_temperature(temperature)}", self.session_model.model, temperature, self._speaker)
        if self.session_model.cast and not self._speaker:
            column.model, column.placeholder = None, FINDING_SPEAKER
        return column
