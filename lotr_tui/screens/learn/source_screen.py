"""Screen with the source code that a chapter links to."""

from typing import ClassVar

from pygments.token import Token
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.highlight import HighlightTheme, highlight
from textual.widgets import Rule, Static

from engine.errors import LotrError
from lotr_tui.learn.source_code import SourceExcerpt, SourceLink, read_source
from lotr_tui.screens.base import AppScreen
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.status_bar import StatusBar

CONTINUATION_INDENT = 4
"""Columns by which the rest of a long line is indented below it."""
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
    """A function or class of this program, with line numbers."""

    CSS = """
    SourceScreen { Rule { margin: 0; color: $border; height: 1; } }
    SourceScreen #code { height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """
    AUTO_FOCUS = "#code"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-source",
        """
        close | escape,q,f4 | close | close | Back to the chapter | esc
        """,
        show=True,
    )

    def __init__(self, link: SourceLink) -> None:
        """Show the code that `link` names."""
        super().__init__()
        self._link = link
        self._excerpt: SourceExcerpt | None = None

    def compose(self) -> ComposeResult:
        """Yield the place of the code and the code."""
        yield StatusBar(id="status")
        yield Rule(line_style="solid")
        with VerticalScroll(id="code"):
            yield Static(id="source", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        """Read the code."""
        line = ""
        try:
            self._excerpt = read_source(self._link)
        except LotrError as error:
            self.query_one("#source", Static).update(Content(str(error)))
        else:
            line = f" · line {self._excerpt.first_line}"
        title = Content.assemble(("lotr-tui", "bold $accent"), "  ", (self._link.label, "bold"), (line, MUTED))
        self.query_one("#status", StatusBar).show(title)

    def on_resize(self) -> None:
        """Fold the code to the width of the screen."""
        if self._excerpt is not None:
            width = self.query_one("#code").scrollable_content_region.width
            self.query_one("#source", Static).update(number_lines(self._excerpt, width))

    def action_close(self) -> None:
        """Return to the chapter."""
        self.dismiss()


def number_lines(excerpt: SourceExcerpt, width: int) -> Content:
    """Return highlighted code with the numbers of its lines; lines longer than `width` are folded at spaces."""
    lines = highlight(excerpt.text, language="python", theme=CodeTheme).split("\n", allow_blank=True)
    number_width = len(str(excerpt.first_line + len(lines)))
    rows: list[Content] = []
    for number, line in enumerate(lines, excerpt.first_line):
        for index, part in enumerate(_fold(line, width - number_width - 2)):
            label = str(number) if index == 0 else ""
            rows.append(Content.assemble((f"{label:>{number_width}}  ", MUTED), part))
    return Content("\n").join(rows)


def _fold(line: Content, width: int) -> list[Content]:
    if line.cell_length <= width:
        return [line]
    indent = len(line.plain) - len(line.plain.lstrip())
    rest_indent = indent + CONTINUATION_INDENT
    parts = line[indent:].wrap(max(MIN_CODE_WIDTH, width - rest_indent))
    return [part.rstrip().pad_left(rest_indent if index else indent) for index, part in enumerate(parts)]
