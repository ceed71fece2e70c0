"""Strips that show the gates, candidate, cell and hidden values of an LSTM layer for one token."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from engine.analysis.activations import ACTIVATION_NAMES, ActivationName, LayerActivations
from engine.data.arrays import Float32Array
from lotr_tui.widgets.bars import BLOCK_HEIGHTS
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.drawing import StripWidget, join_fitting, pointer_line

SIGMOID_GATES: frozenset[ActivationName] = frozenset({"input", "forget", "output"})
"""Activations between 0 and 1; the others have a sign."""
HELP_LINES: dict[ActivationName, str] = {
    "input": "input gate: share of the new content that is stored, 0 to 1",
    "forget": "forget gate: share of the memory that is kept, 1 keeps all",
    "output": "output gate: share of the memory that is shown, 0 to 1",
    "candidate": "candidate: the new content for the memory, -1 to 1",
    "cell": "cell: the memory of each unit after this {noun}",
    "hidden": "hidden: what the layer passes on after this {noun}, -1 to 1",
}
"""Explanation of each activation in one line; `{noun}` is the noun for a token of the model."""
POSITIVE_CHARS, ZERO_CHAR, NEGATIVE_CHARS = "▂▄▆█", "·", "-░▒▓"
LABEL_WIDTH, VALUE_WIDTH = 18, 8
"""Width in cells of the label before a strip and of the value after it."""

UnitIndices = npt.NDArray[np.intp]


def value_scale(layer: LayerActivations, gate: ActivationName) -> float:
    """Return the value of a full cell: 1 for a gate, otherwise the largest absolute value in the text."""
    if gate in SIGMOID_GATES:
        return 1.0
    return max(float(np.abs(layer.get(gate)).max(initial=0.0)), 1e-6)


def bin_units(values: Float32Array, num_cells: int, gate: ActivationName) -> tuple[Float32Array, UnitIndices]:
    """Distribute the values of a layer evenly over cells: several units per cell, or several cells per unit.

    Signed values would cancel out in a mean, so a cell of several units shows the value with the largest absolute
    value.

    Args:
        values: The activation of each unit: `[units]`.
        num_cells: Number of cells.
        gate: The activation that `values` are.

    Returns:
        The value that each cell shows and the unit that a click on the cell selects, both `[cells]`. For a gate,
        these are the mean and the first unit.
    """
    first = first_units(len(values), num_cells)
    if len(values) <= num_cells:
        return values[first], first
    sizes = np.diff(first, append=len(values))
    if gate in SIGMOID_GATES:
        means: Float32Array = (np.add.reduceat(values, first) / sizes).astype(np.float32)
        return means, first
    largest_first = np.lexsort((-np.abs(values), np.repeat(np.arange(num_cells), sizes)))  # within each cell
    units = largest_first[first]
    return values[units], units


def first_units(num_units: int, num_cells: int) -> UnitIndices:
    """Return the first unit `[cells]` of each cell when units are distributed evenly over cells."""
    units: UnitIndices = np.arange(num_cells) * num_units // num_cells
    return units


def value_char(value: float, gate: ActivationName, scale: float) -> str:
    """Return the character for a value: a block for a gate, otherwise one that also shows the sign."""
    if gate in SIGMOID_GATES:
        return BLOCK_HEIGHTS[max(0, min(int(value * len(BLOCK_HEIGHTS)), len(BLOCK_HEIGHTS) - 1))]
    level = min(round(abs(value) / scale * len(POSITIVE_CHARS)), len(POSITIVE_CHARS))
    return ZERO_CHAR if not level else (POSITIVE_CHARS if value > 0 else NEGATIVE_CHARS)[level - 1]


def strips_legend(num_units: int, num_cells: int, width: int) -> tuple[str, str]:
    """Return the meaning of the characters and of a cell, the latter shortened if both exceed `width` cells.

    `num_units` units are distributed over `num_cells` cells.
    """
    blocks = f"0 {BLOCK_HEIGHTS[0]}{BLOCK_HEIGHTS[3]}{BLOCK_HEIGHTS[-1]} 1"
    characters = f"{blocks}   − {NEGATIVE_CHARS[::-1]} {ZERO_CHAR} {POSITIVE_CHARS} +"
    if num_units > num_cells:
        short = f"{_number_range(num_units / num_cells)} units per cell"
        cells = f"{short}: mean of a gate, otherwise largest absolute value"
    else:
        short = (
            "one unit per cell" if num_units == num_cells else f"{_number_range(num_cells / num_units)} cells per unit"
        )
        cells = short
    return characters, cells if len(characters) + len(cells) + 3 <= width else short


def _number_range(mean: float) -> str:
    """Return the whole numbers around a mean, such as `2` or `2 to 3`."""
    low, high = math.floor(mean), math.ceil(mean)
    return f"{low}" if low == high else f"{low} to {high}"


class GateStrips(StripWidget, can_focus=True):
    """One line per activation, its units from left to right, with a cursor on one unit of one activation.

    The strips fill the width. If there are more units than cells, each cell stands for several units until the user
    zooms in.
    """

    DEFAULT_CSS = """
    GateStrips { height: 8; padding: 0 1; }
    GateStrips > .gate-strips--plain { color: $foreground; }
    GateStrips > .gate-strips--muted { color: $muted; text-style: $muted-style; }
    GateStrips > .gate-strips--selected { color: $foreground; text-style: bold; }
    GateStrips:focus > .gate-strips--selected { color: $accent; text-style: bold; }
    GateStrips > .gate-strips--gate { color: $foreground 80%; }
    GateStrips > .gate-strips--positive { color: $success; }
    GateStrips > .gate-strips--negative { color: $error; }
    GateStrips > .gate-strips--cursor { text-style: reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"gate-strips--{name}" for name in ("plain", "muted", "selected", "gate", "positive", "negative", "cursor")
    }
    BINDING_GROUP_TITLE = "Gates"
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "gate-strips",
            """
            left      | left     | step_unit(-1)   | previous unit | The previous unit
            right     | right    | step_unit(1)    | next unit     | The next unit
            up        | up       | step_gate(-1)   | gate above    | The gate or value above
            down      | down     | step_gate(1)    | gate below    | The gate or value below
            page-up   | pageup   | jump(-1)        | tenth left    | A tenth of the units left
            page-down | pagedown | jump(1)         | tenth right   | A tenth of the units right
            first     | home     | step_to_end(-1) | first         | The first unit
            last      | end      | step_to_end(1)  | last          | The last unit
            largest   | m        | go_to_largest   | largest       | The unit with the largest absolute value
            """,
        ),
        Binding("z", "toggle_zoom", "zoom", id="gate-strips.zoom", tooltip="One unit per cell, or all units"),
    ]
    ALLOW_SELECT = False

    class CursorMoved(Message):
        """Posted when the cursor has moved or the number of units per cell may have changed."""

    def __init__(self, noun: str = "word", *, id: str | None = None) -> None:
        """Start without activations; `noun` is the noun for a token of the model."""
        super().__init__(id=id)
        self._noun = noun
        self._layer: LayerActivations | None = None
        self._values: dict[ActivationName, Float32Array] = {}  # of each unit on the shown token
        self._scales: dict[ActivationName, float] = {}
        self._heading: Sequence[str] = ()
        self.message = ""
        """Text shown while there are no activations."""
        self._zoomed = False
        self.unit = 0
        """Unit under the cursor."""
        self.gate: ActivationName = "cell"
        """Activation under the cursor."""

    def show(self, layer: LayerActivations, position: int, heading: Sequence[str]) -> None:
        """Show the activations of a layer on the token at a position of the text, which the parts of `heading` name.

        The last parts are left out where they do not fit.
        """
        if layer is self._layer and heading == self._heading:
            return
        self._layer, self._heading = layer, heading
        self._values = {gate: layer.get(gate)[position] for gate in ACTIVATION_NAMES}
        self._scales = {gate: value_scale(layer, gate) for gate in ACTIVATION_NAMES}
        self.unit = min(self.unit, self._num_units - 1)
        self.redraw()

    def get_help_line(self) -> str:
        """Return the explanation of the activation under the cursor."""
        return f"{HELP_LINES[self.gate].format(noun=self._noun)}; ← → unit, ↑ ↓ line"

    def show_message(self, message: str) -> None:
        """Show a line in place of the strips."""
        self._layer, self._values, self.message = None, {}, message
        self.redraw()

    @property
    def selected_value(self) -> float:
        """Value under the cursor."""
        return float(self._values[self.gate][self.unit])

    @property
    def units_per_cell(self) -> int:
        """Largest number of units in a cell."""
        return max(1, math.ceil(self.num_shown_units / self.num_cells))

    @property
    def num_cells(self) -> int:
        """Number of cells of a strip, which fill the width."""
        return max(1, self.size.width - LABEL_WIDTH - VALUE_WIDTH)

    @property
    def num_shown_units(self) -> int:
        """Number of units that the cells show: all units, or a page around the cursor."""
        return min(self._num_units, self.num_cells) if self._zoomed else self._num_units

    @property
    def _num_units(self) -> int:
        return len(self._values[self.gate]) if self._values else 0

    @property
    def _first_shown_unit(self) -> int:
        """First unit of the page that contains the cursor; zoomed strips scroll by pages."""
        first = self.unit // self.num_shown_units * self.num_shown_units
        return max(0, min(first, self._num_units - self.num_shown_units))

    def visible_cells(self, gate: ActivationName) -> tuple[Float32Array, UnitIndices]:
        """Return the value and the unit of each cell of a strip, as `bin_units` does."""
        first = self._first_shown_unit
        values, units = bin_units(self._values[gate][first : first + self.num_shown_units], self.num_cells, gate)
        return values, units + first

    def cursor_cells(self) -> range:
        """Return the columns of the cells that show the unit under the cursor."""
        first_unit_of_cell = self._first_shown_unit + first_units(self.num_shown_units, self.num_cells)
        end = int(np.searchsorted(first_unit_of_cell, self.unit, side="right"))
        start = int(np.searchsorted(first_unit_of_cell, self.unit, side="left"))
        return range(min(start, end - 1), end)

    def draw(self, width: int, height: int) -> list[Strip]:
        """Draw the heading, the strips and the position of the cursor below them."""
        if not self._values:
            return [Strip([Segment(self.message, self._style("muted"))])]
        lines = [Strip([Segment(join_fitting(self._heading, width), self._style("muted"))])]
        lines += [self._draw_strip(gate) for gate in ACTIVATION_NAMES]
        cells = self.cursor_cells()
        text = pointer_line(f"unit {self.unit}", LABEL_WIDTH + cells[len(cells) // 2], width - VALUE_WIDTH)
        lines.append(Strip([Segment(text, self.rich_style)]))
        return lines

    def _draw_strip(self, gate: ActivationName) -> Strip:
        scale, is_selected = self._scales[gate], gate == self.gate
        values, _ = self.visible_cells(gate)
        label = f"{'▸' if is_selected else ' '}{gate:<9} {'0–1' if gate in SIGMOID_GATES else f'±{scale:.2f}'}"
        label_style = self._style("selected" if is_selected else "plain")
        segments = [Segment(f"{label:<{LABEL_WIDTH}}", label_style)]
        cursor = self.cursor_cells()
        for column, value in enumerate(values.tolist()):
            char = value_char(value, gate, scale)
            # Only the selected strip is coloured: each change of colour costs 40 bytes over SSH.
            kind = "gate" if gate in SIGMOID_GATES or not is_selected else "negative" if value < 0 else "positive"
            names = ["muted" if is_selected and char == ZERO_CHAR else kind]
            if is_selected and column in cursor:
                names.append("cursor")
            segments.append(Segment(char, self._style(*names)))
        sign = "" if gate in SIGMOID_GATES else "+"
        number = f"{float(self._values[gate][self.unit]):{sign}{VALUE_WIDTH}.3f}"
        return Strip([*segments, Segment(number, label_style)]).simplify()

    def _style(self, *names: str) -> Style:
        return self.get_component_rich_style(*(f"gate-strips--{name}" for name in names))

    # Cursor

    def move_cursor(self, unit: int, gate: ActivationName) -> None:
        """Move the cursor to the unit nearest to `unit` of an activation."""
        if not self._values:
            return
        first_shown = self._first_shown_unit
        changed_rows = {1 + ACTIVATION_NAMES.index(name) for name in (self.gate, gate)} | {len(ACTIVATION_NAMES) + 1}
        self.unit, self.gate = max(0, min(unit, self._num_units - 1)), gate
        if self._first_shown_unit == first_shown:
            # The other strips show the same cells: repaint two strips, the numbers and the cursor line.
            self._lines = []
            width = self.size.width
            self.refresh(
                Region(width - VALUE_WIDTH, 1, VALUE_WIDTH, len(ACTIVATION_NAMES)),
                *(Region(0, row, width, 1) for row in changed_rows),
            )
        else:
            self.redraw()
        self.post_message(self.CursorMoved())

    def action_step_unit(self, offset: int) -> None:
        """Move the cursor by a number of units."""
        self.move_cursor(self.unit + offset, self.gate)

    def action_jump(self, direction: int) -> None:
        """Move the cursor by a tenth of the layer."""
        self.action_step_unit(direction * max(1, self._num_units // 10))

    def action_step_to_end(self, direction: int) -> None:
        """Move the cursor to the first unit if `direction` is -1, or to the last one if it is 1."""
        self.action_step_unit(direction * self._num_units)

    def action_step_gate(self, offset: int) -> None:
        """Move the cursor by a number of strips."""
        index = max(0, min(ACTIVATION_NAMES.index(self.gate) + offset, len(ACTIVATION_NAMES) - 1))
        self.move_cursor(self.unit, ACTIVATION_NAMES[index])

    def action_go_to_largest(self) -> None:
        """Move the cursor to the unit with the largest absolute value of this activation."""
        if self._values:
            self.move_cursor(int(np.abs(self._values[self.gate]).argmax()), self.gate)

    def action_toggle_zoom(self) -> None:
        """Show one unit per cell, or all units at once."""
        self._zoomed = not self._zoomed
        self.redraw()
        self.post_message(self.CursorMoved())

    def on_resize(self) -> None:
        """Report that the number of units per cell may have changed."""
        self.post_message(self.CursorMoved())

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the unit of the clicked cell."""
        offset = event.get_content_offset(self)
        if offset is None or not self._values or not 1 <= offset.y <= len(ACTIVATION_NAMES):
            return
        gate = ACTIVATION_NAMES[offset.y - 1]
        _, units = self.visible_cells(gate)
        column = offset.x - LABEL_WIDTH
        self.move_cursor(int(units[column]) if 0 <= column < len(units) else self.unit, gate)
