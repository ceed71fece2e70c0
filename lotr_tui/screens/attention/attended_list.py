"""List of the positions that one head attends to most when the model predicts a token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import BindingType
from textual.message import Message

from engine.data.arrays import Float32Array
from lotr_tui.formatting import format_percent, truncate
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.line_list import LineList, line_bindings

MAX_LISTED = 100
"""Maximum number of positions in the list."""
MAX_NAME_WIDTH = 18
"""Maximum width in cells of the name of a position."""
DISTANCE_WIDTH, WEIGHT_WIDTH = 9, 8


class AttendedList(LineList):
    """One line per position, the largest weight first: the position, the weight as a number and as a bar.

    A bar of full length is the largest weight.
    """

    DEFAULT_CSS = """
    AttendedList > .attended-list--plain { color: $foreground; }
    AttendedList > .attended-list--cursor { text-style: bold; }
    AttendedList:focus > .attended-list--cursor { text-style: bold reverse; }
    AttendedList > .attended-list--bar { color: $accent; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"attended-list--{name}" for name in ("plain", "cursor", "bar")}
    BINDING_GROUP_TITLE = "Strongest attention"
    BINDINGS: ClassVar[list[BindingType]] = line_bindings("attended-list", up="up,left", down="down,right")

    @dataclass
    class PositionSelected(Message):
        """Posted when the cursor is to move to a position; the screen then calls `show`."""

        position: int

    def __init__(self, noun: str = "word", *, id: str | None = None) -> None:
        """Start without positions; `noun` is the noun for a token of the model."""
        super().__init__(id=id)
        self._noun = noun
        self._names: Sequence[str] = ()
        self._num_positions = 0
        self._weights: list[float] = []
        self.positions: list[int] = []
        """Listed positions, the largest weight first."""
        self._cursor: int | None = None

    def get_help_line(self) -> str:
        """Return the help, with the noun for a token."""
        return f"Where the head looks most; ↑ ↓ go to a {self._noun} of the strips"

    def show(self, weights: Float32Array, names: Sequence[str], cursor: int) -> None:
        """Show the largest of the weights `[positions]`, with the names of all positions and the cursor on one.

        Without the focus, the list starts with the largest weight, wherever the cursor is.
        """
        order = np.argsort(-weights, kind="stable")[:MAX_LISTED]
        positions, values = order.tolist(), weights[order].tolist()
        line = positions.index(cursor) if cursor in positions else None
        shown = (positions, values, len(weights), names, line)
        if shown == (self.positions, self._weights, self._num_positions, self._names, self._cursor):
            return
        self.positions, self._weights, self._num_positions, self._names, self._cursor = shown
        self.update_virtual_size()
        self.scroll_to_line(line if line is not None and self.has_focus else 0)
        self.refresh()

    def clear(self) -> None:
        """Show nothing."""
        self.show(np.empty(0, np.float32), (), 0)

    def line_count(self) -> int:
        """Return the number of listed positions."""
        return len(self.positions)

    def line_segments(self, line: int) -> list[Segment]:
        """Return the position, its weight and the bar of a line."""
        weight, position, is_cursor = self._weights[line], self.positions[line], line == self._cursor
        width = self.scrollable_content_region.width
        name_width = max(6, min(MAX_NAME_WIDTH, width - DISTANCE_WIDTH - WEIGHT_WIDTH - 10))
        name = set_cell_size(truncate(self._names[position], name_width), name_width)
        distance = f"{self._num_positions - position:,} back" if position else ""
        bar_width = max(1, width - name_width - DISTANCE_WIDTH - WEIGHT_WIDTH - 3)
        figures = f"{distance:>{DISTANCE_WIDTH}}{format_percent(weight):>{WEIGHT_WIDTH}}"
        style = self._style("cursor" if is_cursor else "plain")
        return [
            Segment(f"{'▸' if is_cursor else ' '}{name}{figures}  ", style),
            Segment(bar(weight / max(self._weights[0], 1e-9), bar_width), self._style("bar")),
        ]

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"attended-list--{name}")

    @property
    def cursor_line(self) -> int | None:
        """Line of the position under the cursor, or the first line if it is not listed; None if there are no lines."""
        return (self._cursor or 0) if self.positions else None

    def select_line(self, line: int) -> None:
        """Post `PositionSelected` for the position on a line."""
        if line != self._cursor:
            self.post_message(self.PositionSelected(self.positions[line]))
