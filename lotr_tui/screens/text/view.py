"""A text set out on lines, with a cursor that goes from word to word."""

from typing import ClassVar

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lotr_tui.screens.text.layout import Page, break_lines


def cursor_bindings(name: str) -> list[BindingType]:
    """The keys of the cursor. Their ids, by which people put other keys in place, begin with `name`."""
    return [
        Binding("left", "step(-1)", "word before", id=f"{name}.left", show=False, tooltip="The word before"),
        Binding("right", "step(1)", "next word", id=f"{name}.right", show=False, tooltip="The next word"),
        Binding("up", "line(-1)", "line up", id=f"{name}.up", show=False, tooltip="A word of the line above"),
        Binding("down", "line(1)", "line down", id=f"{name}.down", show=False, tooltip="A word of the line below"),
        Binding("home", "first", "first word", id=f"{name}.first", show=False, tooltip="The first word of the text"),
        Binding("end", "last", "last word", id=f"{name}.last", show=False, tooltip="The last word of the text"),
        Binding("pageup", "page(-1)", "page up", id=f"{name}.page-up", show=False, tooltip="A page up"),
        Binding("pagedown", "page(1)", "page down", id=f"{name}.page-down", show=False, tooltip="A page down"),
    ]


class PageText(ScrollView, can_focus=True):
    """Words, each in the style that a subclass gives it; one is the cursor's. Only lines that are seen are painted."""

    DEFAULT_CSS = """
    PageText {
        padding: 0 1;
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-size-vertical: 1;
        scrollbar-background: $background;
        scrollbar-color: $border;
    }
    PageText > .page-text--between { color: $foreground 60%; }
    PageText > .page-text--word { color: $foreground; }
    PageText > .page-text--unknown { color: $secondary; text-style: italic; }
    PageText > .page-text--cursor { text-style: reverse; }
    PageText:focus > .page-text--cursor { text-style: bold reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "page-text--between",
        "page-text--word",
        "page-text--unknown",
        "page-text--cursor",
    }
    BINDINGS: ClassVar[list[BindingType]] = cursor_bindings("page-text")
    ALLOW_SELECT = False

    virtual_size: Reactive[Size] = Reactive(Size(0, 0))  # without `layout`, which the base class has

    class WordChosen(Message):
        """The cursor has gone to this word."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, hint: str, *, id: str | None = None) -> None:
        """Show `hint` where there is no text."""
        super().__init__(id=id)
        self._hint = hint
        self.page = Page.without_words(hint)
        self._starts, self._ends = break_lines(self.page, 80)
        self._styles: dict[str, Style] = {}
        self.cursor = 0
        """The word that more is told of."""

    def show(self, page: Page, cursor: int = 0) -> None:
        """Another text, or the same one with other marks."""
        self.page = page if len(page.starts) else Page.without_words(self._hint)
        self.cursor = max(0, min(cursor, len(page.starts) - 1))
        self._break()

    # What a subclass may say

    def style_names(self, index: int) -> list[str]:
        """The component classes of a word, one upon the other."""
        names = ["page-text--unknown" if self.page.words.unknown[index] else "page-text--word"]
        return [*names, "page-text--cursor"] if index == self.cursor else names

    def word_style(self, index: int) -> Style:
        """How a word is painted."""
        return self.component_style(self.style_names(index))

    def gap_style_names(self, index: int) -> list[str]:
        """Those of what stands before a word, or behind the last one."""
        return ["page-text--between"]

    # Painting

    def render_line(self, y: int) -> Strip:
        """The line at `y` of what is seen."""
        width, line = self.size.width, y + self.scroll_offset.y
        if line >= len(self._starts):
            return Strip.blank(width, self.rich_style)
        text, begin, end = self.page.text, int(self._starts[line]), int(self._ends[line])
        segments = []
        first, last = self._words_of(line)
        for index in range(first, last):
            start, stop = max(begin, int(self.page.starts[index])), min(end, int(self.page.ends[index]))
            segments.append(Segment(text[begin:start], self.component_style(self.gap_style_names(index))))
            segments.append(Segment(text[start:stop], self.word_style(index)))
            begin = stop
        segments.append(Segment(text[begin:end], self.component_style(self.gap_style_names(last))))
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def notify_style_update(self) -> None:
        """Colours have changed."""
        super().notify_style_update()
        self._styles.clear()

    def on_resize(self) -> None:
        """Lines break elsewhere; the cursor stays in sight."""
        self._break()

    def watch_virtual_size(self, size: Size) -> None:
        """The scroll bar shows how long it has become."""
        if self.styles.overflow_y == "auto":
            self.show_vertical_scrollbar = size.height > self.container_size.height > 0
        self.vertical_scrollbar.window_virtual_size = size.height

    def component_style(self, names: list[str]) -> Style:
        """The style of component classes, one upon the other."""
        key = " ".join(names)
        if key not in self._styles:
            self._styles[key] = self.get_component_rich_style(*names)
        return self._styles[key]

    # Where words stand

    def _break(self) -> None:
        self._starts, self._ends = break_lines(self.page, max(1, self.scrollable_content_region.width))
        self.virtual_size = Size(self.size.width, len(self._starts))
        self._into_sight()
        self.refresh()

    def _words_of(self, line: int) -> tuple[int, int]:
        """The words of which something stands on a line."""
        first = int(np.searchsorted(self.page.ends, self._starts[line], side="right"))
        return first, max(first, int(np.searchsorted(self.page.starts, self._ends[line], side="left")))

    def line_of(self, index: int) -> int:
        """The line that a word begins on."""
        return int(np.searchsorted(self._starts, self.page.starts[index], side="right")) - 1

    def _column(self, character: int, line: int) -> int:
        """Cells before a character on its line."""
        cells, begin = self.page.cells, int(self._starts[line])
        return character - begin if cells is None else int(cells[character] - cells[begin])

    def _nearest(self, line: int, column: int) -> int | None:
        """The word of a line at a column, or the nearest; None where it has none."""
        first, last = self._words_of(line)
        behind = [self._column(int(self.page.ends[index]), line) for index in range(first, last)]
        return first + min(sum(end <= column for end in behind), last - first - 1) if behind else None

    def word_at(self, x: int, y: int) -> int | None:
        """The word at, or nearest to, a place of what is seen; None where there is none on that line."""
        line = y + self.scroll_offset.y
        return self._nearest(line, x) if 0 <= line < len(self._starts) else None

    # The cursor

    def move_to(self, index: int) -> None:
        """Put the cursor on a word, and bring that into sight."""
        if not len(self.page.starts):
            return
        index = max(0, min(index, len(self.page.starts) - 1))
        lines = {self.line_of(self.cursor), self.line_of(index)}
        moved, self.cursor = index != self.cursor, index
        top = self.scroll_offset.y
        self._into_sight()
        if self.scroll_offset.y == top:
            # A word may go on on the line below.
            self.refresh(*(Region(0, line - top, self.size.width, 2) for line in lines))
        if moved:
            self.post_message(self.WordChosen(index))

    def _into_sight(self) -> None:
        line = self.line_of(self.cursor) if len(self.page.starts) else 0
        height = max(1, self.size.height)
        top = min(max(self.scroll_offset.y, line - height + 1), line)
        self.scroll_to(y=top, animate=False, immediate=True, force=True)

    def action_step(self, words: int) -> None:
        """So many words on, or back."""
        self.move_to(self.cursor + words)

    def action_line(self, lines: int) -> None:
        """To the next line with a word, above or below."""
        if len(self.page.starts):
            first, last = self._words_of(self.line_of(self.cursor))
            self._to_line_of(first - 1 if lines < 0 else last)

    def action_page(self, pages: int) -> None:
        """A page up or down."""
        if len(self.page.starts):
            line = self.line_of(self.cursor) + pages * max(1, self.size.height - 1)
            character = self._starts[max(0, min(line, len(self._starts) - 1))]
            self._to_line_of(int(np.searchsorted(self.page.starts, character, side="left")))

    def _to_line_of(self, index: int) -> None:
        """To the line of a word, in the column where the cursor is."""
        index = max(0, min(index, len(self.page.starts) - 1))
        column = self._column(int(self.page.starts[self.cursor]), self.line_of(self.cursor))
        nearest = self._nearest(self.line_of(index), column)
        self.move_to(index if nearest is None else nearest)

    def action_first(self) -> None:
        """To the first word."""
        self.move_to(0)

    def action_last(self) -> None:
        """To the last word."""
        self.move_to(len(self.page.starts) - 1)

    def on_click(self, event: events.Click) -> None:
        """To the word under the pointer."""
        place = event.get_content_offset(self)
        if place is not None and (index := self.word_at(place.x, place.y)) is not None:
            self.move_to(index)
