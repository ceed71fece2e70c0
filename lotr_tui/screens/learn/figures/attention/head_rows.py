"""Rows of all heads of a Transformer: how much of each earlier word they take into the word under the cursor."""

from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from engine.data.arrays import Float32Array
from lotr_tui.formatting import SELECTED_MARK, truncate
from lotr_tui.learn.attention_line import describe_head, format_weight, strongest_earlier
from lotr_tui.screens.inspect.attention import AttentionReading
from lotr_tui.screens.inspect.heat_strip import SHADES, THRESHOLDS, StripColumns, named_columns, shade_levels
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.drawing import SEPARATOR, StripWidget

LABEL_WIDTH = 12
"""Width in cells of the name of a head, with the mark before it."""
STRONGEST_WIDTH = 7
"""Width in cells of the largest weight of an earlier word."""
STRONGEST_HEADING = ("most at", "earlier")
"""Heading of these weights, on two lines."""
MIN_COLUMN_WIDTH = 4
"""Minimum width in cells of a word, which is the width of a weight."""
MAX_WIDTH = 76
"""Width in cells up to which the largest weights move to the right."""
NUM_HEADING_LINES = 3
"""Lines above the heads: a sentence, the words, and the weights of the selected head."""


class HeadRows(StripWidget, can_focus=True):
    """All heads of all layers, one row each, with a column for each word; one head and one word are selected.

    The word looks back: its column and those before it have weights, which sum to 1.
    """

    DEFAULT_CSS = """
    HeadRows { height: 1fr; padding: 0 1; }
    HeadRows > .head-rows--plain { color: $foreground; }
    HeadRows > .head-rows--muted { color: $muted; text-style: $muted-style; }
    HeadRows > .head-rows--bold { color: $foreground; text-style: bold; }
    HeadRows > .head-rows--selected { color: $foreground; text-style: bold; }
    HeadRows:focus > .head-rows--selected { color: $accent; text-style: bold; }
    HeadRows > .head-rows--weight { color: $foreground 60%; }
    HeadRows > .head-rows--strong { color: $accent; }
    HeadRows > .head-rows--word { text-style: bold underline; }
    HeadRows:focus > .head-rows--word { text-style: bold reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"head-rows--{name}" for name in ("plain", "muted", "bold", "selected", "weight", "strong", "word")
    }
    BINDING_GROUP_TITLE = "Heads"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-attention",
        """
        left       | left     | step_word(-1)  | previous word | The word before
        right      | right    | step_word(1)   | next word     | The next word
        up         | up       | step_head(-1)  | head above    | The head above
        down       | down     | step_head(1)   | head below    | The head below
        layer-up   | pageup   | step_layer(-1) | layer before  | The same head of the layer before
        layer-down | pagedown | step_layer(1)  | next layer    | The same head of the next layer
        first      | home     | step_word(-99999) | first word | The first word of the line
        last       | end      | step_word(99999)  | last word  | The last word of the line
        """,
    )
    ALLOW_SELECT = False

    class CursorMoved(Message):
        """Posted when the student has selected another head or word."""

    class KeyHintClicked(Message):
        """Posted when the text at the right end of the first line is clicked."""

    def __init__(self, *, id: str | None = None) -> None:
        """Start without a line."""
        super().__init__(id=id)
        self._reading: AttentionReading | None = None
        self.head = 0
        """Index of the selected head, counted through all layers."""
        self.position = 0
        """Position of the word that looks back; 0 is the start of the text."""
        self.key_hint = ""
        """Text at the right end of the first line."""
        self._first_head = 0
        self._first_column = 0

    def get_help_line(self) -> str:
        """Return how to read the rows, and their keys."""
        return "Where each head looks from one word; ← → word, ↑ ↓ head, page keys: layer"

    def show(self, reading: AttentionReading | None) -> None:
        """Show the attention on a line, and select its last word; None if it has no word.

        The first time, a layer in the middle is selected, because the first layer often looks everywhere alike, and in
        it the head that looks most at an earlier word.
        """
        is_first = reading is not None and self._reading is None and not self.head
        self._reading = reading
        if reading is not None:
            self.position = len(reading.names) - 1
        if reading is not None and is_first:
            first = reading.num_layers // 2 * reading.num_heads
            strongest = [
                strongest_earlier(self._weights(first + head)) or (0, 0.0) for head in range(reading.num_heads)
            ]
            self.head = first + max(range(reading.num_heads), key=lambda head: strongest[head][1])
            self.refresh(layout=True)
            self.redraw()
        else:
            self.redraw_changes()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the lines of the headings, all heads and the legend."""
        return NUM_HEADING_LINES + max(1, self.num_heads) + 1

    # State

    @property
    def _names(self) -> Sequence[str]:
        return () if self._reading is None else self._reading.names

    @property
    def _heads_per_layer(self) -> int:
        return 1 if self._reading is None else self._reading.num_heads

    @property
    def num_heads(self) -> int:
        """Number of heads of all layers; 0 without a line."""
        return 0 if self._reading is None else self._reading.num_layers * self._reading.num_heads

    @property
    def selected_weights(self) -> Float32Array:
        """Weights `[positions]` of the selected head, from the start of the text to the selected word."""
        return self._weights(self.head)

    def _weights(self, head: int) -> Float32Array:
        assert self._reading is not None, "there is a line"
        layer, head_of_layer = divmod(head, self._heads_per_layer)
        weights: Float32Array = self._reading.record.weights[layer, head_of_layer, self.position, : self.position + 1]
        return weights

    def head_name(self, head: int) -> str:
        """Return the name of a head, with its layer."""
        layer, head_of_layer = divmod(head, self._heads_per_layer)
        return f"L{layer + 1} head {head_of_layer + 1}"

    def columns(self) -> StripColumns:
        """Return as many columns as fit, the selected word among them."""
        assert self._reading is not None, "there is a line"
        names = [set_cell_size(name, max(MIN_COLUMN_WIDTH, cell_len(name))) for name in self._reading.names]
        num_cells = max(1, self.size.width - LABEL_WIDTH - 1 - STRONGEST_WIDTH)
        columns = named_columns(names, num_cells, self._first_column, self.position)
        self._first_column = int(columns.first_positions[0])
        return columns

    @property
    def visible_heads(self) -> range:
        """Indices of the heads that are shown, the selected one among them."""
        room = max(1, min(self.num_heads, self.size.height - NUM_HEADING_LINES - 1))
        first = min(max(self._first_head, self.head - room + 1), self.head)
        self._first_head = max(0, min(first, self.num_heads - room))
        return range(self._first_head, self._first_head + room)

    # Painting

    def draw(self, width: int, height: int) -> list[Strip]:
        """Draw a sentence about the selected head, the words, its weights as numbers, all heads, and the legend."""
        if self._reading is None:
            return [Strip([Segment("Type a word; each head looks back from it.", self._style("muted"))])]
        columns = self.columns()
        weights = self.selected_weights
        lines = [
            self._draw_sentence(width),
            self._draw_names(columns),
            self._draw_numbers(columns, weights),
            *(self._draw_head(head, columns) for head in self.visible_heads),
        ]
        legend = "  ".join(f"{shade} {100 * least:.0f} %" for shade, least in zip(SHADES[1:], THRESHOLDS, strict=True))
        if notes := self._notes(columns, weights, width - cell_len(legend) - len(SEPARATOR)):
            legend += SEPARATOR + notes
        return [*lines, Strip([Segment(legend, self._style("muted"))])]

    def _draw_sentence(self, width: int) -> Strip:
        room = width - cell_len(self.key_hint)
        layer, head = divmod(self.head, self._heads_per_layer)
        sentence = describe_head(f"Layer {layer + 1}, head {head + 1}", self._names, self.selected_weights)
        text = set_cell_size(truncate(sentence, room - 1), room)
        return Strip([Segment(text, self._style("plain")), Segment(self.key_hint, self._style("muted"))])

    def _draw_names(self, columns: StripColumns) -> Strip:
        segments = [Segment("‹".rjust(LABEL_WIDTH - 1) if columns.first_positions[0] else " " * (LABEL_WIDTH - 1))]
        segments.append(Segment(" ", self._style("plain")))
        used = LABEL_WIDTH + sum(columns.widths) + len(columns.widths)
        for name, position in zip(columns.names, columns.first_positions.tolist(), strict=True):
            style = self._style("word" if position == self.position else "plain")
            if position == 0 or position > self.position:
                style = self._style("muted")
            segments += [Segment(name, style), Segment(" ", self._style("plain"))]
        return Strip([*segments, self._heading(STRONGEST_HEADING[0], used)])

    def _heading(self, text: str, used: int) -> Segment:
        """Return a line of the heading of the largest weights, after `used` cells."""
        return Segment(text.rjust(min(self.size.width, MAX_WIDTH) - used), self._style("muted"))

    def _draw_numbers(self, columns: StripColumns, weights: Float32Array) -> Strip:
        segments = [Segment(f" {'weight':<{LABEL_WIDTH - 1}}", self._style("muted"))]
        for width, position in zip(columns.widths, columns.first_positions.tolist(), strict=True):
            text = format_weight(float(weights[position])) if position <= self.position else ""
            is_strong = bool(text) and weights[position] >= THRESHOLDS[-2]
            style = self._style("bold" if is_strong else "plain")
            segments += [Segment(text.ljust(width), style), Segment(" ", self._style("plain"))]
        used = LABEL_WIDTH + sum(columns.widths) + len(columns.widths)
        return Strip([*segments, self._heading(STRONGEST_HEADING[1], used)])

    def _draw_head(self, head: int, columns: StripColumns) -> Strip:
        is_selected = head == self.head
        label_style = self._style("selected" if is_selected else "plain")
        weights = self._weights(head)
        segments = [
            Segment(f"{SELECTED_MARK if is_selected else ' '}{self.head_name(head):<{LABEL_WIDTH - 1}}", label_style)
        ]
        levels = shade_levels(columns.reduce(weights)).tolist()
        cells = [
            (level >= len(SHADES) - 2, SHADES[level] * width)
            for level, width in zip(levels, columns.widths, strict=True)
        ]
        # Cells of one style are one segment: each change of colour costs 40 bytes over SSH.
        for is_strong, group in groupby(cells, key=lambda cell: cell[0]):
            texts = "".join(f"{text} " for _, text in group)
            segments.append(Segment(texts, self._style("strong" if is_strong else "weight")))
        strongest = strongest_earlier(weights)
        text = "" if strongest is None else format_weight(strongest[1])
        used = sum(columns.widths) + len(columns.widths)
        room = min(self.size.width, MAX_WIDTH) - LABEL_WIDTH - used
        return Strip([*segments, Segment(text.rjust(room), label_style)])

    def _notes(self, columns: StripColumns, weights: Float32Array, room: int) -> str:
        """Return what the picture leaves out, as much as fits."""
        notes = []
        if hidden := int(columns.first_positions[0]):
            notes.append(f"‹ {hidden} before: {format_weight(float(weights[:hidden].sum()))}")
        heads = self.visible_heads
        if len(heads) < self.num_heads:
            notes.append(f"heads {heads.start + 1}-{heads.stop} of {self.num_heads}")
        while notes and cell_len(SEPARATOR.join(notes)) > room:
            notes.pop()
        return SEPARATOR.join(notes)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"head-rows--{name}")

    # Cursor

    def _move(self, head: int, position: int) -> None:
        if self._reading is None:
            return
        self.head = max(0, min(head, self.num_heads - 1))
        self.position = max(1, min(position, len(self._reading.names) - 1))
        self.redraw_changes()
        self.post_message(self.CursorMoved())

    def action_step_word(self, offset: int) -> None:
        """Select a word some words to the right."""
        self._move(self.head, self.position + offset)

    def action_step_head(self, offset: int) -> None:
        """Select a head some rows below."""
        self._move(self.head + offset, self.position)

    def action_step_layer(self, offset: int) -> None:
        """Select the same head of another layer."""
        head = self.head + offset * self._heads_per_layer
        if 0 <= head < self.num_heads:
            self._move(head, self.position)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Select the head below."""
        event.stop()
        self.action_step_head(1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Select the head above."""
        event.stop()
        self.action_step_head(-1)

    def on_resize(self) -> None:
        """Draw as many heads and words as fit now."""
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        """Select the clicked head, or the word whose name or weight is clicked."""
        offset = event.get_content_offset(self)
        if offset is None or self._reading is None:
            return
        if offset.y == 0 and offset.x >= self.size.width - cell_len(self.key_hint):
            self.post_message(self.KeyHintClicked())
        line = offset.y - NUM_HEADING_LINES
        heads = self.visible_heads
        if 0 <= line < len(heads):
            self._move(heads[line], self.position)
        elif -NUM_HEADING_LINES < line < 0:
            columns = self.columns()
            column = columns.column_at(offset.x - LABEL_WIDTH)
            if column is not None:
                self._move(self.head, int(columns.first_positions[column]))
