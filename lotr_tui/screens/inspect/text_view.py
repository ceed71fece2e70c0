"""Scrollable view of a text with a cursor on one of its words or tokens, in styles that an inspector chooses."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip

from lotr_tui.screens.inspect.page import Page, break_lines
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.line_list import LineScrollView

StyleOf = Callable[[int], Sequence[str]]
"""Function that returns the names of the styles of an item of a page; later ones take precedence."""
SHADES = ("level-1", "level-2", "level-3", "level-4")
DIFFERENCES = ("much-worse", "worse", "even", "better", "much-better")
DIFFERENCE_THRESHOLDS = (-3.0, -1.0, 1.0, 3.0)  # bits that separate the styles of `DIFFERENCES`
_STYLES = ("gap", "token", "label", "unknown", "cursor", "dim", "usual", "surprising", "strong", *SHADES, *DIFFERENCES)


def difference_style(bits: float) -> str:
    return DIFFERENCES[int(np.digitize(bits, DIFFERENCE_THRESHOLDS))]


class TextView(LineScrollView, can_focus=True):
    """The words or tokens of a page. Each style also differs in weight or underline, for terminals without colour."""

    DEFAULT_CSS = "TextView { overflow-y: auto; }"
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"text-view--{name}" for name in _STYLES}
    BINDING_GROUP_TITLE = "Text"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "text-view",
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

    class CursorMoved(Message):
        """Posted when the cursor has moved to another word or token."""

    class FocusChanged(Message):
        """Posted when the view gets or loses the focus, and with it its cursor."""

    def __init__(
        self,
        placeholder: str,
        help_line: str,
        style_of: StyleOf | None = None,
        gap_style_of: StyleOf = lambda index: ("gap",),
        *,
        id: str = "text",
    ) -> None:
        """Show `placeholder` until there is a text; `gap_style_of` is for the characters before an item."""
        super().__init__(id=id)
        self.HELP_LINE = help_line
        self._placeholder = placeholder
        self._style_of = style_of or self.default_styles
        self._gap_style_of = gap_style_of
        self._style_cache: dict[Sequence[str], Style] = {}
        self.page = Page.placeholder(placeholder)
        self._line_starts, self._line_ends = break_lines(self.page, 80)
        self.marks: Sequence[int] | None = None
        """Items to which the keys for the next and the previous one go; None for all."""
        self.cursor = 0  # index of the item under the cursor

    def show(self, page: Page, cursor: int = 0) -> None:
        """Show a page, with the cursor on the item nearest to `cursor`."""
        is_blank = not len(page.starts) and not len(page.skipped_spans)
        self.page = Page.placeholder(self._placeholder) if is_blank else page
        self.cursor = max(0, min(cursor, len(page.starts) - 1))
        self._rebreak_lines()

    def default_styles(self, index: int) -> tuple[str, ...]:
        return (*self.base_styles(index), "cursor") if self.is_under_cursor(index) else self.base_styles(index)

    def base_styles(self, index: int) -> tuple[str, ...]:
        return ("unknown",) if self.page.unknown_mask[index] else ("token",)

    def is_under_cursor(self, index: int) -> bool:
        """Return True for the item under the cursor, and for the other bytes of the same character."""
        return bool(self.page.starts[index] == self.page.starts[self.cursor])

    def styles_of(self, index: int) -> Sequence[str]:
        return self._style_of(index)

    # Painting

    def render_line(self, y: int) -> Strip:
        width, line = self.size.width, y + self.scroll_offset.y
        if line >= len(self._line_starts):
            return Strip.blank(width, self.rich_style)
        text, painted, line_end = self.page.text, int(self._line_starts[line]), int(self._line_ends[line])
        segments: list[Segment] = []
        first, last = self._items_on_line(line)
        for index in range(first, last):
            start, end = max(painted, int(self.page.starts[index])), min(line_end, int(self.page.ends[index]))
            segments += self._gap_segments(painted, start, index)
            segments.append(Segment(text[start:end], self._style(tuple(self._style_of(index)))))
            painted = end
        segments += self._gap_segments(painted, line_end, last)
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _gap_segments(self, start: int, end: int, index: int) -> list[Segment]:
        """Return the characters before item `index`; labels and unreadable characters have styles of their own."""
        text, style = self.page.text, self._style(tuple(self._gap_style_of(index)))
        special = []
        for spans, name in ((self.page.skipped_spans, "unknown"), (self.page.label_spans, "label")):
            first = int(np.searchsorted(spans[:, 1], start, side="right"))
            last = int(np.searchsorted(spans[:, 0], end, side="left"))
            special += [(int(span[0]), int(span[1]), name) for span in spans[first:last]]
        segments = []
        for special_start, special_end, name in sorted(special):
            segments.append(Segment(text[start : max(start, special_start)], style))
            segments.append(Segment(text[max(start, special_start) : min(end, special_end)], self._style((name,))))
            start = min(end, special_end)
        return [*segments, Segment(text[start:end], style)]

    def _style(self, names: tuple[str, ...]) -> Style:
        if names not in self._style_cache:
            self._style_cache[names] = self.get_component_rich_style(*(f"text-view--{name}" for name in names))
        return self._style_cache[names]

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._style_cache.clear()

    def on_resize(self) -> None:
        self._rebreak_lines()

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self.refresh()
        self.post_message(self.FocusChanged())

    # Positions

    def _rebreak_lines(self) -> None:
        for _ in range(2):  # the scroll bar comes and goes with the number of lines, and takes a column from them
            width = self.scrollable_content_region.width
            self._line_starts, self._line_ends = break_lines(self.page, max(1, width))
            self.virtual_size = Size(self.size.width, len(self._line_starts))
            if width == self.scrollable_content_region.width:
                break
        self._scroll_to_cursor()
        self.refresh()

    def _items_on_line(self, line: int) -> tuple[int, int]:
        """Return the first item that is on a line at least in part, and the index after the last one."""
        first = int(np.searchsorted(self.page.ends, self._line_starts[line], side="right"))
        return first, max(first, int(np.searchsorted(self.page.starts, self._line_ends[line], side="left")))

    def visible_items(self) -> tuple[int, int]:
        """Return the first visible item and the index after the last one."""
        top = min(self.scroll_offset.y, len(self._line_starts) - 1)
        bottom = min(top + max(1, self.size.height), len(self._line_starts)) - 1
        return self._items_on_line(top)[0], self._items_on_line(bottom)[1]

    def line_of(self, index: int) -> int:
        return int(np.searchsorted(self._line_starts, self.page.starts[index], side="right")) - 1

    def column_of(self, index: int) -> int:
        """Return the cell in which an item starts, counted from the start of its line."""
        return self._cell_offset(int(self.page.starts[index]), self.line_of(index))

    def _cell_offset(self, character: int, line: int) -> int:
        cells, line_start = self.page.cell_offsets, int(self._line_starts[line])
        return character - line_start if cells is None else int(cells[character] - cells[line_start])

    def _nearest_item(self, line: int, column: int) -> int | None:
        first, last = self._items_on_line(line)
        end_columns = [self._cell_offset(int(self.page.ends[index]), line) for index in range(first, last)]
        return first + min(sum(end <= column for end in end_columns), last - first - 1) if end_columns else None

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
            self.post_message(self.CursorMoved())

    def _scroll_to_cursor(self) -> None:
        self.scroll_to_line(self.line_of(self.cursor) if len(self.page.starts) else 0)

    def step_mark(self, direction: int) -> None:
        """Move the cursor to the next or previous one of `marks`."""
        if self.marks is None:
            self.action_step(direction)
            return
        marks = np.asarray(self.marks, np.intp)
        marks = marks[marks > self.cursor] if direction > 0 else marks[marks < self.cursor][::-1]
        if len(marks):
            self.move_cursor(int(marks[0]))

    def action_step(self, offset: int) -> None:
        self.move_cursor(self.cursor + offset)

    def action_step_line(self, direction: int) -> None:
        """Move the cursor to the next or previous line that has an item."""
        if len(self.page.starts):
            first, last = self._items_on_line(self.line_of(self.cursor))
            self._move_to_line_of(first - 1 if direction < 0 else last)

    def action_page(self, pages: int) -> None:
        if len(self.page.starts):
            line = self.line_of(self.cursor) + pages * max(1, self.size.height - 1)
            line_start = self._line_starts[max(0, min(line, len(self._line_starts) - 1))]
            self._move_to_line_of(int(np.searchsorted(self.page.starts, line_start, side="left")))

    def _move_to_line_of(self, index: int) -> None:
        """Move the cursor to the line of an item, and there to the item nearest to the current column."""
        index = max(0, min(index, len(self.page.starts) - 1))
        nearest = self._nearest_item(self.line_of(index), self.column_of(self.cursor))
        self.move_cursor(index if nearest is None else nearest)

    def action_step_to_end(self, direction: int) -> None:
        self.action_step(direction * len(self.page.starts))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and (line := offset.y + self.scroll_offset.y) < len(self._line_starts):
            self.move_cursor(self.cursor if (index := self._nearest_item(line, offset.x)) is None else index)
