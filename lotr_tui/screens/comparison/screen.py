"""Base class of the comparison screens: texts from one prompt and one seed in columns."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input, Label, Rule, Static

from engine.errors import InvalidInputError, LotrError, PromptError, printable
from engine.generation.settings import SamplerSettings, check_seed, random_seed
from lotr_tui.formatting import plural, token_noun
from lotr_tui.screens.comparison.columns import DIFFERENCE_MARK, CompareWith, GenerationColumns
from lotr_tui.screens.comparison.writers import ColumnWriters
from lotr_tui.session.columns import ColumnSlot, PromptContext, describe_unknown_words, encode_prompts
from lotr_tui.session.session_model import SessionModel
from lotr_tui.textual_fixes.app import TextualFixesScreen
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.line_input import LineInput
from lotr_tui.widgets.number_field import NumberField
from lotr_tui.widgets.prompt.prompt_input import MAX_PROMPT_CHARACTERS
from lotr_tui.widgets.status_bar import StatusBar


class GenerationColumnsScreen(TextualFixesScreen, Screen[None]):
    """Columns of generated text with a prompt and controls below; a subclass decides what the columns are."""

    CSS_PATH = "comparison.tcss"
    AUTO_FOCUS = "#prompt"
    VERTICAL_BREAKPOINTS = [(0, "-short"), (14, "-low"), (30, "-high")]  # noqa: RUF012
    HEADING: ClassVar[str]
    """Title in the status line."""
    MIN_COLUMN_WIDTH: ClassVar[int]
    """Minimum width of a column in cells."""
    COMPARE_WITH: ClassVar[CompareWith]
    """Column with which each column is compared."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "generate", "run", id="columns.generate", tooltip="Generate all columns again", priority=True),
        *binding_table(
            "columns",
            """
            stop              | escape          | stop                   | stop   | Stop; keep what was written
            close             | escape          | close                  | back   | Return to the previous screen
            seed              | ctrl+r          | new_seed               | seed   | Generate again with another seed
            add               | f3,plus         | add_column             | add    | Add a column
            remove            | f4,minus,delete | remove_column          | remove | Remove the selected column
            lower-temperature | f7,down         | adjust_temperature(-1) | temp   | Lower the temperature by 0.05 | f7/8
            previous          | f5,left         | select_column(-1)      | column | Select the column to the left | f5/6
            """,
            show=True,
        ),
        *binding_table(
            "columns",
            """
            raise-temperature | f8,up    | adjust_temperature(1) | raise temp  | Raise the temperature by 0.05
            next              | f6,right | select_column(1)      | next column | Select the column to the right
            up                | pageup   | scroll_page(-1)       | scroll up   | A page up
            down              | pagedown | scroll_page(1)        | scroll down | A page down
            """,
        ),
        Binding(
            "ctrl+c", "stop", "stop", show=False, id="columns.interrupt", tooltip="Stop the generation", priority=True
        ),
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
        """Model of the session."""
        self.settings = settings
        """Sampler settings of all columns, except for the temperature."""
        self._prompt = prompt
        self.prompt_context = context or PromptContext()
        """Earlier turns, and the roles of the prompt and the text."""
        self._seed = random_seed() if seed is None else seed
        self._pace = pace
        self.prompt_and_seed: tuple[str, int] | None = None
        """Prompt and seed of the shown texts, or None before the first generation."""
        self.writers = ColumnWriters(self, self._refresh_columns, self._finish_writing)
        """Tasks that generate the texts."""
        self.slots = self.make_first_slots()
        """Columns from left to right."""

    # Parts that a subclass implements, besides the actions that add and remove columns and adjust temperatures

    def make_first_slots(self) -> list[ColumnSlot]:
        """Return the columns that need no loading."""
        raise NotImplementedError

    def compose_controls(self) -> Iterable[Widget]:
        """Yield the controls of the subclass."""
        raise NotImplementedError

    def apply_controls(self) -> None:
        """Apply the controls of the subclass to slots and settings.

        Raises:
            InvalidInputError: If a control has an invalid value.
        """
        raise NotImplementedError

    def title_parts(self) -> tuple[str, str]:
        """Return a name and a description for the status line."""
        raise NotImplementedError

    def load_initial_columns(self) -> None:
        """Start to load further columns when the screen is mounted."""

    # Screen

    def compose(self) -> ComposeResult:
        """Yield status, columns, note, controls, prompt and footer."""
        yield StatusBar(id="status")
        yield Rule(line_style="solid")
        yield GenerationColumns(self.MIN_COLUMN_WIDTH, self.COMPARE_WITH, id="columns")
        yield Static("", id="note", markup=False)
        yield Rule(line_style="solid")
        with Horizontal(id="controls"):
            yield from self.compose_controls()
            seed_width = max(8, len(str(self._seed)))
            yield NumberField("seed", str(self._seed), id="seed", width=seed_width, placeholder="random")
            noun = token_noun(self.session_model.model.tokenizer)
            yield NumberField(f"{noun}s", str(self.settings.max_tokens), id="max_tokens", width=4, placeholder="30")
        with Horizontal(id="prompt-line"):
            is_answer = self.prompt_context.is_answer
            yield Label(self.prompt_context.prompt_mark, id="prompt-mark", markup=False)
            yield LineInput(
                self._prompt,
                placeholder="type a line to answer" if is_answer else "type a text to continue",
                id="prompt",
                compact=True,
                max_length=MAX_PROMPT_CHARACTERS,
                select_on_focus=False,
            )
        yield HelpLine()
        yield KeyFooter()

    def on_mount(self) -> None:
        """Show the columns, and generate if there is a prompt."""
        self._show_status()
        self.show_note()
        self.show_slots(0)
        self.load_initial_columns()
        if self._prompt.strip() or self.prompt_context.is_next_turn:
            self.action_generate()

    def on_unmount(self) -> None:
        """Stop the threads."""
        self.writers.discard()

    def show_note(self, text: str = "", *, is_problem: bool = False) -> None:
        """Show a line below the columns; without `text`, explain the mark in the columns."""
        other = "left column" if self.COMPARE_WITH == "left" else "first column"
        text = text or f"{DIFFERENCE_MARK} first word unlike the {other} · bits/word: surprise"
        self.query_one("#note", Static).update(Content.styled(printable(text), "$warning" if is_problem else MUTED))

    def try_or_show_error(self, change: Callable[[], None]) -> bool:
        """Call `change`, and show its error as the note. Return True if there was none."""
        try:
            change()
        except LotrError as error:
            self.show_note(str(error), is_problem=True)
            return False
        self.show_note()
        return True

    def _show_status(self) -> None:
        name, about = self.title_parts()
        is_answer = self.prompt_context.is_answer
        number = self.prompt_context.num_earlier_turns if is_answer and self.prompt_and_seed is not None else 0
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
            slot.output.clear()
        self._show_status()
        self.show_slots()
        self.generate_empty_columns()

    def generate_empty_columns(self) -> None:
        """Generate the columns that have no text, with the prompt and the seed of the others."""
        if self.prompt_and_seed is None:
            return
        prompt, seed = self.prompt_and_seed
        encoded_prompts = encode_prompts(self.slots, prompt)
        errors = {slot: str(error) for slot, error in encoded_prompts.items() if isinstance(error, PromptError)}
        if errors and len(errors) == len(self.slots):
            self.show_note(next(iter(errors.values())), is_problem=True)
            return
        for slot, error in errors.items():
            slot.output.failure = error
        if unknown_words := describe_unknown_words(encoded_prompts):
            self.show_note(unknown_words, is_problem=True)
        self.writers.start(self.slots, prompt, self.prompt_context, self.settings, seed, self._pace)
        self.refresh_bindings()
        self._refresh_columns()

    def _read_controls(self) -> None:
        prompt = self.query_one("#prompt", Input).value
        if not prompt.strip() and not self.prompt_context.is_next_turn:
            raise InvalidInputError("type a prompt first")
        typed_max_tokens = self.query_one("#max_tokens", NumberField).parse_int()
        limits = SamplerSettings() if typed_max_tokens is None else SamplerSettings(max_tokens=typed_max_tokens)
        typed_seed = self.query_one("#seed", NumberField).parse_int()
        seed = random_seed() if typed_seed is None else typed_seed
        check_seed(seed)
        self.apply_controls()
        self.settings = replace(self.settings, max_tokens=limits.max_tokens)
        self.prompt_and_seed = (prompt, seed)
        self._set_input_value("#seed Input", str(seed))

    def _set_input_value(self, selector: str, value: str) -> None:
        field = self.query_one(selector, Input)
        if field.value != value:
            field.value = value

    def _refresh_columns(self) -> None:
        self.query_one(GenerationColumns).redraw_changes()

    def _finish_writing(self) -> None:
        self._refresh_columns()
        self.refresh_bindings()

    def action_stop(self) -> None:
        """Stop generating and keep the text."""
        self.writers.stop()

    def action_close(self) -> None:
        """Return to the previous screen."""
        self.dismiss()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Let escape stop the generation while it is running, and close the screen otherwise."""
        if action in ("stop", "close"):
            return self.writers.is_writing == (action == "stop")
        return True

    def action_new_seed(self) -> None:
        """Generate again with another seed."""
        self._set_input_value("#seed Input", str(random_seed()))
        if self.query_one("#prompt", Input).value.strip() or self.prompt_context.is_next_turn:
            self.action_generate()

    # Columns

    @property
    def selected_index(self) -> int:
        """Index of the column that the keys act on."""
        return self.query_one(GenerationColumns).selected_index

    def show_slots(self, selected_index: int | None = None) -> None:
        """Show the slots after a change, and stop generating for removed ones."""
        self.writers.stop_except(self.slots)
        index = self.selected_index if selected_index is None else selected_index
        self.query_one(GenerationColumns).show([slot.output for slot in self.slots], index)

    def action_select_column(self, offset: int) -> None:
        """Move the selection by a number of columns."""
        self.show_slots(self.selected_index + offset)

    @on(GenerationColumns.ColumnSelected)
    def _select_clicked_column(self, message: GenerationColumns.ColumnSelected) -> None:
        self.show_slots(message.index)

    def action_scroll_page(self, pages: int) -> None:
        """Scroll all columns by a number of pages."""
        self.query_one(GenerationColumns).scroll_pages(pages)
