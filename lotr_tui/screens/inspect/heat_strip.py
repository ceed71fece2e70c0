"""Heat strips: rows of values over the same items, such as attention weights over a text or gates over units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events, message
from textual.binding import BindingType
from textual.geometry import Size
from textual.strip import Strip

from engine.data.arrays import Float32Array, Int64Array
from lotr_tui.formatting import BLOCK_HEIGHTS, fit_cells, format_percent
from lotr_tui.screens.inspect.text_view import DIFFERENCES
from lotr_tui.widgets.drawing import StripWidget, join_fitting
from lotr_tui.widgets.keys import binding_table

MAX_NAME_WIDTH = 12  # maximum width in cells of the name of an item
VALUE_WIDTH = 9
AT_CURSOR = "at ▲"  # the item of the numbers on the right
MAX_SHOWN_ROWS = 14  # at once, if there is room; the others are reached with the cursor
THRESHOLDS = (0.02, 0.1, 0.25, 0.5)  # weights from which a cell has the next darker shade
SHADES = " ░▒▓█"  # characters for weights below and from each of `THRESHOLDS`
POSITIVE_CHARS, ZERO_CHAR, NEGATIVE_CHARS = "▂▄▆█", "·", "-░▒▓"

Kind = Literal["weight", "gate", "signed"]
"""Weights are shaded, gates from 0 to 1 are blocks, and other values show their sign."""


class Shading(NamedTuple):
    """Styles of the words by a value in bits."""

    title: str
    styles: tuple[str, ...]
    thresholds: tuple[float, ...]  # bits that separate the styles
    legend: tuple[str, ...]  # meaning of each style

    def style_of(self, value: float) -> str:
        return self.styles[int(np.digitize(value, self.thresholds))]


DIFFERENCE_SHADING = Shading(
    "difference: ", DIFFERENCES, (-3.0, -1.0, 1.0, 3.0), ("lost 3 bits", "1", "even", "1", "gained 3 bits")
)


def shade_levels(weights: Float32Array) -> npt.NDArray[np.intp]:
    """Return the index in `SHADES` of each weight, in an array of the same shape."""
    return np.digitize(weights, THRESHOLDS)


def value_char(value: float, kind: Kind, scale: float) -> str:
    """Return the character for a value; `scale` is the value of a full cell."""
    if kind == "weight":
        return SHADES[int(np.digitize(value, THRESHOLDS))]
    if kind == "gate":
        return BLOCK_HEIGHTS[max(0, min(int(value * len(BLOCK_HEIGHTS)), len(BLOCK_HEIGHTS) - 1))]
    level = min(round(abs(value) / scale * len(POSITIVE_CHARS)), len(POSITIVE_CHARS))
    return ZERO_CHAR if not level else (POSITIVE_CHARS if value > 0 else NEGATIVE_CHARS)[level - 1]


@dataclass(frozen=True)
class StripColumns:
    """Columns from left to right. Without names, several items may share a column."""

    first_positions: Int64Array  # first item of each column: `[columns]`
    end_position: int
    widths: tuple[int, ...]  # width of each column in cells: `[columns]`
    names: tuple[str, ...] = ()  # name of each column, which stands for one item then; empty if names do not fit

    @property
    def gap(self) -> int:
        """Number of blank cells after each column."""
        return 1 if self.names else 0

    @property
    def sizes(self) -> Int64Array:
        """Number of items of each column: `[columns]`."""
        sizes: Int64Array = np.diff(self.first_positions, append=self.end_position)
        return sizes

    @property
    def edges(self) -> Int64Array:
        """First cell of each column, and the one after the last column: `[columns + 1]`."""
        edges: Int64Array = np.cumsum([0, *(width + self.gap for width in self.widths)])
        return edges

    def column_of(self, position: int) -> int | None:
        """Return the column of an item, or None if no column stands for it."""
        if not self.first_positions[0] <= position < self.end_position:
            return None
        return int(np.searchsorted(self.first_positions, position, side="right")) - 1

    def column_at(self, cell: int) -> int | None:
        """Return the column that covers a cell or the gap after it, or None if there is none."""
        column = int(np.searchsorted(self.edges, cell, side="right")) - 1
        return column if 0 <= column < len(self.widths) else None

    def reduce(self, values: Float32Array, kind: Kind = "weight") -> Float32Array:
        """Return the value of each column `[columns]`, given the values of the items from the first one on.

        Items without a value count as 0. The value of several items is the mean of a gate, the largest weight, or the
        value with the largest absolute value: signed values would cancel out in a mean.
        """
        padded = np.zeros(max(len(values), self.end_position), np.float32)
        padded[: len(values)] = values
        padded, first = padded[: self.end_position], self.first_positions
        if kind == "gate":
            means: Float32Array = (np.add.reduceat(padded, first) / self.sizes).astype(np.float32)
            return means
        highest, lowest = np.maximum.reduceat(padded, first), np.minimum.reduceat(padded, first)
        strongest: Float32Array = np.where(highest >= -lowest, highest, lowest)
        return strongest

    def largest_position(self, column: int, values: Float32Array) -> int:
        first = int(self.first_positions[column])
        values = values[first : first + int(self.sizes[column])]
        return first + (int(np.abs(values).argmax()) if len(values) else 0)


def even_columns(num_items: int, num_cells: int, first: int = 0) -> StripColumns:
    """Distribute items from `first` on over all cells: several items per column of one cell, or wider columns."""
    items = np.arange(num_cells) * num_items // num_cells
    if num_items >= num_cells:
        return StripColumns(first + items, first + num_items, (1,) * num_cells)
    return StripColumns(first + np.arange(num_items), first + num_items, tuple(np.bincount(items).tolist()))


def named_columns(names: Sequence[str], num_cells: int, first: int, cursor: int) -> StripColumns:
    """Return as many columns with names as fit: those from item `first` on if `cursor` is among them.

    Otherwise the columns are scrolled the shortest distance that brings `cursor` into view.
    """
    widths = [min(MAX_NAME_WIDTH, max(1, cell_len(name))) for name in names]
    first = min(first, cursor)
    while first < cursor and sum(widths[first : cursor + 1]) + cursor - first > num_cells:
        first += 1
    end, used = first, -1
    while end < len(names) and (end == first or used + 1 + widths[end] <= num_cells):
        used += 1 + widths[end]
        end += 1
    # Fill the space that a shorter row leaves at the end.
    while end == len(names) and first > 0 and used + 1 + widths[first - 1] <= num_cells:
        first -= 1
        used += 1 + widths[first]
    shown = tuple(fit_cells(names[i], widths[i]) for i in range(first, end))
    return StripColumns(np.arange(first, end), end, tuple(widths[first:end]), shown)


@dataclass(frozen=True)
class StripRow:
    """A row: the values of the first items, and how they are drawn."""

    label: str
    values: Float32Array
    kind: Kind = "weight"
    scale: float = 1.0
    is_marked: bool = False


class HeatStrips(StripWidget, can_focus=True):
    """Rows with a cursor on one item of one row, over the full width.

    If the names of all items fit, each column has the name of its item. Otherwise the strips show all items without
    names until the user zooms in.
    """

    DEFAULT_CSS = """
    HeatStrips {
        height: auto; padding: 0 1;
        & > .heat-strips--plain { color: $foreground; }
        & > .heat-strips--muted { color: $muted; text-style: $muted-style; }
        & > .heat-strips--selected { color: $foreground; text-style: bold; }
        &:focus > .heat-strips--selected { color: $accent; text-style: bold; }
        & > .heat-strips--weight { color: $foreground 60%; }
        & > .heat-strips--strong { color: $accent; }
        & > .heat-strips--gate { color: $foreground 80%; }
        & > .heat-strips--positive { color: $success; }
        & > .heat-strips--negative { color: $error; }
        & > .heat-strips--cursor { background: $accent 30%; text-style: underline; }
        & > .heat-strips--name { text-style: bold underline; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"heat-strips--{name}"
        for name in ["plain", "muted", "selected", "weight", "strong", "gate", "positive", "negative", "cursor", "name"]
    }
    BINDING_GROUP_TITLE = "Strips"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "heat-strips",
        """
        left      | left     | step(0, -1)   | left        | The item on the left
        right     | right    | step(0, 1)    | right       | The item on the right
        up        | up       | step(-1, 0)   | row above   | The row above
        down      | down     | step(1, 0)    | row below   | The row below
        page-up   | pageup   | jump(-0.1)    | tenth left  | A tenth of the items left
        page-down | pagedown | jump(0.1)     | tenth right | A tenth of the items right
        first     | home     | jump(-1)      | first       | The first item
        last      | end      | jump(1)       | last        | The last item
        largest   | g        | go_to_largest | greatest    | The item with the greatest absolute value of the row
        zoom      | z        | toggle_zoom   | zoom        | All items, or as many as can be told apart
        """,
    )
    ALLOW_SELECT = False

    class CursorMoved(message.Message):
        """Posted when the cursor has moved or the columns may have changed."""

    def __init__(
        self,
        label_width: int,
        get_help_line: Callable[[], str],
        label_of: Callable[[int], str],
        *,
        first_label: str = "",
        is_zoomed: bool = False,
    ) -> None:
        """Show rows with labels of `label_width` cells; `label_of` names the item under the cursor below them.

        `first_label` stands above the strips where the names of the items do not fit; without it, items have no names.
        """
        super().__init__(id="strips")
        self.get_help_line = get_help_line
        self._label_width, self._label_of = label_width, label_of
        self._first_label, self._is_zoomed = first_label, is_zoomed
        self._num_heading_lines = 2 if first_label else 1
        self.rows: Sequence[StripRow] = ()
        self._message = ""  # while there are no rows
        self._names: Sequence[str] = ()
        self._heading: Sequence[str] = ()
        self._first_named = 0  # first item that columns with names show
        self._first_row = 0  # first shown row
        self.row = self.item = 0

    def show(self, rows: Sequence[StripRow], heading: Sequence[str], names: Sequence[str] = ()) -> None:
        """Show rows below a heading, whose last parts are left out where they do not fit."""
        is_first = not self.rows
        self.rows, self._heading, self._names = rows, heading, names
        self.row, self.item = min(self.row, len(rows) - 1), min(self.item, self.num_items - 1)
        if is_first:
            self._lines = []
            self.refresh(layout=True)
        else:
            self.redraw_changes()

    def show_message(self, message: str) -> None:
        self.rows, self._message = (), message
        self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return self._num_heading_lines + min(len(self.rows), MAX_SHOWN_ROWS) + 1

    @property
    def num_items(self) -> int:
        """Number of items that have a value; others have a name only."""
        return len(self.rows[0].values) if self.rows else 0

    @property
    def num_cells(self) -> int:
        return max(1, self.size.width - self._label_width - VALUE_WIDTH)

    def visible_rows(self) -> range:
        """Return the indices of the shown rows, the one with the cursor among them."""
        room = max(1, min(len(self.rows), self.size.height - self._num_heading_lines - 1))
        self._first_row = min(max(self._first_row, self.row - room + 1), self.row, len(self.rows) - room)
        return range(self._first_row, self._first_row + room)

    def columns(self) -> StripColumns:
        """Return the columns: with names if all fit or if zoomed in, or else of all items."""
        num_items, num_cells = len(self._names) or self.num_items, self.num_cells
        if self._names:
            named = named_columns(self._names, num_cells, self._first_named, self.item)
            if self._is_zoomed or len(named.names) == num_items:
                self._first_named = int(named.first_positions[0])
                return named
        elif self._is_zoomed and num_items > num_cells:  # one item per cell: the page with the cursor
            first = min(self.item // num_cells * num_cells, num_items - num_cells)
            return even_columns(num_cells, num_cells, first)
        return even_columns(num_items, num_cells)

    # Painting

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self.rows:
            return [Strip([Segment(self._message, self._style("muted"))])]
        columns = self.columns()
        lines = [Strip([Segment(join_fitting(self._heading, width), self._style("muted"))])]
        if self._first_label:
            names = self._draw_names(columns).adjust_cell_length(self.size.width - len(AT_CURSOR))
            lines.append(Strip.join([names, Strip([Segment(AT_CURSOR, self._style("muted"))])]))
        lines += [self._draw_row(index, columns) for index in self.visible_rows()]
        cell = self._label_width
        if (column := columns.column_of(self.item)) is not None:
            cell += int(columns.edges[column]) + columns.widths[column] // 2
        label = self._label_of(self.item)
        pointer = f"{' ' * cell}▲ {label}" if cell + cell_len(label) + 2 <= width else f"{label} ▲".rjust(cell + 1)
        return [*lines, Strip([Segment(pointer, self.rich_style)])]

    def _draw_names(self, columns: StripColumns) -> Strip:
        plain, muted = self._style("plain"), self._style("muted")
        segments = [Segment(" " * self._label_width, plain)]
        if not columns.names:
            return Strip([*segments, Segment(self._first_label, muted)])
        for name, item in zip(columns.names, columns.first_positions.tolist(), strict=True):
            style = plain if item < self.num_items else muted
            segments += [
                Segment(name, self._style("plain", "name") if item == self.item else style),
                Segment(" ", plain),
            ]
        return Strip(segments)

    def _draw_row(self, index: int, columns: StripColumns) -> Strip:
        row, is_selected = self.rows[index], index == self.row
        label = f"{'▸' if is_selected else '•' if row.is_marked else ' '}{row.label:<{self._label_width - 1}}"
        label_style = self._style("selected" if is_selected else "plain")
        cursor = columns.column_of(self.item) if is_selected else None
        chars = [value_char(value, row.kind, row.scale) for value in columns.reduce(row.values, row.kind).tolist()]
        cells = [
            (_cell_style(char, row.kind, is_selected), column == cursor, char * width)
            for column, (char, width) in enumerate(zip(chars, columns.widths, strict=True))
        ]
        gap = " " * columns.gap
        segments = [Segment(label, label_style)]
        # Cells of one style are one segment: each change of colour costs 40 bytes over SSH.
        for (name, is_cursor), group in groupby(cells, key=lambda cell: cell[:2]):
            style = self._style(name, "cursor") if is_cursor else self._style(name)
            segments += [Segment(gap.join(text for _, _, text in group), style), Segment(gap, self._style("weight"))]
        value = float(row.values[self.item])
        number = format_percent(value) if row.kind == "weight" else f"{value:{'+' * (row.kind == 'signed')}.3f}"
        room = VALUE_WIDTH + self.num_cells - int(columns.edges[-1])
        return Strip([*segments, Segment(f"{number:>{room}}", label_style)])

    def _style(self, *names: str) -> Style:
        return self.get_component_rich_style(*(f"heat-strips--{name}" for name in names))

    # Cursor

    def move_cursor(self, row: int, item: int) -> None:
        if self.rows:
            self.row, self.item = max(0, min(row, len(self.rows) - 1)), max(0, min(item, self.num_items - 1))
            self.post_message(self.CursorMoved())

    def action_step(self, rows: int, items: int) -> None:
        self.move_cursor(self.row + rows, self.item + items)

    def action_jump(self, fraction: float) -> None:
        step = max(1, int(self.num_items * abs(fraction)))
        self.action_step(0, step if fraction > 0 else -step)

    def action_go_to_largest(self) -> None:
        if self.rows:
            self.move_cursor(self.row, int(np.abs(self.rows[self.row].values).argmax()))

    def action_toggle_zoom(self) -> None:
        self._is_zoomed = not self._is_zoomed
        self.post_message(self.CursorMoved())

    def on_resize(self) -> None:
        self.post_message(self.CursorMoved())

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        rows = self.visible_rows() if self.rows else []
        if offset is None or not 0 <= (line := offset.y - self._num_heading_lines) < len(rows):
            return
        columns, values = self.columns(), self.rows[rows[line]].values
        column = columns.column_at(offset.x - self._label_width)
        self.move_cursor(rows[line], self.item if column is None else columns.largest_position(column, values))


def _cell_style(char: str, kind: Kind, is_selected: bool) -> str:
    if kind == "weight":
        return "strong" if char in SHADES[-2:] else "weight"
    # Only the selected strip is coloured: each change of colour costs 40 bytes over SSH.
    if kind == "gate" or not is_selected:
        return "gate"
    return "muted" if char == ZERO_CHAR else "positive" if char in POSITIVE_CHARS else "negative"
