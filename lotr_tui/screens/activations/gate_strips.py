"""What an LSTM layer did with one word: a strip for each gate, the candidate, the cell and the hidden value."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from engine.analysis.activations import PARTS, Gates, Part
from engine.models.matmul import Floats
from lotr_tui.widgets.drawing import Drawing

GATES: frozenset[Part] = frozenset({"input", "forget", "output"})
"""From 0 to 1; the other parts have a sign."""
LEVELS = "▁▂▃▄▅▆▇█"
POSITIVE, ZERO, NEGATIVE = "▂▄▆█", "·", "-░▒▓"
LABEL, NUMBER = 18, 8
"""Cells before a strip and behind it."""

Units = npt.NDArray[np.intp]


def scale_of(layer: Gates, part: Part) -> float:
    """What fills a cell: 1 for a gate, else the largest size along the text."""
    if part in GATES:
        return 1.0
    return max(float(np.abs(layer.part(part)).max(initial=0.0)), 1e-6)


def bins(values: Floats, size: int, part: Part) -> tuple[Floats, Units]:
    """Values `[units]` as cells of so many units each: what a cell shows `[cells]`, and the unit it leads to `[cells]`.

    Of gates a cell shows the mean, and leads to its first unit. What has a sign would cancel out: there it is the
    value furthest from 0, and its unit.
    """
    first = np.arange(0, len(values), size)
    if part in GATES:
        means: Floats = (np.add.reduceat(values, first) / np.diff(first, append=len(values))).astype(np.float32)
        return means, first
    padded = np.pad(np.abs(values), (0, len(first) * size - len(values)), constant_values=-1.0)
    units = first + padded.reshape(len(first), size).argmax(axis=1)
    return values[units], units


def glyph(value: float, part: Part, scale: float) -> str:
    """One value as a character: the height of a block for a gate; the sign has its own characters else."""
    if part in GATES:
        return LEVELS[max(0, min(int(value * len(LEVELS)), len(LEVELS) - 1))]
    level = min(round(abs(value) / scale * len(POSITIVE)), len(POSITIVE))
    return ZERO if not level else (POSITIVE if value > 0 else NEGATIVE)[level - 1]


class GateStrips(Drawing, can_focus=True):
    """A line a part, the units from left to right; the cursor is on one unit of one part.

    Where there are more units than cells, a cell stands for several (`bins`), until one zooms in.
    """

    DEFAULT_CSS = """
    GateStrips { height: 8; padding: 0 1; }
    GateStrips > .gate-strips--plain { color: $foreground; }
    GateStrips > .gate-strips--muted { color: $foreground 60%; }
    GateStrips > .gate-strips--chosen { color: $foreground; text-style: bold; }
    GateStrips:focus > .gate-strips--chosen { color: $accent; text-style: bold; }
    GateStrips > .gate-strips--gate { color: $foreground 80%; }
    GateStrips > .gate-strips--positive { color: $success; }
    GateStrips > .gate-strips--negative { color: $error; }
    GateStrips > .gate-strips--cursor { text-style: reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "gate-strips--plain",
        "gate-strips--muted",
        "gate-strips--chosen",
        "gate-strips--gate",
        "gate-strips--positive",
        "gate-strips--negative",
        "gate-strips--cursor",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "unit(-1)", "unit before", id="gate-strips.left", show=False, tooltip="The unit before"),
        Binding("right", "unit(1)", "next unit", id="gate-strips.right", show=False, tooltip="The next unit"),
        Binding("up", "part(-1)", "part above", id="gate-strips.up", show=False, tooltip="The part above"),
        Binding("down", "part(1)", "part below", id="gate-strips.down", show=False, tooltip="The part below"),
        Binding("pageup", "tenth(-1)", "tenth back", id="gate-strips.page-up", show=False, tooltip="A tenth back"),
        Binding("pagedown", "tenth(1)", "tenth on", id="gate-strips.page-down", show=False, tooltip="A tenth on"),
        Binding("home", "unit(-999999)", "first", id="gate-strips.first", show=False, tooltip="The first unit"),
        Binding("end", "unit(999999)", "last", id="gate-strips.last", show=False, tooltip="The last unit"),
        Binding("z", "zoom", "zoom", id="gate-strips.zoom", tooltip="A cell a unit, or all units at once"),
        Binding(
            "m",
            "most",
            "largest",
            id="gate-strips.most",
            show=False,
            tooltip="The unit of this part with the largest value",
        ),
    ]
    ALLOW_SELECT = False

    class Moved(Message):
        """The cursor is on another unit or part, or cells stand for other units."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._layers: Sequence[Gates] = ()
        self._heading, self._hint = "", ""
        self._zoomed = False
        self._depth, self.unit, self._time = 0, 0, 0
        self.part: Part = "cell"

    def show(self, layers: Sequence[Gates], layer: int, position: int, heading: str) -> None:
        """Show what a layer did with the word at a position of the text that `layers` are of."""
        before = (self._layers, self._depth, self._time, self._heading)
        self._layers, self._depth, self._time, self._heading = layers, layer, position, heading
        self.unit = min(self.unit, self._units - 1)
        if before[0] is not layers or before[1:] != (layer, position, heading):
            self.redraw()

    def tell(self, text: str) -> None:
        """One line, where there is nothing to show."""
        self._layers, self._hint = (), text
        self.redraw()

    @property
    def value(self) -> float:
        """That of the chosen unit's chosen part."""
        return float(self._layers[self._depth].part(self.part)[self._time, self.unit])

    @property
    def bin(self) -> int:
        """Units that a cell stands for."""
        return 1 if self._zoomed or not self._layers else math.ceil(self._units / self._room)

    @property
    def _units(self) -> int:
        return len(self._layers[self._depth].cell[0])

    @property
    def _room(self) -> int:
        return max(1, self.size.width - LABEL - NUMBER)

    def cells(self, part: Part) -> tuple[Floats, Units]:
        """The cells of a part's strip that are seen: what each shows, and the unit it leads to."""
        values, units = bins(self._layers[self._depth].part(part)[self._time], self.bin, part)
        first = self._window
        return values[first : first + self._room], units[first : first + self._room]

    @property
    def _window(self) -> int:
        """The first cell that is seen; by pages, so that nothing jumps."""
        first = self.unit // self.bin // self._room * self._room
        return max(0, min(first, math.ceil(self._units / self.bin) - self._room))

    def draw(self, width: int, height: int) -> list[Strip]:
        """Heading, a strip a part, and below them where the cursor is."""
        muted, plain = self.get_component_rich_style("gate-strips--muted"), self.rich_style
        if not self._layers:
            return [Strip([Segment(self._hint, muted)])]
        lines = [Strip([Segment(self._heading, muted)])]
        lines += [self._strip(part) for part in PARTS]
        at = LABEL + self._column(self.cells(self.part)[1])
        told = f"unit {self.unit}"
        # Left of the mark where there is no room right of it.
        text = f"{told} ▲".rjust(at + 1) if at + len(told) + 2 > width - NUMBER else f"{' ' * at}▲ {told}"
        lines.append(Strip([Segment(text, plain)]))
        return lines

    def _strip(self, part: Part) -> Strip:
        layer, chosen = self._layers[self._depth], part == self.part
        scale, (values, units) = scale_of(layer, part), self.cells(part)
        label = f"{'▸' if chosen else ' '}{part:<9} {'0–1' if part in GATES else f'±{scale:.2f}'}"
        name = "gate-strips--chosen" if chosen else "gate-strips--plain"
        segments = [Segment(f"{label:<{LABEL}}", self.get_component_rich_style(name))]
        cursor = self._column(units)
        for column, value in enumerate(values.tolist()):
            symbol = glyph(value, part, scale)
            # Colour for the chosen strip alone: it is calmer, and each change of colour takes 40 bytes.
            kind = "gate" if part in GATES or not chosen else "negative" if value < 0 else "positive"
            names = ["gate-strips--muted" if chosen and symbol == ZERO else f"gate-strips--{kind}"]
            if chosen and column == cursor:
                names.append("gate-strips--cursor")
            segments.append(Segment(symbol, self.get_component_rich_style(*names)))
        number = f"{float(layer.part(part)[self._time, self.unit]):{'8.3f' if part in GATES else '+8.3f'}}"
        gap = " " * (self._room - len(units))
        return Strip(
            [*segments, Segment(gap, self.rich_style), Segment(number, self.get_component_rich_style(name))]
        ).simplify()

    def _column(self, units: Units) -> int:
        """The cell that stands for the cursor's unit."""
        return self.unit // self.bin - int(units[0]) // self.bin

    # The cursor

    def move_to(self, unit: int, part: Part) -> None:
        """Put the cursor on a unit of a part."""
        if not self._layers:
            return
        window, rows = self._window, {1 + PARTS.index(self.part), 1 + PARTS.index(part), len(PARTS) + 1}
        self.unit, self.part = max(0, min(unit, self._units - 1)), part
        if self._window == window:
            # The same cells: paint the two strips anew, and the numbers.
            self._lines = []
            width = self.size.width
            self.refresh(Region(width - NUMBER, 1, NUMBER, len(PARTS)), *(Region(0, row, width, 1) for row in rows))
        else:
            self.redraw()
        self.post_message(self.Moved())

    def action_unit(self, steps: int) -> None:
        """So many units to the right, or left."""
        self.move_to(self.unit + steps, self.part)

    def action_tenth(self, steps: int) -> None:
        """A tenth of the layer to the right, or left."""
        if self._layers:
            self.action_unit(steps * max(1, self._units // 10))

    def action_part(self, steps: int) -> None:
        """To the part below, or above."""
        self.move_to(self.unit, PARTS[max(0, min(PARTS.index(self.part) + steps, len(PARTS) - 1))])

    def action_most(self) -> None:
        """To the unit of this part with the largest value, whatever its sign."""
        if self._layers:
            values = self._layers[self._depth].part(self.part)[self._time]
            self.move_to(int(np.abs(values).argmax()), self.part)

    def action_zoom(self) -> None:
        """A cell a unit, or all units at once."""
        self._zoomed = not self._zoomed
        self.redraw()
        self.post_message(self.Moved())

    def on_resize(self) -> None:
        """A cell may stand for more units, or fewer."""
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        """To the unit that the cell under the pointer shows."""
        place = event.get_content_offset(self)
        if place is None or not self._layers or not 1 <= place.y <= len(PARTS):
            return
        part = PARTS[place.y - 1]
        _, units = self.cells(part)
        column = place.x - LABEL
        self.move_to(int(units[column]) if 0 <= column < len(units) else self.unit, part)
