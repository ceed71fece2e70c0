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
from lotr_tui.textual_fixes.app import TextualFixesScreen

KEYS_WIDTH = 10
"""Width of the column of keys; several keys of one command wrap to several lines."""

Row = tuple[str, str]
"""Keys, or a typed command, with an explanation."""


class KeyBindingsPanel(VerticalScroll):
    """Keys with explanations, in groups, and the commands that can be typed."""

    def __init__(self, commands: Sequence[PaletteCommand], typed_commands: Sequence[Row]) -> None:
        super().__init__()
        self._commands = commands
        self._typed_commands = typed_commands

    def compose(self) -> ComposeResult:
        """Create a heading and a table for each group, the typed commands after the keys of the screen itself."""
        for number, (group, commands) in enumerate(groupby(self._commands, key=lambda command: command.group)):
            yield from _compose_group(group, [(command.help, command.explanation) for command in commands], KEYS_WIDTH)
            if number == 0 and self._typed_commands:
                width = max(len(usage) for usage, _ in self._typed_commands)
                yield from _compose_group("Type into the prompt", self._typed_commands, width)


def _compose_group(heading: str, rows: Sequence[Row], width: int) -> ComposeResult:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=width)
    table.add_column(ratio=1)
    for key, explanation in rows:
        table.add_row(Text(key, "bold"), Text(explanation))
    yield Static(Text(heading, "underline"), classes="help-group")
    yield Static(table)


class HelpScreen(TextualFixesScreen, ModalScreen[None]):
    """Dialog with all keys."""

    CSS = """
    HelpScreen .dialog { width: 90; height: auto; padding: 0 1 0 2; }
    HelpScreen KeyBindingsPanel { height: auto; max-height: 100%; scrollbar-gutter: stable; }
    HelpScreen .help-group { margin-top: 1; }
    HelpScreen .help-group:first-child { margin-top: 0; }
    """
    AUTO_FOCUS = "KeyBindingsPanel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", "close", id="help.close", tooltip="Close the help")
    ]

    def __init__(self, commands: Sequence[PaletteCommand], typed_commands: Sequence[Row] = ()) -> None:
        """Show the commands of key bindings, and commands that can be typed, with explanations."""
        super().__init__()
        self._commands = commands
        self._typed_commands = typed_commands

    def compose(self) -> ComposeResult:
        """Create the panel."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Keys"
            dialog.border_subtitle = "↑ ↓ scroll   esc close"
            yield KeyBindingsPanel(self._commands, self._typed_commands)
