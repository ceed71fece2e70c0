"""The screen around texts of one prompt and one seed in columns."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import ClassVar

from textual import containers, on, widgets
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget

from engine.errors import InvalidInputError, describe_error, printable
from engine.generation.generate import IndexedEvent
from engine.generation.settings import SamplerSettings, random_seed
from engine.generation.turns import SpeakerProb
from lotr_tui.background_task import BackgroundTask, is_closed, run_in_thread
from lotr_tui.formatting import plural
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.inspect.columns import DIFFERENCE_MARK, GenerationColumns
from lotr_tui.screens.inspect.text_screen import export_picture
from lotr_tui.session import comparison
from lotr_tui.session.comparison import Column
from lotr_tui.session.read_text import PromptContext, TextReader, find_turn, read_next_token, to_prompt_line
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import MUTED
from lotr_tui.widgets.inputs import LineInput
from lotr_tui.widgets.keys import KeyFooter, binding_table
from lotr_tui.widgets.prompt import MAX_PROMPT_CHARACTERS
from lotr_tui.widgets.screen_lines import HelpLine, StatusBar

FINDING_SPEAKER = "finding out who is likely to answer …"  # text of a column whose speaker is not known yet


class ColumnsScreen(AppScreen[None]):
    """Columns of generated text with a prompt and controls below; a subclass decides what the columns are.

    A task generates the columns of a model that start together, and another one each later column, so that a model
    that is slow or fails holds up no other model.
    """

    CSS_PATH = "inspect.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (76, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (14, "-low"), (22, "-high")]  # noqa: RUF012
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
            up        | up       | scroll_text(-1, 0)     | scroll up       | A line up
            down      | down     | scroll_text(1, 0)      | scroll down     | A line down
            page-up   | pageup   | scroll_text(0, -1)     | page up         | A page up
            page-down | pagedown | scroll_text(0, 1)      | page down       | A page down
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
        reader: TextReader | None = None,
    ) -> None:
        """Continue or answer `prompt` in every column, at most `pace` words per second; 0 is no limit.

        All columns share the seed, which is drawn if it is None, and the settings except for the temperature. `context`
        is how they read the prompt; None continues it. `reader` has read the lines before it.
        """
        super().__init__()
        self.session_model, self.settings = session_model, settings
        self.prompt_context = context or PromptContext()
        self._prompt, self._pace, self._reader = prompt, pace, reader or TextReader()
        self._seed = random_seed() if seed is None else seed
        self.prompt_and_seed: tuple[str, int] | None = None  # of the shown texts; None before the first generation
        self._tasks: dict[BackgroundTask[IndexedEvent], list[Column]] = {}
        self._note: str | None = None  # None explains the marks
        self._ranking: Sequence[SpeakerProb] = ()  # of the likely speakers
        self.slots = self.make_first_slots()  # columns from left to right

    # Parts that a subclass implements, besides the actions that add columns and adjust temperatures

    def make_first_slots(self) -> list[Column]:
        """Return the columns that need no loading."""
        raise NotImplementedError

    def compose_controls(self) -> Iterable[Widget]:
        raise NotImplementedError

    def apply_controls(self) -> None:
        """Apply the controls of the subclass to slots and settings, or raise `InvalidInputError`."""
        raise NotImplementedError

    def describe(self) -> str:
        raise NotImplementedError

    def use_ranking(self) -> None:
        """Use the ranking of the speakers, which may be empty."""
        raise NotImplementedError

    # Screen

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield widgets.Rule(line_style="solid")
        yield GenerationColumns(self.MIN_COLUMN_WIDTH, compares_with_first=self.COMPARES_WITH_FIRST)
        yield StatusBar(id="note")
        yield widgets.Rule(line_style="solid")
        with containers.Horizontal(id="controls"):
            yield from self.compose_controls()
        with containers.Horizontal(id="prompt-line"):
            yield widgets.Label(self.prompt_context.prompt_mark, id="prompt-mark", markup=False)
            placeholder = "type a line to answer" if self.prompt_context.is_answer else "type a text to continue"
            yield LineInput(
                self._prompt,
                placeholder,
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
        if self.session_model.cast and any(slot.model is None for slot in self.slots):  # they wait for their speaker
            self.run_worker(self._rank_speakers(), group="loading")
        if self._has_prompt:
            self.action_generate()

    def on_unmount(self) -> None:
        for task in self._tasks:
            task.cancel()

    def on_resize(self) -> None:
        self.call_after_refresh(lambda: self.show_note(self._note))

    @property
    def _has_prompt(self) -> bool:
        context = self.prompt_context
        is_next_turn = context.reply_mode == "conversation" and context.previous_reply is not None
        return is_next_turn or bool(self.query_one("#prompt", widgets.Input).value.strip())

    async def _rank_speakers(self) -> None:
        context = self.prompt_context
        line = to_prompt_line(self._prompt) if context.is_answer else ""
        try:
            turn = find_turn(self.session_model, line, context)
            read = await run_in_thread(read_next_token, self._reader, turn)
            self._ranking = () if read is None else read.speakers
        except Exception as error:
            self.show_note(f"Cannot rank the speakers: {describe_error(error)}")
        if not is_closed(self):
            self.use_ranking()
            self.show_slots()

    def show_note(self, problem: str | None = None) -> None:
        """Show a problem below the columns; without one, explain the mark in the columns and say which are visible."""
        if is_closed(self):
            return
        self._note = problem
        visible = self.query_one(GenerationColumns).visible_columns()
        hidden = f"columns {visible.start + 1}–{visible.stop} of {len(self.slots)} · "
        other = "first column" if self.COMPARES_WITH_FIRST else "left column"
        text = f"{hidden * (len(visible) < len(self.slots))}{DIFFERENCE_MARK} first word unlike the {other}"
        text, style = (problem, "$warning") if problem else (f"{text} · bits/word: surprise", MUTED)
        self.query_one("#note", StatusBar).show(Content.styled(printable(text), style))

    def _show_status(self) -> None:
        is_answer = self.prompt_context.is_answer
        previous = self.prompt_context.previous_reply if is_answer and self.prompt_and_seed is not None else None
        number = 0 if previous is None else len(previous.path())
        after = f" · after {plural(number, 'earlier reply', 'earlier replies')}" if number else ""
        title = f"{self.HEADING}: {'answers' if is_answer else 'continuations'}{after}"
        about = f" · {self.describe()}"
        left = Content.assemble(("lotr-tui", "bold $accent"), "  ", (title, "bold"), (about, MUTED))
        seed = "" if self.prompt_and_seed is None else f"seed {self.prompt_and_seed[1]}"
        self.query_one("#status", StatusBar).show(left, Content.styled(seed, MUTED))

    # Generation

    @property
    def is_writing(self) -> bool:
        return any(task.is_running for task in self._tasks)

    def action_generate(self) -> None:
        try:
            if not self._has_prompt:
                raise InvalidInputError("type a prompt first")
            self.apply_controls()
        except InvalidInputError as error:
            self.show_note(str(error))
            return
        self.prompt_and_seed = (self.query_one("#prompt", widgets.Input).value, self._seed)
        for task in self._tasks:
            task.cancel()
        for slot in self.slots:
            slot.clear()
        self._show_status()
        self._note = None
        self.show_slots()

    def _generate_empty_columns(self) -> None:
        """Generate the idle columns that have no text, with the prompt and the seed of the others.

        They wait for the speakers of the first ones, since texts that are written together take less time.
        """
        if self.prompt_and_seed is None or any(slot.placeholder == FINDING_SPEAKER for slot in self.slots):
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
            reader = self._reader if texts[0].model is self.session_model.model else None
            task.start(partial(comparison.generate_columns, texts, seed, pace=self._pace, reader=reader))
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

    @property
    def selected_index(self) -> int:
        """Index of the column that the keys act on."""
        return self.query_one(GenerationColumns).selected_index

    def show_slots(self, selected_index: int | None = None) -> None:
        """Show the slots, stop generating for removed ones, and generate the ones that have no text."""
        for task, written in self._tasks.items():
            if not any(slot in self.slots for slot in written):
                task.stop()
        index = self.selected_index if selected_index is None else selected_index
        self.query_one(GenerationColumns).show(self.slots, index)
        self.show_note(self._note)
        self._generate_empty_columns()

    def show_change(self, selected_index: int | None = None) -> None:
        self._note = None
        self.show_slots(selected_index)

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
        self.query_one("#prompt", widgets.Input).focus()

    def action_export(self) -> None:
        export_picture(self, "columns")

    def action_new_seed(self) -> None:
        self._seed = random_seed()
        if self._has_prompt:
            self.action_generate()

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

    def action_scroll_text(self, lines: int, pages: int) -> None:
        self.query_one(GenerationColumns).scroll_text(lines, pages)
