"""What the class shows above a chapter: the code behind it, and all chapters."""

from collections.abc import Collection
from typing import ClassVar

from pygments.token import Token
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.highlight import HighlightTheme, highlight
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList, Rule, Static
from textual.widgets.option_list import Option

from engine.errors import InvalidInputError
from lotr_tui.learn.chapters import CHAPTERS, Chapter, read_source
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.dialog import KeysLine
from lotr_tui.screens.dialogs.questions import confirm
from lotr_tui.textual_fixes.app import RobustOptionList, TextualFixesScreen
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import KeyFooter, binding_table
from lotr_tui.widgets.screen_lines import StatusBar

BEGIN_AGAIN = -1
"""Result of the list of chapters if the progress is to be forgotten."""
CONTINUATION_INDENT = 4
MIN_CODE_WIDTH = 20


class CodeTheme(HighlightTheme):
    """Styles of code that fit every theme of the app: names that are defined, words of the language, and prose."""

    STYLES = {  # noqa: RUF012 - so declared by the base class
        Token.Comment: MUTED,
        Token.Keyword: "bold",
        Token.Literal.String.Doc: MUTED,
        Token.Name.Class: "bold $accent",
        Token.Name.Function: "bold $accent",
        Token.Operator.Word: "bold",
    }


class SourceScreen(AppScreen[None]):
    """The function or class behind a chapter, with line numbers."""

    AUTO_FOCUS = "#code"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-source", "close | escape,q | dismiss(None) | close | Back to the chapter | esc", show=True
    )

    def __init__(self, chapter: Chapter) -> None:
        super().__init__()
        self._chapter = chapter
        self._code, self._first_line = "", 0

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield Rule(line_style="solid")
        with VerticalScroll(id="code"):
            yield Static(id="source", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        try:
            self._code, self._first_line = read_source(self._chapter)
        except InvalidInputError as error:
            self.query_one("#source", Static).update(Content(str(error)))
        name = f"{self._chapter.source_file} · {self._chapter.source_symbol}"
        line = f" · line {self._first_line}" if self._code else ""
        title = Content.assemble(("lotr-tui", "bold $accent"), "  ", (name, "bold"), (line, MUTED))
        self.query_one("#status", StatusBar).show(title)

    def on_resize(self) -> None:
        if self._code:
            width = self.query_one("#code").scrollable_content_region.width
            self.query_one("#source", Static).update(number_lines(self._code, self._first_line, width))


def number_lines(code: str, first_line: int, width: int) -> Content:
    """Return highlighted code with the numbers of its lines; lines longer than `width` are folded at spaces."""
    lines = highlight(code, language="python", theme=CodeTheme).split("\n", allow_blank=True)
    number_width = len(str(first_line + len(lines)))
    rows: list[Content] = []
    for number, line in enumerate(lines, first_line):
        room = width - number_width - 2
        parts = [line]
        if line.cell_length > room:
            indent = len(line.plain) - len(line.plain.lstrip())
            rest = indent + CONTINUATION_INDENT
            folded = line[indent:].wrap(max(MIN_CODE_WIDTH, room - rest))
            parts = [part.rstrip().pad_left(rest if index else indent) for index, part in enumerate(folded)]
        for index, part in enumerate(parts):
            rows.append(Content.assemble((f"{'' if index else number:>{number_width}}  ", MUTED), part))
    return Content("\n").join(rows)


class ContentsDialog(TextualFixesScreen, ModalScreen[int | None]):
    """List of the chapters, dismissed with the index of the chosen one, `BEGIN_AGAIN`, or None."""

    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-contents",
        """
        close | escape,q | dismiss(None) | close | Close without opening another chapter
        reset | r        | reset         | begin again | Forget which tasks are done
        """,
    )

    def __init__(self, current: int, done: Collection[str]) -> None:
        """List all chapters with the cursor on the chapter `current`; those in `done` have a mark."""
        super().__init__()
        self._current, self._done = current, done

    def compose(self) -> ComposeResult:
        options = [
            Option(
                Content.assemble(
                    ("✓ ", "$success") if chapter.name in self._done else "  ", (f"{number}  ", MUTED), chapter.title
                )
            )
            for number, chapter in enumerate(CHAPTERS, 1)
        ]
        with Vertical(classes="dialog"):
            yield Label("The class", classes="dialog-title")
            yield RobustOptionList(*options, id="chapters")
            keys = [("enter", "open", ""), ("r", "begin again", "reset"), ("esc", "close", "dismiss(None)")]
            yield KeysLine(*(keys if self._done else [keys[0], keys[2]]))

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = self._current

    @on(OptionList.OptionSelected)
    def _open(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_index)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "reset" or bool(self._done)

    def action_reset(self) -> None:
        question = "Forget which tasks of the class are done?"
        confirm(self.app, question, lambda: self.dismiss(BEGIN_AGAIN), enter_confirms=False)
