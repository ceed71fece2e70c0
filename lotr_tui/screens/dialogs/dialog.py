"""The dialog: a title with answers in a list, with fields to type into, or with both; and the help."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from rich.table import Table
from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.style import Style
from textual.suggester import Suggester
from textual.widgets import Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import LotrError
from lotr_tui.background_task import is_closed
from lotr_tui.textual_fixes.app import RobustOptionList, TextualFixesScreen
from lotr_tui.widgets.inputs import MAX_LINE_CHARACTERS, LineInput

ResultT = TypeVar("ResultT")
COMPLETION_TIMEOUT = 0.5  # seconds that tab waits for a completion, which a network disk may delay


@dataclass(frozen=True)
class Field:
    """Line of a dialog to type into. Tab inserts what `suggester` suggests."""

    id: str
    value: str = ""
    placeholder: str = ""
    label: str = ""
    max_length: int = MAX_LINE_CHARACTERS
    suggester: Suggester | None = None


class FieldInput(LineInput):
    """Input of a field, in which tab takes the grey completion, or else goes to the next field."""

    BINDING_GROUP_TITLE = "Completion"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "tab", "complete", "complete", show=False, id="field.complete", tooltip="Complete, or go to the next field"
        )
    ]

    async def action_complete(self) -> None:
        suggestion = None
        if self.suggester is not None:
            with suppress(asyncio.TimeoutError):
                suggestion = await asyncio.wait_for(self.suggester.get_suggestion(self.value), COMPLETION_TIMEOUT)
        if suggestion and suggestion != self.value:
            self.value = suggestion
            self.cursor_position = len(suggestion)
        else:
            self.screen.focus_next()


class KeysLine(Static):
    """Keys of a dialog with descriptions. A key with an action on the screen can be clicked."""

    DEFAULT_CSS = """
    KeysLine {
        height: 1; margin-top: 1; color: $muted; text-style: $muted-style;
        link-style: $muted-style; link-color: $muted; link-background: $panel;
    }
    """

    def __init__(self, *keys: tuple[str, str, str]) -> None:
        """Show keys, each with its description and its action on the screen, or "" for none."""
        parts = [
            Content.styled(f"{key} {description}", Style.from_meta({"@click": f"screen.{action}"} if action else {}))
            for key, description, action in keys
        ]
        super().__init__(Content("   ").join(parts), classes="dialog-keys")


class Dialog(TextualFixesScreen, ModalScreen[ResultT | None]):
    """Dialog with a title, answers and fields, dismissed with the chosen or submitted result, or None if cancelled.

    Without fields, a letter chooses the answer that begins with it. `submit` returns the result for the texts of the
    fields by id, or raises a LotrError, which the dialog shows and stays open.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="dialog.cancel", tooltip="Close the dialog without a change")
    ]

    LIST: ClassVar[type[RobustOptionList]] = RobustOptionList

    def __init__(
        self,
        title: str,
        *,
        text: str = "",
        answers: Sequence[tuple[str | Content, ResultT | None]] = (),
        highlighted: int = 0,
        fields: Sequence[Field] = (),
        submit: Callable[[Mapping[str, str]], ResultT] | None = None,
        verb: str = "choose",
    ) -> None:
        """Describe the dialog; `verb` says what enter does, and `text` stands below the answers and the fields."""
        super().__init__()
        self.question, self.answers = title, answers
        self._text, self._highlighted = text, highlighted
        self._fields, self._submit, self._verb = fields, submit, verb

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False):
            yield Static(self.question, classes="dialog-title", markup=False)
            if self.answers:
                yield self.LIST(*(Option(label) for label, _ in self.answers), id="answers", markup=False)
            for field in self._fields:
                with Horizontal(classes="field"):
                    if field.label:
                        yield Label(field.label)
                    yield FieldInput(
                        field.value,
                        field.placeholder,
                        id=field.id,
                        compact=True,
                        max_length=field.max_length,
                        suggester=field.suggester,
                        select_on_focus=field.suggester is None,
                    )
            if self._text:
                yield Static(self._text, classes="dialog-text", markup=False)
            yield Static("", id="problem", markup=False)
            completes = any(field.suggester for field in self._fields)
            completion = [("tab", "complete", "")] if completes else []
            yield KeysLine(("enter", self._verb, "submit"), *completion, ("esc", "cancel", "dismiss(None)"))

    def on_mount(self) -> None:
        if self.answers:
            self.query_one("#answers", OptionList).highlighted = self._highlighted

    def on_key(self, event: events.Key) -> None:
        """Choose the answer that begins with a letter."""
        if event.character and not self._fields:
            letters = [str(label)[:1].casefold() for label, _ in self.answers]
            if letters.count(event.character.casefold()) == 1:
                event.stop()
                self.dismiss(self.answers[letters.index(event.character.casefold())][1])

    @on(OptionList.OptionSelected, "#answers")
    def _option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.choose(event.option_index)

    def choose(self, index: int) -> None:
        """Close the dialog with an answer."""
        self.dismiss(self.answers[index][1])

    @on(Input.Submitted)
    def action_submit(self) -> None:
        if self._fields:
            self._use()
        else:
            self.query_one("#answers", OptionList).action_select()

    @work(exclusive=True, group="use")
    async def _use(self) -> None:
        try:
            await self.use({field.id: self.query_one(f"#{field.id}", Input).value for field in self._fields})
        except LotrError as error:
            if not is_closed(self):
                self.show_problem(str(error))

    async def use(self, texts: Mapping[str, str]) -> None:
        """Close the dialog with the result of the texts; a LotrError is shown instead."""
        if self._submit is not None:
            self.dismiss(self._submit(texts))

    def show_problem(self, text: str) -> None:
        """Show a line below the fields; "" removes it."""
        self.query_one("#problem", Static).update(text)


class HelpScreen(TextualFixesScreen, ModalScreen[None]):
    """All keys of the screen below, from the tables of bindings, and the commands that can be typed there."""

    CSS = """
    HelpScreen .dialog { width: 90; padding: 0 1 0 2; }
    HelpScreen VerticalScroll { height: auto; max-height: 100%; scrollbar-gutter: stable; }
    """
    AUTO_FOCUS = "VerticalScroll"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "close", id="help.close", tooltip="Close the help")
    ]

    def __init__(self, groups: Sequence[tuple[str, int, Sequence[tuple[str, str]]]]) -> None:
        """Show groups with a heading and the width of their first column: keys or typed commands, and explanations."""
        super().__init__()
        self._groups = groups

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title, dialog.border_subtitle = "Keys", "↑ ↓ scroll   esc close"
            with VerticalScroll():
                for number, (heading, width, rows) in enumerate(self._groups):
                    table: Any = Table.grid(padding=(0, 2, 0, 0), expand=True)
                    table.add_column(width=width)
                    table.add_column(ratio=1)
                    for key, explanation in rows:
                        table.add_row(Text(key, "bold"), Text(explanation))
                    yield Static(Text("\n" * (number > 0) + heading, "underline"))
                    yield Static(table)
