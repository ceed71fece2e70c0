"""Scrollable view of a text with a cursor on one of its words or tokens."""

from typing import ClassVar

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip

from engine.data.arrays import Int32Array
from lotr_tui.screens.text.layout import Page, break_lines
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.line_list import LineScrollView


def cursor_bindings(id_prefix: str) -> list[BindingType]:
    """Return the keys that move the cursor, with binding ids that start with `id_prefix`."""
    return binding_table(
        id_prefix,
        """
        left      | left     | step(-1)        | previous word | The previous word
        right     | right    | step(1)         | next word     | The next word
        up        | up       | step_line(-1)   | line up       | A word of the line above
        down      | down     | step_line(1)    | line down     | A word of the line below
        first     | home     | step_to_end(-1) | first word    | The first word of the text
        last      | end      | step_to_end(1)  | last word     | The last word of the text
        page-up   | pageup   | page(-1)        | page up       | A page up
        page-down | pagedown | page(1)         | page down     | A page down
        """,
    )


class TokenTextView(LineScrollView, can_focus=True):
    """The words or tokens of a page, each in a style that a subclass can choose, with one of them under the cursor."""

    DEFAULT_CSS = """
    TokenTextView { overflow-y: auto; }
    TokenTextView > .token-text-view--gap { color: $muted; text-style: $muted-style; }
    TokenTextView > .token-text-view--token { color: $foreground; }
    TokenTextView > .token-text-view--label { color: $foreground; text-style: bold; }
    TokenTextView > .token-text-view--unknown { color: $secondary; text-style: italic; }
    TokenTextView > .token-text-view--cursor { text-style: reverse; }
    TokenTextView:focus > .token-text-view--cursor { text-style: bold reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"token-text-view--{name}" for name in ("gap", "token", "label", "unknown", "cursor")
    }
    BINDING_GROUP_TITLE = "Text"
    BINDINGS: ClassVar[list[BindingType]] = cursor_bindings("token-text-view")

    class TokenHighlighted(Message):
        """Posted when the cursor has moved to another word or token."""

    def __init__(self, placeholder: str, *, id: str | None = None) -> None:
        """Show `placeholder` until there is a text."""
        super().__init__(id=id)
        self._placeholder = placeholder
        self.page = Page.placeholder(placeholder)
        self._line_starts, self._line_ends = break_lines(self.page, 80)
        self._style_cache: dict[str, Style] = {}
        self.cursor = 0
        """Index of the word or token under the cursor."""

    def show(self, page: Page, cursor: int = 0) -> None:
        """Show a page, with the cursor on the item nearest to `cursor`."""
        is_blank = not len(page.starts) and not len(page.skipped_spans)
        self.page = Page.placeholder(self._placeholder) if is_blank else page
        self.cursor = max(0, min(cursor, len(page.starts) - 1))
        self._rebreak_lines()

    # Styles, which a subclass can choose

    def token_component_classes(self, index: int) -> list[str]:
        """Return the component classes of a word or token; later ones take precedence."""
        names = ["token-text-view--unknown" if self.page.unknown_mask[index] else "token-text-view--token"]
        return [*names, "token-text-view--cursor"] if self.is_under_cursor(index) else names

    def is_under_cursor(self, index: int) -> bool:
        """Return True for the item under the cursor, and for the other bytes of the same character."""
        return bool(self.page.starts[index] == self.page.starts[self.cursor])

    def token_style(self, index: int) -> Style:
        """Return the style of a word or token."""
        return self.component_style(self.token_component_classes(index))

    def gap_component_classes(self, index: int) -> list[str]:
        """Return the component classes of the characters before item `index`, or after the last item."""
        return ["token-text-view--gap"]

    # Painting

    def render_line(self, y: int) -> Strip:
        """Render the line at row `y` of the viewport."""
        width, line = self.size.width, y + self.scroll_offset.y
        if line >= len(self._line_starts):
            return Strip.blank(width, self.rich_style)
        text, painted, line_end = self.page.text, int(self._line_starts[line]), int(self._line_ends[line])
        segments: list[Segment] = []
        first, last = self._tokens_on_line(line)
        for index in range(first, last):
            start, end = max(painted, int(self.page.starts[index])), min(line_end, int(self.page.ends[index]))
            segments += self._gap_segments(painted, start, index)
            segments.append(Segment(text[start:end], self.token_style(index)))
            painted = end
        segments += self._gap_segments(painted, line_end, last)
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _gap_segments(self, start: int, end: int, index: int) -> list[Segment]:
        """Return the characters before item `index`; labels and unreadable characters have styles of their own."""
        text, style = self.page.text, self.component_style(self.gap_component_classes(index))
        if not len(self.page.skipped_spans) and not len(self.page.label_spans):
            return [Segment(text[start:end], style)]
        special = [
            (*span, name)
            for spans, name in ((self.page.skipped_spans, "unknown"), (self.page.label_spans, "label"))
            for span in _spans_between(spans, start, end)
        ]
        segments = []
        for special_start, special_end, name in sorted(special):
            segments.append(Segment(text[start : max(start, special_start)], style))
            special_style = self.component_style([f"token-text-view--{name}"])
            segments.append(Segment(text[max(start, special_start) : min(end, special_end)], special_style))
            start = min(end, special_end)
        return [*segments, Segment(text[start:end], style)]

    def notify_style_update(self) -> None:
        """Drop cached styles after a change of theme."""
        super().notify_style_update()
        self._style_cache.clear()

    def on_resize(self) -> None:
        """Break the lines for the new width and keep the cursor visible."""
        self._rebreak_lines()

    def component_style(self, component_classes: list[str]) -> Style:
        """Return the combined style of component classes, from a cache."""
        key = " ".join(component_classes)
        if key not in self._style_cache:
            self._style_cache[key] = self.get_component_rich_style(*component_classes)
        return self._style_cache[key]

    # Positions of words and tokens

    def _rebreak_lines(self) -> None:
        for _ in range(2):  # the scroll bar comes and goes with the number of lines, and takes a column from them
            width = self.scrollable_content_region.width
            self._line_starts, self._line_ends = break_lines(self.page, max(1, width))
            self.virtual_size = Size(self.size.width, len(self._line_starts))
            if width == self.scrollable_content_region.width:
                break
        self._scroll_to_cursor()
        self.refresh()

    def _tokens_on_line(self, line: int) -> tuple[int, int]:
        """Return the first item that is on a line at least in part, and the index after the last one."""
        first = int(np.searchsorted(self.page.ends, self._line_starts[line], side="right"))
        return first, max(first, int(np.searchsorted(self.page.starts, self._line_ends[line], side="left")))

    def visible_token_range(self) -> tuple[int, int]:
        """Return the first visible item and the index after the last one."""
        top = min(self.scroll_offset.y, len(self._line_starts) - 1)
        bottom = min(top + max(1, self.size.height), len(self._line_starts)) - 1
        return self._tokens_on_line(top)[0], self._tokens_on_line(bottom)[1]

    def line_of(self, index: int) -> int:
        """Return the line on which an item starts."""
        return int(np.searchsorted(self._line_starts, self.page.starts[index], side="right")) - 1

    def column_of(self, index: int) -> int:
        """Return the cell in which an item starts, counted from the start of its line."""
        return self._cell_offset(int(self.page.starts[index]), self.line_of(index))

    def _cell_offset(self, character: int, line: int) -> int:
        """Return the cells between the start of a line and a character."""
        cells, line_start = self.page.cell_offsets, int(self._line_starts[line])
        return character - line_start if cells is None else int(cells[character] - cells[line_start])

    def _nearest_token(self, line: int, column: int) -> int | None:
        """Return the item of a line nearest to a column, or None if the line has no item."""
        first, last = self._tokens_on_line(line)
        end_columns = [self._cell_offset(int(self.page.ends[index]), line) for index in range(first, last)]
        return first + min(sum(end <= column for end in end_columns), last - first - 1) if end_columns else None

    def token_at(self, x: int, y: int) -> int | None:
        """Return the item nearest to a cell of the viewport, or None if there is none on that line."""
        line = y + self.scroll_offset.y
        return self._nearest_token(line, x) if 0 <= line < len(self._line_starts) else None

    # Cursor

    def move_cursor(self, index: int) -> None:
        """Move the cursor to the item nearest to `index` and scroll it into view."""
        if not len(self.page.starts):
            return
        index = max(0, min(index, len(self.page.starts) - 1))
        lines = {self.line_of(self.cursor), self.line_of(index)}
        moved, self.cursor = index != self.cursor, index
        top = self.scroll_offset.y
        self._scroll_to_cursor()
        if self.scroll_offset.y == top:
            # A word may continue on the line below.
            self.refresh(*(Region(0, line - top, self.size.width, 2) for line in lines))
        if moved:
            self.post_message(self.TokenHighlighted())

    def _scroll_to_cursor(self) -> None:
        self.scroll_to_line(self.line_of(self.cursor) if len(self.page.starts) else 0)

    def action_step(self, offset: int) -> None:
        """Move the cursor by a number of items."""
        self.move_cursor(self.cursor + offset)

    def action_step_line(self, direction: int) -> None:
        """Move the cursor to the next or previous line that has an item."""
        if len(self.page.starts):
            first, last = self._tokens_on_line(self.line_of(self.cursor))
            self._move_to_line_of(first - 1 if direction < 0 else last)

    def action_page(self, pages: int) -> None:
        """Move the cursor by a number of pages."""
        if len(self.page.starts):
            line = self.line_of(self.cursor) + pages * max(1, self.size.height - 1)
            line_start = self._line_starts[max(0, min(line, len(self._line_starts) - 1))]
            self._move_to_line_of(int(np.searchsorted(self.page.starts, line_start, side="left")))

    def _move_to_line_of(self, index: int) -> None:
        """Move the cursor to the line of an item, and there to the item nearest to the current column."""
        index = max(0, min(index, len(self.page.starts) - 1))
        nearest = self._nearest_token(self.line_of(index), self.column_of(self.cursor))
        self.move_cursor(index if nearest is None else nearest)

    def action_step_to_end(self, direction: int) -> None:
        """Move the cursor to the first item if `direction` is -1, or to the last one if it is 1."""
        self.action_step(direction * len(self.page.starts))

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the clicked item."""
        offset = event.get_content_offset(self)
        if offset is not None and (index := self.token_at(offset.x, offset.y)) is not None:
            self.move_cursor(index)


def _spans_between(spans: Int32Array, start: int, end: int) -> list[tuple[int, int]]:
    """Return the spans that overlap the characters from `start` to `end`, given sorted spans `[spans, 2]`."""
    first = int(np.searchsorted(spans[:, 1], start, side="right"))
    last = int(np.searchsorted(spans[:, 0], end, side="left"))
    return [(int(span[0]), int(span[1])) for span in spans[first:last]]
