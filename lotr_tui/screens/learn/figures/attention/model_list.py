"""List of the compared models: bits per character, and how each continues the typed line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import BindingType
from textual.message import Message

from lotr_tui.formatting import SELECTED_MARK, fit_cells, truncate
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.line_list import LineList, line_bindings

NAME_WIDTH, BITS_WIDTH = 22, 7


@dataclass(frozen=True)
class ModelRow:
    """One model as the list shows it."""

    name: str
    bits: str
    """Bits per character, or a mark while they are unknown."""
    continuation: str
    is_current: bool
    """False while the continuation belongs to an earlier line, or is a message."""


class ModelList(LineList):
    """One line per model, one of which is selected."""

    DEFAULT_CSS = """
    ModelList > .model-list--plain { color: $foreground; }
    ModelList > .model-list--muted { color: $muted; text-style: $muted-style; }
    ModelList > .model-list--cursor { text-style: bold; }
    ModelList:focus > .model-list--cursor { text-style: bold reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"model-list--{name}" for name in ("plain", "muted", "cursor")}
    BINDING_GROUP_TITLE = "Models"
    BINDINGS: ClassVar[list[BindingType]] = [
        *line_bindings("learn-models"),
        *binding_table("learn-models", "load | enter | load | load | Load the selected model, if it is a large one"),
    ]

    class RowSelected(Message):
        """Posted when the student selects a model, also the same one again."""

    class LoadRequested(Message):
        """Posted when the student presses enter on a model, or clicks it."""

    def __init__(self, *, id: str | None = None) -> None:
        """Start without models."""
        super().__init__(id=id)
        self._rows: Sequence[ModelRow] = ()
        self.cursor = 0
        """Index of the selected model."""

    def get_help_line(self) -> str:
        """Return what the list shows."""
        return "Held-out lines and yours in every model; ↑ ↓ select one"

    @property
    def header(self) -> str:
        """Headings of the columns."""
        return f"  {'model':<{NAME_WIDTH}}{'bits/char':>{BITS_WIDTH + 3}}  goes on with"

    def show(self, rows: Sequence[ModelRow]) -> None:
        """Show the rows."""
        if rows != self._rows:
            self._rows = rows
            self.update_virtual_size()
            self.refresh()

    def line_count(self) -> int:
        """Return the number of models."""
        return len(self._rows)

    def line_segments(self, line: int) -> list[Segment]:
        """Return the name of a model, its bits per character and its continuation."""
        row, is_cursor = self._rows[line], line == self.cursor
        name = fit_cells(row.name, NAME_WIDTH)
        style = self._style("cursor" if is_cursor else "plain")
        room = max(0, self.scrollable_content_region.width - NAME_WIDTH - BITS_WIDTH - 6)
        return [
            Segment(f"{SELECTED_MARK if is_cursor else ' '} {name}{row.bits:>{BITS_WIDTH + 3}}", style),
            Segment(f"  {truncate(row.continuation, room)}", self._style("plain" if row.is_current else "muted")),
        ]

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"model-list--{name}")

    @property
    def cursor_line(self) -> int | None:
        """Line of the selected model; None without models."""
        return self.cursor if self._rows else None

    def select_line(self, line: int) -> None:
        """Select a model."""
        self.cursor = line
        self.scroll_to_line(line)
        self.refresh()
        self.post_message(self.RowSelected())

    def click_line(self, line: int) -> None:
        """Select a model, and load it if it is a large one."""
        self.select_line(line)
        self.action_load()

    def action_load(self) -> None:
        """Post `LoadRequested`."""
        self.post_message(self.LoadRequested())
