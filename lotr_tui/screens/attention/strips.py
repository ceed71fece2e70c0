"""Heat strips of the attention of one layer: a row per head, the positions that the model had read left to right."""

from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from engine.data.arrays import Float32Array
from lotr_tui.formatting import format_percent
from lotr_tui.screens.attention.reading import ROLLOUT, AttentionReading, HeadId, layer_rows
from lotr_tui.screens.attention.strip_columns import (
    SHADES,
    THRESHOLDS,
    StripColumns,
    even_columns,
    named_columns,
    shade_levels,
)
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.drawing import SEPARATOR, StripWidget, join_fitting, pointer_line

LABEL_WIDTH, VALUE_WIDTH = 12, 9
"""Width in cells of the label before a strip and of the weight after it."""
NUM_HEADING_LINES, NUM_FIXED_ROWS = 2, 2
"""Lines above the strips, and strips above the heads: attention rollout and the mean of the heads."""
MAX_SHOWN_HEADS = 12
"""Heads of a layer that are shown at once, if there is room for them; the others are reached with the cursor."""


def row_label(head_id: HeadId) -> str:
    """Return the label of a strip."""
    if head_id == ROLLOUT:
        return "all layers"
    return "mean" if head_id.head is None else f"head {head_id.head + 1}"


class AttentionStrips(StripWidget, can_focus=True):
    """Rows of attention rollout, of the mean of the heads, and of each head, with a cursor on a row and a position.

    If the names of all positions fit, each column has the name of its position. Otherwise the strips show all
    positions without names until the user zooms in.
    """

    DEFAULT_CSS = """
    AttentionStrips { height: auto; padding: 0 1; }
    AttentionStrips > .attention-strips--plain { color: $foreground; }
    AttentionStrips > .attention-strips--muted { color: $muted; text-style: $muted-style; }
    AttentionStrips > .attention-strips--selected { color: $foreground; text-style: bold; }
    AttentionStrips:focus > .attention-strips--selected { color: $accent; text-style: bold; }
    AttentionStrips > .attention-strips--weight { color: $foreground 60%; }
    AttentionStrips > .attention-strips--strong { color: $accent; }
    AttentionStrips > .attention-strips--cursor { background: $accent 30%; text-style: underline; }
    AttentionStrips > .attention-strips--name { text-style: bold underline; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"attention-strips--{name}" for name in ("plain", "muted", "selected", "weight", "strong", "cursor", "name")
    }
    BINDING_GROUP_TITLE = "Attention"
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "attention-strips",
            """
            left      | left     | step_position(-1) | position left  | The position on the left
            right     | right    | step_position(1)  | position right | The position on the right
            up        | up       | step_row(-1)      | head above     | The head above
            down      | down     | step_row(1)       | head below     | The head below
            page-up   | pageup   | jump(-1)          | tenth left     | A tenth of the positions left
            page-down | pagedown | jump(1)           | tenth right    | A tenth of the positions right
            first     | home     | step_to_end(-1)   | start          | The start of the text
            last      | end      | step_to_end(1)    | last           | The last position
            largest   | m        | go_to_largest     | largest        | The position with the largest weight
            """,
        ),
        Binding("z", "toggle_zoom", "zoom", id="attention-strips.zoom", tooltip="Columns with names, or all positions"),
    ]
    ALLOW_SELECT = False

    class CursorMoved(Message):
        """Posted when the cursor has moved or the columns may have changed."""

    def __init__(self, noun: str = "word", *, id: str | None = None) -> None:
        """Start without a text; `noun` is the noun for a token of the model."""
        super().__init__(id=id)
        self._noun = noun
        self._reading: AttentionReading | None = None
        self._rows: tuple[HeadId, ...] = ()
        self._weights: list[Float32Array] = []  # of each row, on the shown token
        self._heading: Sequence[str] = ()
        self._pinned: HeadId | None = None
        self.message = ""
        """Text shown while there is no attention."""
        self._is_zoomed = False
        self._first_named = 0  # first position that columns with names show
        self._first_head = 0  # first head that is shown
        self.row = 1
        """Index of the row under the cursor: 0 is attention rollout, 1 the mean of the heads, 2 the first head."""
        self.position = 0
        """Position of the text under the cursor."""

    def show(
        self,
        reading: AttentionReading,
        layer: int,
        token: int,
        heading: Sequence[str],
        *,
        pinned: HeadId | None = None,
        without_start: bool = False,
    ) -> None:
        """Show what a layer attends to when it predicts a token of the text; `heading` has parts for the first line.

        The last parts are left out where they do not fit. `pinned` is the head to mark. `without_start` leaves out the
        start of the text.
        """
        is_first = self._reading is None
        self._reading, self._heading, self._pinned = reading, heading, pinned
        self._rows = layer_rows(layer, reading.num_heads)
        self._weights = [reading.attended(row, token, without_start=without_start) for row in self._rows]
        self.row = min(self.row, len(self._rows) - 1)
        self.position = min(self.position, self.num_positions - 1)
        if is_first:
            self.refresh(layout=True)
            self._lines = []
        else:
            self.redraw_changes()

    def show_message(self, message: str) -> None:
        """Show a line in place of the strips."""
        self._reading, self._rows, self._weights, self.message = None, (), [], message
        self.redraw()

    def get_help_line(self) -> str:
        """Return the explanation of the row under the cursor."""
        if not self._rows:
            return ""
        head_id = self.head_id
        if head_id == ROLLOUT:
            text = "attention rollout"
        elif head_id.head is None:
            text = "mean of the heads"
        else:
            text = "where this head looks"
        return f"{text}; ← → {self._noun}, ↑ ↓ head, M largest"

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the lines of the heading, of all rows up to `MAX_SHOWN_HEADS` heads, and of the cursor."""
        num_heads = min(max(0, len(self._rows) - NUM_FIXED_ROWS), MAX_SHOWN_HEADS)
        return NUM_HEADING_LINES + NUM_FIXED_ROWS + num_heads + 1

    # State

    @property
    def head_id(self) -> HeadId:
        """Head of the row under the cursor."""
        return self._rows[self.row]

    @property
    def num_positions(self) -> int:
        """Number of positions that the model had read."""
        return len(self._weights[0]) if self._weights else 0

    @property
    def selected_weight(self) -> float:
        """Weight under the cursor."""
        return float(self._weights[self.row][self.position])

    @property
    def visible_heads(self) -> range:
        """Indices of the heads that are shown."""
        num_heads = len(self._rows) - NUM_FIXED_ROWS
        room = max(1, min(num_heads, self.size.height - NUM_HEADING_LINES - NUM_FIXED_ROWS - 1))
        head = max(0, self.row - NUM_FIXED_ROWS)
        first = min(max(self._first_head, head - room + 1), head) if self.row >= NUM_FIXED_ROWS else self._first_head
        self._first_head = max(0, min(first, num_heads - room))
        return range(self._first_head, self._first_head + room)

    def columns(self) -> StripColumns:
        """Return the columns: with names if all fit or if zoomed in, or else of all positions of the text."""
        assert self._reading is not None, "called while attention is shown"
        names, num_cells = self._reading.names[:-1], max(1, self.size.width - LABEL_WIDTH - VALUE_WIDTH)
        named = named_columns(names, num_cells, self._first_named, self.position)
        if self._is_zoomed or named.end_position - int(named.first_positions[0]) == len(names):
            self._first_named = int(named.first_positions[0])
            return named
        return even_columns(len(names), num_cells)

    # Painting

    def draw(self, width: int, height: int) -> list[Strip]:
        """Draw the heading, the names of the columns, the strips, and the position of the cursor below them."""
        if self._reading is None:
            return [Strip([Segment(self.message, self._style("muted"))])]
        columns = self.columns()
        heading = Strip([Segment(join_fitting(self._heading, width), self._style("muted"))])
        lines = [heading, self._draw_names(columns)]
        rows = [*range(NUM_FIXED_ROWS), *(NUM_FIXED_ROWS + head for head in self.visible_heads)]
        lines += [self._draw_strip(row, columns) for row in rows]
        return [*lines, self._draw_cursor(columns, width)]

    def _draw_names(self, columns: StripColumns) -> Strip:
        plain, muted = self._style("plain"), self._style("muted")
        if not columns.names:
            return Strip([Segment(" " * LABEL_WIDTH, plain), Segment("start of the text", muted)])
        segments = [Segment(" " * LABEL_WIDTH, plain)]
        for name, position in zip(columns.names, columns.first_positions.tolist(), strict=True):
            style = plain if position < self.num_positions else muted
            if position == self.position:
                style = self._style("plain", "name")
            segments += [Segment(name, style), Segment(" ", plain)]
        return Strip(segments)

    def _draw_strip(self, row: int, columns: StripColumns) -> Strip:
        is_selected = row == self.row
        head_id = self._rows[row]
        mark = "▸" if is_selected else "•" if head_id == self._pinned else " "
        label_style = self._style("selected" if is_selected else "plain")
        segments = [Segment(f"{mark}{row_label(head_id):<{LABEL_WIDTH - 1}}", label_style)]
        cursor = columns.column_of(self.position) if is_selected else None
        levels = shade_levels(columns.reduce(self._weights[row])).tolist()
        styles = [self._style("weight"), self._style("strong")]
        cells = [
            (column == cursor, level >= len(SHADES) - 2, SHADES[level] * columns.widths[column])
            for column, level in enumerate(levels)
        ]
        # Cells of one style are one segment: each change of colour costs 40 bytes over SSH.
        for (is_cursor, is_strong), group in groupby(cells, key=lambda cell: cell[:2]):
            style = styles[is_strong]
            if is_cursor:
                style += self._style("cursor")
            gap = " " * columns.gap
            texts = [text for _, _, text in group]
            segments.append(Segment(gap.join(texts), style))
            segments.append(Segment(gap, styles[0]))
        used = sum(columns.widths) + columns.gap * len(columns.widths)
        room = max(1, self.size.width - LABEL_WIDTH - VALUE_WIDTH)
        value = f"{format_percent(float(self._weights[row][self.position])):>{VALUE_WIDTH + room - used}}"
        return Strip([*segments, Segment(value, label_style)])

    def _draw_cursor(self, columns: StripColumns, width: int) -> Strip:
        assert self._reading is not None, "called while attention is shown"
        column = columns.column_of(self.position)
        cell = LABEL_WIDTH + (0 if column is None else columns.cell_of(column) + columns.widths[column] // 2)
        return Strip([Segment(pointer_line(self.position_label(self.position), cell, width), self.rich_style)])

    def position_label(self, position: int) -> str:
        """Return the name of a position and its distance to the predicted token."""
        assert self._reading is not None, "called while attention is shown"
        if position == 0:
            return "start of the text"
        distance = self.num_positions - position
        nouns = self._noun if distance == 1 else f"{self._noun}s"
        return f'"{self._reading.names[position]}" {distance:,} {nouns} back'

    def legend(self) -> tuple[str, str]:
        """Return the meaning of the shades, and notes about the heads and columns that fit."""
        if self._reading is None:
            return "", ""
        shades = "  ".join(
            f"{shade} {100 * weight:.0f} %" for shade, weight in zip(SHADES[1:], THRESHOLDS, strict=True)
        )
        notes, room = "", self.size.width - len(shades) - 2
        num_heads, heads = len(self._rows) - NUM_FIXED_ROWS, self.visible_heads
        if len(heads) < num_heads:
            notes = f"heads {heads.start + 1} to {heads.stop} of {num_heads}"
        if (count := self.columns().positions_per_column) > 1:
            separator = SEPARATOR if notes else ""
            for note in (
                f"up to {count} {self._noun}s per cell: the largest weight",
                f"{count} {self._noun}s per cell",
            ):
                if len(notes + separator + note) <= room:
                    notes += separator + note
                    break
        return shades, notes

    def _style(self, *names: str) -> Style:
        return self.get_component_rich_style(*(f"attention-strips--{name}" for name in names))

    # Cursor

    def move_cursor(self, row: int, position: int) -> None:
        """Move the cursor to the nearest row and position."""
        if self._reading is None:
            return
        self.row = max(0, min(row, len(self._rows) - 1))
        self.position = max(0, min(position, self.num_positions - 1))
        self.post_message(self.CursorMoved())

    def action_step_position(self, offset: int) -> None:
        """Move the cursor by a number of positions."""
        self.move_cursor(self.row, self.position + offset)

    def action_jump(self, direction: int) -> None:
        """Move the cursor by a tenth of the positions."""
        self.action_step_position(direction * max(1, self.num_positions // 10))

    def action_step_to_end(self, direction: int) -> None:
        """Move the cursor to the start of the text if `direction` is -1, or to the last position if it is 1."""
        self.action_step_position(direction * self.num_positions)

    def action_step_row(self, offset: int) -> None:
        """Move the cursor by a number of rows."""
        self.move_cursor(self.row + offset, self.position)

    def action_go_to_largest(self) -> None:
        """Move the cursor to the position with the largest weight of this row."""
        if self._weights:
            self.move_cursor(self.row, int(np.argmax(self._weights[self.row])))

    def action_toggle_zoom(self) -> None:
        """Show columns with names, or all positions at once."""
        self._is_zoomed = not self._is_zoomed
        self.post_message(self.CursorMoved())

    def on_resize(self) -> None:
        """Report that the columns may have changed."""
        self.post_message(self.CursorMoved())

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the clicked cell."""
        offset = event.get_content_offset(self)
        if offset is None or self._reading is None:
            return
        line = offset.y - NUM_HEADING_LINES
        heads = self.visible_heads
        if not 0 <= line < NUM_FIXED_ROWS + len(heads):
            return
        row = line if line < NUM_FIXED_ROWS else NUM_FIXED_ROWS + heads[line - NUM_FIXED_ROWS]
        columns = self.columns()
        column = columns.column_at(offset.x - LABEL_WIDTH)
        position = self.position if column is None else columns.largest_position(column, self._weights[row])
        self.move_cursor(row, position)
