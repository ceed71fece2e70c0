"""The dialog: a title with answers in a list, fields to type into, or both; the question before a change; the help."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from rich.table import Table
from rich.text import Text
from textual import events, on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.style import Style
from textual.suggester import Suggester
from textual.widgets import Input, Label, OptionList, Static

from engine.errors import LotrError
from lotr_tui.background_task import is_closed
from lotr_tui.textual_fixes.app import RobustOptionList, TextualFixesScreen
from lotr_tui.widgets.inputs import MAX_LINE_CHARACTERS, LineInput

ResultT = TypeVar("ResultT")
LIST_ACTIONS = {"up": "cursor_up", "down": "cursor_down", "pageup": "page_up", "pagedown": "page_down"}
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


class Dialog(TextualFixesScreen, ModalScreen[ResultT | None]):
    """Dialog with a title, answers and fields, dismissed with the chosen or submitted result, or None if cancelled.

    Without fields, a letter chooses the answer that begins with it. With `finds`, the field finds an answer by a part
    of it. `submit` returns the result for the texts of the fields by id, or raises a LotrError, which the dialog shows
    and stays open; with `finds`, only a text that is in no answer is submitted.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "choose", id="dialog.submit", tooltip="Choose, or use what is typed", priority=True),
        Binding("escape", "dismiss(None)", "cancel", id="dialog.cancel", tooltip="Close the dialog without a change"),
    ]

    def __init__(
        self,
        title: str,
        *,
        text: str = "",
        answers: Sequence[tuple[str | Content, ResultT | None]] = (),
        highlighted: int = 0,
        fields: Sequence[Field] = (),
        submit: Callable[[Mapping[str, str]], ResultT] | None = None,
        finds: bool = False,
        verb: str = "choose",
    ) -> None:
        """Describe the dialog; `verb` says what enter does, and `text` stands below the answers and the fields."""
        super().__init__()
        self._title, self._text, self._verb = title, text, verb
        self._answers, self._highlighted = answers, highlighted
        self._fields, self._submit, self._finds = fields, submit, finds
        self._found = answers  # by the typed text

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False):
            yield Static(self._title, classes="dialog-title", markup=False)
            if self._answers:
                yield RobustOptionList(*(label for label, _ in self._answers), id="answers", markup=False)
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
            keys = {"enter": (self._verb, "submit"), "tab": ("complete", ""), "esc": ("cancel", "dismiss(None)")}
            parts = [
                Content.styled(f"{key} {verb}", Style.from_meta({"@click": f"screen.{action}"} if action else {}))
                for key, (verb, action) in keys.items()
                if completes or key != "tab"
            ]
            yield Static(Content("   ").join(parts), classes="dialog-keys")

    def on_mount(self) -> None:
        if self._answers:
            self.query_one("#answers", OptionList).highlighted = self._highlighted
        if self._finds:
            self.query_one(FieldInput).focus()

    def on_key(self, event: events.Key) -> None:
        """Choose the answer that begins with a letter; where a field finds answers, move among them."""
        if self._finds and event.key in LIST_ACTIONS and not self.query_one("#answers").has_focus:
            event.stop()
            getattr(self.query_one("#answers"), f"action_{LIST_ACTIONS[event.key]}")()
        elif event.character and not self._fields:
            letters = [str(label)[:1].casefold() for label, _ in self._answers]
            if letters.count(event.character.casefold()) == 1:
                event.stop()
                self.dismiss(self._answers[letters.index(event.character.casefold())][1])

    @on(Input.Changed)
    def _on_typed(self, event: Input.Changed) -> None:
        self.show_problem("")
        if self._finds:
            typed, answers = event.value.strip().casefold(), self.query_one("#answers", OptionList)
            found = [answer for answer in self._answers if typed in str(answer[0]).casefold()]
            self._found = sorted(found, key=lambda answer: not str(answer[0]).casefold().startswith(typed))
            answers.set_options(label for label, _ in self._found)
            answers.highlighted = (0 if typed else self._highlighted) if self._found else None

    @on(OptionList.OptionSelected, "#answers")
    def _choose_clicked(self, event: OptionList.OptionSelected) -> None:
        """Choose the answer under the mouse; where fields change it, it is only highlighted."""
        event.stop()
        if self._finds or not self._fields:
            self.action_submit()

    def action_submit(self) -> None:
        index = self.query_one("#answers", OptionList).highlighted if self._answers else None
        if index is not None and (self._finds or not self._fields):
            self.dismiss(self._found[index][1])
        elif self._fields:
            self._use()

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


class ConfirmDialog(Dialog[bool]):
    """Yes-or-no question; "yes" is highlighted, or "no" with `enter_confirms` False."""

    def __init__(self, question: str, *, enter_confirms: bool = True) -> None:
        super().__init__(question, answers=[("yes", True), ("no", False)], highlighted=int(not enter_confirms))


def confirm(
    app: App[Any], question: str, on_yes: Callable[[], object], *, enter_confirms: bool = True
) -> ConfirmDialog:
    """Ask a question, and call `on_yes` if the user confirms."""

    def on_answer(is_confirmed: bool | None) -> None:
        if is_confirmed:
            on_yes()

    dialog = ConfirmDialog(question, enter_confirms=enter_confirms)
    app.push_screen(dialog, on_answer)
    return dialog


class HelpScreen(TextualFixesScreen, ModalScreen[None]):
    """All keys of the screen below, from the tables of bindings, and the commands that can be typed there."""

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
