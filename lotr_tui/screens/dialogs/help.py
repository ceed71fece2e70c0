"""Help screen: all keys of the screen below, from the binding tables that the command palette uses, too."""

from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from lotr_tui.commands import PaletteCommand
from lotr_tui.textual_fixes.screen import TextualFixesScreen

KEYS_WIDTH = 12
"""Width of the column of keys; several keys of one command wrap to several lines."""


class KeyBindingsPanel(VerticalScroll):
    """Keys and their commands, in groups."""

    def __init__(self, commands: Sequence[PaletteCommand]) -> None:
        super().__init__()
        self._commands = commands

    def compose(self) -> ComposeResult:
        """Create a heading and a table for each group."""
        for group, commands in groupby(self._commands, key=lambda command: command.group):
            table = Table.grid(padding=(0, 2, 0, 0), expand=True)
            table.add_column(width=KEYS_WIDTH)
            table.add_column(ratio=1)
            for command in commands:
                table.add_row(Text(command.help, "bold"), Text(command.name))
            yield Static(Text(group, "underline"), classes="help-group")
            yield Static(table)


class HelpScreen(TextualFixesScreen, ModalScreen[None]):
    """Dialog with all keys."""

    DEFAULT_CSS = """
    HelpScreen .dialog { width: 90; height: auto; }
    HelpScreen KeyBindingsPanel { height: auto; max-height: 100%; scrollbar-gutter: stable; }
    HelpScreen .help-group { margin-top: 1; }
    HelpScreen .help-group:first-child { margin-top: 0; }
    """
    AUTO_FOCUS = "KeyBindingsPanel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", "close", id="help.close", tooltip="Close the help")
    ]

    def __init__(self, commands: Sequence[PaletteCommand]) -> None:
        super().__init__()
        self._commands = commands

    def compose(self) -> ComposeResult:
        """Create the panel."""
        with Vertical(classes="dialog"):
            yield KeyBindingsPanel(self._commands)
