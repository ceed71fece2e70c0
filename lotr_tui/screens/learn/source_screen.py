"""Screen with the source code that a chapter links to."""

from typing import ClassVar

from rich.syntax import Syntax
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Rule, Static

from engine.errors import LotrError
from lotr_tui.learn.source_code import SourceLink, read_source
from lotr_tui.screens.base import AppScreen
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.status_bar import StatusBar

DARK_STYLE, LIGHT_STYLE = "ansi_dark", "ansi_light"
"""Styles of Pygments that use the colours of the terminal."""


class SourceScreen(AppScreen[None]):
    """A function or class of this program, with line numbers."""

    CSS = """
    SourceScreen { Rule { margin: 0; color: $border; height: 1; } }
    SourceScreen #code { height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    SourceScreen #code Static { width: auto; min-width: 100%; }
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
        source = self.query_one("#source", Static)
        try:
            excerpt = read_source(self._link)
        except LotrError as error:
            source.update(Content(str(error)))
        else:
            line = f" · line {excerpt.first_line}"
            style = DARK_STYLE if self.app.current_theme.dark else LIGHT_STYLE
            source.update(
                Syntax(
                    excerpt.text,
                    "python",
                    theme=style,
                    line_numbers=True,
                    start_line=excerpt.first_line,
                    background_color="default",
                    word_wrap=True,
                )
            )
        title = Content.assemble(("lotr-tui", "bold $accent"), "  ", (self._link.label, "bold"), (line, MUTED))
        self.query_one("#status", StatusBar).show(title)

    def action_close(self) -> None:
        """Return to the chapter."""
        self.dismiss()
