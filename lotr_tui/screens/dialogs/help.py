"""All keys of the screen below, from the same tables of bindings as the palette."""

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

from lotr_tui.commands import Command
from lotr_tui.textual_fixes.screen import Steady

KEYS = 12
"""Columns for keys; more of them stand below each other."""


class HelpPanel(VerticalScroll):
    """The keys and what they do, in groups."""

    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__()
        self._commands = commands

    def compose(self) -> ComposeResult:
        """A table for each group."""
        for group, commands in groupby(self._commands, key=lambda command: command.group):
            table = Table.grid(padding=(0, 2, 0, 0), expand=True)
            table.add_column(width=KEYS)
            table.add_column(ratio=1)
            for command in commands:
                table.add_row(Text(command.help, "bold"), Text(command.name))
            yield Static(Text(group, "underline"), classes="help-group")
            yield Static(table)


class HelpScreen(Steady, ModalScreen[None]):
    """Shows the keys until esc or f1."""

    DEFAULT_CSS = """
    HelpScreen .dialog { width: 90; height: auto; }
    HelpScreen HelpPanel { height: auto; max-height: 100%; scrollbar-gutter: stable; }
    HelpScreen .help-group { margin-top: 1; }
    HelpScreen .help-group:first-child { margin-top: 0; }
    """
    AUTO_FOCUS = "HelpPanel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", "close", id="help.close", tooltip="Back to where you came from"),
    ]

    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__()
        self._commands = commands

    def compose(self) -> ComposeResult:
        """The table, in a dialog."""
        with Vertical(classes="dialog"):
            yield HelpPanel(self._commands)
