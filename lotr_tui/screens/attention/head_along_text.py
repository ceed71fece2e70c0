"""List of the positions that one head attends to, token by token along a text."""

from typing import ClassVar

import numpy as np
from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import BindingType

from lotr_tui.formatting import format_percent, truncate
from lotr_tui.screens.attention.reading import AttentionReading, HeadId
from lotr_tui.screens.text.token_list import TokenList
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.line_list import line_bindings

TOKEN_WIDTH = 14
"""Width of a column with tokens in cells."""
WEIGHT_WIDTH = 8
HEADER = f" {'':{TOKEN_WIDTH}}{'start':>{WEIGHT_WIDTH}}  most attended"
"""Headings of the columns."""


class HeadAlongText(TokenList):
    """One line per token: the weight of the start of the text, and the other position with the largest weight.

    Many heads attend to the start of the text where they have nothing to do, which would hide all other positions.
    """

    DEFAULT_CSS = """
    HeadAlongText > .head-along-text--plain { color: $foreground; }
    HeadAlongText > .head-along-text--cursor { text-style: bold; }
    HeadAlongText:focus > .head-along-text--cursor { text-style: bold reverse; }
    HeadAlongText > .head-along-text--muted { color: $muted; text-style: $muted-style; }
    HeadAlongText > .head-along-text--bar { color: $accent; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"head-along-text--{name}" for name in ("plain", "cursor", "muted", "bar")}
    BINDING_GROUP_TITLE = "Head along the text"
    BINDINGS: ClassVar[list[BindingType]] = line_bindings("head-along-text", up="up,left", down="down,right")

    def __init__(self, noun: str = "word", *, id: str | None = None) -> None:
        """Start without a text; `noun` is the noun for a token of the model."""
        super().__init__(noun, id=id)
        self._reading: AttentionReading | None = None
        self._head_id: HeadId | None = None
        self._start_weights: list[float] = []
        self._targets: list[int] = []
        self._target_weights: list[float] = []

    def get_help_line(self) -> str:
        """Return the help, with the noun for a token."""
        return f"Where the head looks before each {self._noun}; ↑ ↓ choose, F3 pin"

    def show(self, reading: AttentionReading, head_id: HeadId, cursor: int) -> None:
        """Show what a head attends to before each token of a text, with the cursor on a token."""
        is_same = reading is self._reading and head_id == self._head_id
        if is_same and cursor == self.cursor:
            return
        if not is_same:
            self._reading, self._head_id = reading, head_id
            weights = reading.weights(head_id)[reading.token_positions - 1]
            self._start_weights = weights[:, 0].tolist()
            weights[:, 0] = 0.0
            targets = weights.argmax(axis=1)
            self._targets = targets.tolist()
            self._target_weights = weights[np.arange(len(weights)), targets].tolist()
            self.update_virtual_size()
        self.cursor = cursor
        self.scroll_to_line(cursor)
        self.refresh()

    def clear(self) -> None:
        """Show nothing."""
        self._reading, self._head_id, self._targets = None, None, []
        self.update_virtual_size()
        self.refresh()

    def line_count(self) -> int:
        """Return the number of tokens."""
        return len(self._targets)

    def line_segments(self, line: int) -> list[Segment]:
        """Return the token, the weight of the start, and the most attended position of a line."""
        assert self._reading is not None, "there are lines"
        plain, is_cursor = self._style("plain"), line == self.cursor
        name = self._reading.names[int(self._reading.token_positions[line])]
        segments = [
            Segment(f"{'▸' if is_cursor else ' '}{_column(name)}", self._style("cursor") if is_cursor else plain),
            Segment(f"{format_percent(self._start_weights[line]):>{WEIGHT_WIDTH}}  ", self._style("muted")),
        ]
        if self._targets[line] == 0:  # nothing but the start was read
            return segments
        weight = self._target_weights[line]
        room = self.scrollable_content_region.width - TOKEN_WIDTH - 2 * WEIGHT_WIDTH - 3
        target = _column(self._reading.names[self._targets[line]], max(1, min(TOKEN_WIDTH, room)))
        return [
            *segments,
            Segment(f"{target}{format_percent(weight):>{WEIGHT_WIDTH}}  ", plain),
            Segment(bar(weight, max(0, room - TOKEN_WIDTH - 2)), self._style("bar")),
        ]

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"head-along-text--{name}")


def _column(name: str, width: int = TOKEN_WIDTH) -> str:
    """Return a name in a column with a blank cell after it."""
    return set_cell_size(truncate(name, width - 1), width)
