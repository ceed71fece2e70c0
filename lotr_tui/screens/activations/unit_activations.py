"""List of the values that one LSTM unit takes along a text."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import BindingType

from engine.data.arrays import Float32Array
from lotr_tui.screens.text.token_list import TokenList
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.line_list import line_bindings

TOKEN_WIDTH = 14
"""Width of the token column in cells."""
NUMBER_WIDTH = 8


class UnitActivations(TokenList):
    """One line per token: the token and the value of the unit, as a number and as a bar."""

    DEFAULT_CSS = """
    UnitActivations > .unit-activations--plain { color: $foreground; }
    UnitActivations > .unit-activations--cursor { text-style: bold; }
    UnitActivations:focus > .unit-activations--cursor { text-style: bold reverse; }
    UnitActivations > .unit-activations--gate { color: $foreground 80%; }
    UnitActivations > .unit-activations--positive { color: $success; }
    UnitActivations > .unit-activations--negative { color: $error; }
    UnitActivations > .unit-activations--axis { color: $muted; text-style: $muted-style; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"unit-activations--{name}" for name in ("plain", "cursor", "gate", "positive", "negative", "axis")
    }
    BINDING_GROUP_TITLE = "Activations of a unit"
    BINDINGS: ClassVar[list[BindingType]] = line_bindings("unit-activations", up="up,left", down="down,right")

    def __init__(self, noun: str = "word", *, id: str | None = None) -> None:
        """Start without activations; `noun` is the noun for a token of the model."""
        super().__init__(noun, id=id)
        self._tokens: Sequence[str] = ()
        self._values: Float32Array = np.empty(0, np.float32)
        self._is_signed = True
        self._scale = 1.0

    def get_help_line(self) -> str:
        """Return the help, with the noun for a token."""
        return f"Value of one unit on each {self._noun}; ↑ ↓ choose a {self._noun}, F3 pins the unit"

    def show(self, tokens: Sequence[str], values: Float32Array, *, is_signed: bool, scale: float, cursor: int) -> None:
        """Show the value of a unit on each token of a text: `[time]`.

        A bar of full length is the absolute value `scale`. With `is_signed`, bars start in the middle.
        """
        self._tokens, self._values, self._is_signed, self._scale = tokens, values, is_signed, scale
        self.cursor = max(0, min(cursor, len(tokens) - 1))
        self.update_virtual_size()
        self.scroll_to_line(self.cursor)
        self.refresh()

    def clear(self) -> None:
        """Show nothing."""
        self.show((), np.empty(0, np.float32), is_signed=True, scale=1.0, cursor=0)

    def line_count(self) -> int:
        """Return the number of tokens."""
        return len(self._tokens)

    def line_segments(self, line: int) -> list[Segment]:
        """Return the token, the value and the bar of a line."""
        value, is_cursor = float(self._values[line]), line == self.cursor
        number = f"{value:+{NUMBER_WIDTH}.3f}" if self._is_signed else f"{value:{NUMBER_WIDTH}.3f}"
        text = f"{'▸' if is_cursor else ' '}{set_cell_size(self._tokens[line], TOKEN_WIDTH)}{number}  "
        bar_width = max(2, self.size.width - TOKEN_WIDTH - NUMBER_WIDTH - 3)
        fraction = value / self._scale
        segments = [Segment(text, self._style("cursor" if is_cursor else "plain"))]
        if self._is_signed:
            half = (bar_width - 1) // 2
            left = "▒" * round(max(0.0, min(-fraction, 1.0)) * half)
            segments += [
                Segment(left.rjust(half), self._style("negative")),
                Segment("│", self._style("axis")),
                Segment(bar(fraction, half), self._style("positive")),
            ]
        else:
            segments.append(Segment(bar(fraction, bar_width), self._style("gate")))
        return segments

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"unit-activations--{name}")
