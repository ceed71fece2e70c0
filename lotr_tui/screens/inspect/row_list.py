"""List whose rows an inspector draws: texts with the names of their styles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from textual.binding import BindingType
from textual.message import Message

from lotr_tui.widgets.line_list import LineList, line_bindings

Row = list[tuple[str, str]]  # texts and the names of their styles
DrawRow = Callable[[int, int], Row]  # function that returns a row, given its index and the width of the list
_STYLES = ("plain", "muted", "bar", "strong", "gate", "positive", "negative", "cursor")


class RowList(LineList):
    """Rows with a cursor on one of them, which is marked in front and in its first text.

    The screen moves the cursor: it answers `RowList.Selected` with `show`.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"row-list--{name}" for name in _STYLES}
    BINDINGS: ClassVar[list[BindingType]] = line_bindings("row-list")

    @dataclass
    class Selected(Message):
        """Posted when the cursor is to move to a row."""

        rows: "RowList"
        index: int

        @property
        def control(self) -> "RowList":
            return self.rows

    def __init__(self, title: str, help_line: str, *, id: str) -> None:
        super().__init__(id=id)
        self.BINDING_GROUP_TITLE = title
        self.HELP_LINE = help_line
        self._num_rows = 0
        self._draw: DrawRow = lambda index, width: []
        self._last_shown: tuple[int | None, int, list[Row]] | None = None
        self.cursor: int | None = None  # index of the row under the cursor, if there is one

    def show(self, num_rows: int, draw: DrawRow, cursor: int | None, *, follow: bool = True) -> None:
        """Show rows with the cursor on one, which is scrolled into view unless `follow` is False."""
        self._num_rows, self._draw, self.cursor = num_rows, draw, cursor
        self.update_virtual_size()
        self.scroll_to_line((cursor or 0) if follow else 0)
        before, self._last_shown = self._last_shown, self._visible_rows()
        if self._last_shown != before:
            self.refresh()

    def clear(self, message: str = "") -> None:
        """Show a message in place of the rows."""
        self.show(1 if message else 0, lambda index, width: [(message, "muted")], None)

    def _visible_rows(self) -> tuple[int | None, int, list[Row]]:
        top = self.scroll_offset.y
        visible = range(top, min(top + self.size.height, self._num_rows))
        return self.cursor, top, [self._draw(index, self.row_width) for index in visible]

    @property
    def row_width(self) -> int:
        return max(1, self.scrollable_content_region.width - 1)

    def line_count(self) -> int:
        return self._num_rows

    def line_segments(self, line: int) -> list[Segment]:
        is_cursor = line == self.cursor
        [(first, name), *others] = self._draw(line, self.row_width) or [("", "plain")]
        parts = [("▸" if is_cursor else " ") + first, "cursor" if is_cursor else name], *others
        return [Segment(text, self.get_component_rich_style(f"row-list--{style}")) for text, style in parts]

    @property
    def cursor_line(self) -> int | None:
        return (self.cursor or 0) if self._num_rows else None

    def select_line(self, line: int) -> None:
        if line != self.cursor:
            self.post_message(self.Selected(self, line))
