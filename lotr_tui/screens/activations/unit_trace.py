"""One unit of an LSTM along a whole text."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from rich.cells import set_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from engine.models.matmul import Floats
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.line_list import LineList

WORD = 14
"""Cells for a word."""


class UnitAlong(LineList):
    """A line a word: the word, the unit's value as a number and as a bar. One is the cursor's."""

    DEFAULT_CSS = """
    UnitAlong > .unit-along--plain { color: $foreground; }
    UnitAlong > .unit-along--cursor { text-style: bold; }
    UnitAlong:focus > .unit-along--cursor { text-style: bold reverse; }
    UnitAlong > .unit-along--gate { color: $foreground 80%; }
    UnitAlong > .unit-along--positive { color: $success; }
    UnitAlong > .unit-along--negative { color: $error; }
    UnitAlong > .unit-along--axis { color: $foreground 60%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "unit-along--plain",
        "unit-along--cursor",
        "unit-along--gate",
        "unit-along--positive",
        "unit-along--negative",
        "unit-along--axis",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,left", "step(-1)", "word before", id="unit-along.up", show=False, tooltip="The word before"),
        Binding("down,right", "step(1)", "next word", id="unit-along.down", show=False, tooltip="The next word"),
        Binding("pageup", "page(-1)", "page up", id="unit-along.page-up", show=False, tooltip="A page up"),
        Binding("pagedown", "page(1)", "page down", id="unit-along.page-down", show=False, tooltip="A page down"),
        Binding("home", "step(-999999)", "first", id="unit-along.first", show=False, tooltip="The first word"),
        Binding("end", "step(999999)", "last", id="unit-along.last", show=False, tooltip="The last word"),
    ]

    class WordChosen(Message):
        """The cursor has gone to this word."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._words: Sequence[str] = ()
        self._values: Floats = np.empty(0, np.float32)
        self._signed = True
        self._scale = 1.0
        self._cursor = 0

    def show(self, words: Sequence[str], values: Floats, *, signed: bool, scale: float, cursor: int) -> None:
        """Show a unit's value `[time]` on each word; `scale` is what the longest bar stands for."""
        self._words, self._values, self._signed, self._scale = words, values, signed, scale
        self._cursor = max(0, min(cursor, len(words) - 1))
        self.measure()
        self._into_sight()
        self.refresh()

    def clear(self) -> None:
        """There is nothing to show."""
        self.show((), np.empty(0, np.float32), signed=True, scale=1.0, cursor=0)

    def line_count(self) -> int:
        """How many there are."""
        return len(self._words)

    def render_line(self, y: int) -> Strip:
        """The word at `y` of what is seen."""
        width, line = self.size.width, y + self.scroll_offset.y
        if line >= len(self._words):
            return Strip.blank(width, self.rich_style)
        value, here = float(self._values[line]), line == self._cursor
        number = f"{value:+8.3f}" if self._signed else f"{value:8.3f}"
        text = f"{'▸' if here else ' '}{set_cell_size(self._words[line], WORD)}{number}  "
        room = max(2, width - WORD - 11)
        share = value / self._scale
        name = "unit-along--cursor" if here else "unit-along--plain"
        segments = [Segment(text, self.get_component_rich_style(name))]
        if self._signed:
            half = (room - 1) // 2
            left = "▒" * round(max(0.0, min(-share, 1.0)) * half)
            segments += [
                Segment(left.rjust(half), self.get_component_rich_style("unit-along--negative")),
                Segment("│", self.get_component_rich_style("unit-along--axis")),
                Segment(bar(share, half), self.get_component_rich_style("unit-along--positive")),
            ]
        else:
            segments.append(Segment(bar(share, room), self.get_component_rich_style("unit-along--gate")))
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def on_resize(self) -> None:
        """There is another room for them."""
        self.measure()
        self._into_sight()

    def action_step(self, lines: int) -> None:
        """So many words on, or back."""
        self._choose(self._cursor + lines)

    def on_click(self, event: events.Click) -> None:
        """To the word under the pointer."""
        place = event.get_content_offset(self)
        if place is not None and (line := place.y + self.scroll_offset.y) < len(self._words):
            self._choose(line)

    def _choose(self, line: int) -> None:
        line = max(0, min(line, len(self._words) - 1))
        if self._words and line != self._cursor:
            self.post_message(self.WordChosen(line))

    def _into_sight(self) -> None:
        self.bring_into_sight(self._cursor)
