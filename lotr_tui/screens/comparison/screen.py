"""What the ladder and side by side have in common: one prompt and one seed, a text a column."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, Label, Rule, Static

from engine.errors import LotrError, PromptError, UnusableInput, printable
from engine.generation.settings import SamplerSettings, check_seed, draw_seed
from lotr_tui.screens.comparison.columns import MARK, Against, Columns
from lotr_tui.session.column_writers import ColumnWriters, Slot, read_prompt, unknown_words
from lotr_tui.textual_fixes.line_box import LineBox
from lotr_tui.textual_fixes.screen import Steady
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys_footer import KeysFooter
from lotr_tui.widgets.number_field import NumberField
from lotr_tui.widgets.prompt import MAX_CHARACTERS
from lotr_tui.widgets.status_bar import StatusBar

DRAIN_SECONDS = 0.05
STEP = 0.05
"""Of temperature, for a key."""


class ColumnsScreen(Steady, Screen[None]):
    """Texts from one prompt and one seed, side by side; what the columns are is for the subclasses to say."""

    CSS_PATH = "comparison.tcss"
    AUTO_FOCUS = "#prompt"
    VERTICAL_BREAKPOINTS = [(0, "-short"), (14, "-high")]  # noqa: RUF012
    NAME: ClassVar[str]
    NARROWEST: ClassVar[int]
    """Cells of a column."""
    AGAINST: ClassVar[Against]
    """Which column the others are compared with."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "run", "run", id="columns.run", tooltip="Write all columns anew", priority=True),
        Binding("escape", "stop", "stop", id="columns.stop", tooltip="Stop the words; those that came stay"),
        Binding("escape", "leave", "back", id="columns.leave", tooltip="Back to where you came from"),
        Binding("ctrl+r", "new_seed", "seed", id="columns.seed", tooltip="Draw another seed, and run with it"),
        Binding("f3,plus", "add", "add", id="columns.add", tooltip="One more column"),
        Binding("f4,minus,delete", "remove", "remove", id="columns.remove", tooltip="Take the chosen column away"),
        Binding(
            "f7,down", "heat(-1)", "temp", key_display="f7/8", id="columns.cooler", tooltip="Temperature 0.05 lower"
        ),
        Binding("f8,up", "heat(1)", "hotter", show=False, id="columns.hotter", tooltip="Temperature 0.05 higher"),
        Binding(
            "f5,left", "choose(-1)", "column", key_display="f5/6", id="columns.left", tooltip="The column to the left"
        ),
        Binding("f6,right", "choose(1)", "right", show=False, id="columns.right", tooltip="The column to the right"),
        Binding("pageup", "page(-1)", "scroll up", show=False, id="columns.up", tooltip="Earlier words"),
        Binding("pagedown", "page(1)", "scroll down", show=False, id="columns.down", tooltip="Later words"),
        Binding("ctrl+c", "stop", "stop", show=False, id="columns.interrupt", tooltip="Stop the words", priority=True),
    ]

    def __init__(self, prompt: str, settings: SamplerSettings, seed: int | None, pace: float) -> None:
        """Begin with `prompt`; `seed` None draws one; at most `pace` words a second in each column."""
        super().__init__()
        self.slots: list[Slot] = []
        self.settings = settings
        """But for the temperature, that of every column."""
        self._prompt = prompt
        self._seed = draw_seed() if seed is None else seed
        self._pace = pace
        self.asked: tuple[str, int] | None = None
        """Prompt and seed of the texts to be seen."""
        self._writers = ColumnWriters()

    # What a subclass says

    def fields(self) -> Iterable[Widget]:
        """Its own controls."""
        raise NotImplementedError

    def apply_fields(self) -> None:
        """Make slots and settings what its controls say.

        Raises:
            UnusableInput: they hold something that cannot be used.
        """
        raise NotImplementedError

    def title_parts(self) -> tuple[str, str]:
        """What plays, and what is known of it."""
        raise NotImplementedError

    def begin(self) -> None:
        """The screen is there: start what else it needs."""

    def poll(self) -> bool:
        """Called twenty times a second: take in what else goes on in threads; tells whether anything still does."""
        return False

    # The screen

    def compose(self) -> ComposeResult:
        """Status, the columns, a line on how to read them, controls, prompt, keys."""
        yield StatusBar(id="status")
        yield Rule(line_style="solid")
        yield Columns(self.NARROWEST, self.AGAINST, id="columns")
        yield Static("", id="note", markup=False)
        yield Rule(line_style="solid")
        with Horizontal(id="controls"):
            yield from self.fields()
            yield NumberField(
                "seed", str(self._seed), id="seed", width=max(8, len(str(self._seed))), placeholder="drawn"
            )
            yield NumberField("words", str(self.settings.max_tokens), id="max_tokens", width=4, placeholder="30")
        with Horizontal(id="prompt-line"):
            yield Label("❯", id="prompt-mark")
            yield LineBox(
                self._prompt,
                placeholder="type a prompt",
                id="prompt",
                compact=True,
                max_length=MAX_CHARACTERS,
                select_on_focus=False,
            )
        yield KeysFooter()

    def on_mount(self) -> None:
        """Show what is there; write at once where there is a prompt."""
        self._drain_timer: Timer = self.set_interval(DRAIN_SECONDS, self._drain, pause=True)
        self._show_status()
        self.say()
        self.show_slots(0)
        self.begin()
        if self._prompt.strip():
            self.action_run()

    def on_unmount(self) -> None:
        """Leave no thread behind."""
        self._writers.drop()

    def say(self, text: str = "", *, problem: bool = False) -> None:
        """A line under the columns; of itself it tells how to read them."""
        other = "column to its left" if self.AGAINST == "left" else "first column"
        text = text or f"{MARK} first word that differs from the {other}"
        self.query_one("#note", Static).update(Content.styled(printable(text), "$warning" if problem else MUTED))

    def try_to(self, change: Callable[[], None]) -> bool:
        """Do what may not be possible, and say so where it is not; tells whether it was."""
        try:
            change()
        except LotrError as error:
            self.say(str(error), problem=True)
            return False
        self.say()
        return True

    # Writing

    def action_run(self) -> None:
        """Write every column anew, as the controls say."""
        if not self.try_to(self._read_controls):
            return
        self._writers.drop()
        for slot in self.slots:
            slot.text.clear()
        self._show_status()
        self.show_slots()
        self.start_blank()

    def start_blank(self) -> None:
        """Write the columns that have nothing yet, from the prompt and the seed of the others."""
        if self.asked is None:
            return
        prompt, seed = self.asked
        reads = read_prompt(self.slots, prompt)
        refusals = {slot: str(read) for slot, read in reads.items() if isinstance(read, PromptError)}
        if refusals and len(refusals) == len(self.slots):
            self.say(next(iter(refusals.values())), problem=True)
            return
        for slot, refusal in refusals.items():
            slot.text.failure = refusal
        if told := unknown_words(reads):
            self.say(told, problem=True)
        self._writers.start(self.slots, prompt, self.settings, seed, self._pace)
        self.watch_workers()
        self.refresh_bindings()
        self.query_one(Columns).changed()

    def watch_workers(self) -> None:
        """Something goes on in a thread: look at it now and then."""
        self._drain_timer.resume()

    def _read_controls(self) -> None:
        prompt = self.query_one("#prompt", Input).value
        if not prompt.strip():
            raise UnusableInput("type a prompt first; the columns continue it")
        words = self.query_one("#max_tokens", NumberField).whole()
        settings = SamplerSettings() if words is None else SamplerSettings(max_tokens=words)
        field = self.query_one("#seed", NumberField)
        typed = field.whole()
        seed = draw_seed() if typed is None else typed
        check_seed(seed)
        self.apply_fields()
        self.settings = replace(self.settings, max_tokens=settings.max_tokens)
        self.asked = (prompt, seed)
        self._write_field("#seed Input", str(seed))

    def _drain(self) -> None:
        """Show the words that came since the last tick."""
        if self._writers.take_in():
            self.refresh_bindings()
        goes_on = self.poll()
        self.query_one(Columns).changed()
        if not (self._writers or goes_on):
            self._drain_timer.pause()

    def action_stop(self) -> None:
        """Stop the words that are coming; those that came stay."""
        self._writers.stop()

    def action_leave(self) -> None:
        """Back to the screen below."""
        self.dismiss()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Esc stops while words come, else it leaves."""
        if action in ("stop", "leave"):
            return bool(self._writers) == (action == "stop")
        return True

    def action_new_seed(self) -> None:
        """Another seed; what is there is written anew with it."""
        self._write_field("#seed Input", str(draw_seed()))
        if self.query_one("#prompt", Input).value.strip():
            self.action_run()

    # The columns

    @property
    def chosen(self) -> int:
        """The number of the column that keys act on."""
        return self.query_one(Columns).chosen

    def show_slots(self, chosen: int | None = None) -> None:
        """The slots have changed: show them, and stop writing those that are gone."""
        self._writers.keep_only(self.slots)
        texts = [slot.text for slot in self.slots]
        self.query_one(Columns).show(texts, self.chosen if chosen is None else chosen)

    def action_choose(self, steps: int) -> None:
        """The next column, or the one before."""
        self.show_slots(self.chosen + steps)

    @on(Columns.Chosen)
    def _clicked(self, message: Columns.Chosen) -> None:
        self.show_slots(message.number)

    def action_page(self, pages: int) -> None:
        """A page through all columns, wherever the cursor is."""
        self.query_one(Columns).scroll_pages(pages)

    def action_add(self) -> None:
        """One more column."""
        raise NotImplementedError

    def action_remove(self) -> None:
        """Take the chosen column away."""
        raise NotImplementedError

    def action_heat(self, steps: int) -> None:
        """Hotter or cooler."""
        raise NotImplementedError

    def _write_field(self, selector: str, text: str) -> None:
        field = self.query_one(selector, Input)
        if field.value != text:
            field.value = text

    def _show_status(self) -> None:
        name, about = self.title_parts()
        left = Content.assemble(
            ("lotr-tui", "bold $accent"),
            f"  {self.NAME}  ",
            (name, "bold"),
            (" · " if name and about else "", MUTED),
            (about, MUTED),
        )
        right = "" if self.asked is None else f"seed {self.asked[1]}"
        self.query_one("#status", StatusBar).show(left, Content.styled(right, MUTED))


def step_temperature(temperature: float, steps: int) -> float:
    """So many steps hotter, onto the grid of steps, in range."""
    return round(min(2.0, max(0.0, (round(temperature / STEP) + steps) * STEP)), 2)


def shown_temperature(temperature: float) -> str:
    """With two decimals, or as many as it needs."""
    return f"{temperature:.2f}" if round(temperature, 2) == temperature else f"{temperature:g}"
