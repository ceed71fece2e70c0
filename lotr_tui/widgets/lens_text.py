"""A text with each word shaded by how little it was expected."""

from typing import ClassVar, Literal

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.lens import Reading
from lotr_tui.widgets.lens_page import UNKNOWN_MARKS, Page, break_lines

View = Literal["network", "Kneser-Ney", "difference"]
VIEWS: tuple[View, ...] = ("network", "Kneser-Ney", "difference")

BITS = (3.0, 6.0, 10.0)
"""Between the shades of surprise: a probability of 1/8, 1/64, 1/1024."""
DIFFERENCES = (-3.0, -1.0, 1.0, 3.0)
"""Between the shades of a difference, in bits that the network saves."""

_SURPRISE = ("lens--expected", "lens--usual", "lens--surprising", "lens--astonishing")
_DIFFERENCE = ("lens--much-worse", "lens--worse", "lens--even", "lens--better", "lens--much-better")


class LensText(ScrollView, can_focus=True):
    """Words shaded in steps of bits, each step with a cue that is no colour; one of them is the cursor's.

    Only the lines that are seen are painted, so a long text scrolls as a short one does.
    """

    DEFAULT_CSS = """
    LensText {
        padding: 0 1;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
        scrollbar-background: $background;
        scrollbar-color: $border;
    }
    LensText > .lens--between, LensText > .lens--unread { color: $foreground 60%; }
    LensText > .lens--expected { color: $foreground; text-style: dim; }
    LensText > .lens--usual { color: $foreground; }
    LensText > .lens--surprising { color: $foreground; background: $accent 20%; text-style: underline; }
    LensText > .lens--astonishing { color: $foreground; background: $accent 50%; text-style: bold underline; }
    LensText > .lens--unknown { color: $secondary; text-style: italic; }
    LensText > .lens--even { color: $foreground; text-style: dim; }
    LensText > .lens--better { color: $foreground; background: $success 20%; text-style: underline; }
    LensText > .lens--much-better { color: $foreground; background: $success 45%; text-style: bold underline; }
    LensText > .lens--worse { color: $foreground; background: $error 20%; }
    LensText > .lens--much-worse { color: $foreground; background: $error 45%; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "lens--between",
        "lens--unread",
        "lens--unknown",
        *_SURPRISE,
        *_DIFFERENCE,
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "word before", id="lens-text.left", show=False, tooltip="The word before"),
        Binding("right", "step(1)", "next word", id="lens-text.right", show=False, tooltip="The next word"),
        Binding("up", "line(-1)", "line up", id="lens-text.up", show=False, tooltip="A word of the line above"),
        Binding("down", "line(1)", "line down", id="lens-text.down", show=False, tooltip="A word of the line below"),
        Binding("pageup", "page(-1)", "page up", id="lens-text.page-up", show=False, tooltip="A page up"),
        Binding("pagedown", "page(1)", "page down", id="lens-text.page-down", show=False, tooltip="A page down"),
        Binding("home", "first", "first word", id="lens-text.first", show=False, tooltip="The first word of the text"),
        Binding("end", "last", "last word", id="lens-text.last", show=False, tooltip="The last word of the text"),
        Binding("n", "surprise(1)", "surprise", id="lens-text.next", tooltip="The next word of the strongest shade"),
        Binding(
            "p", "surprise(-1)", "surprise before", id="lens-text.previous", show=False, tooltip="The strongest before"
        ),
    ]
    ALLOW_SELECT = False

    virtual_size: Reactive[Size] = Reactive(Size(0, 0))  # without `layout`, which the base class has

    class WordChosen(Message):
        """The cursor has gone to another word, or what is known of it has changed."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, hint: str, *, id: str | None = None) -> None:
        """Show `hint` where there is no text."""
        super().__init__(id=id)
        self._hint = hint
        self._page = Page.without_words(hint)
        self._network: Reading | None = None
        self._kneser_ney: Reading | None = None
        self._starts, self._ends = break_lines(self._page, 80)
        self._view: View = "network"
        self._styles: dict[str, Style] = {}
        self._seen = 0  # words read when last painted
        self.cursor = 0
        """The word that more is told of."""

    # What is shown

    def show(self, page: Page, network: Reading, *, cursor: int | None = None) -> None:
        """Another text, of which `network` is the reading; the cursor stays where it can."""
        self._page = page if len(page.starts) else Page.without_words(self._hint)
        self._network, self._kneser_ney = network, None
        self.cursor = max(0, min(self.cursor if cursor is None else cursor, len(page.starts) - 1))
        self._break()
        self.read_on()

    def compare(self, kneser_ney: Reading) -> None:
        """The other model's reading of the same text."""
        self._kneser_ney = kneser_ney
        self.read_on()

    def read_on(self) -> None:
        """The readings have gone on: paint what of it is seen."""
        first, last = self._seen_words()
        done = min((reading.done for reading in self._shown_readings()), default=0)
        if (self._seen < last and done > first) or done < self._seen:
            self.refresh()
        self._seen = done

    @property
    def view(self) -> View:
        """What the shades mean."""
        return self._view

    @view.setter
    def view(self, view: View) -> None:
        self._view = view
        self._seen = 0
        self.refresh()

    def legend(self) -> Content:
        """The shades in words, each in its own."""
        if self._view == "difference":
            strong, weak = DIFFERENCES[-1], DIFFERENCES[-2]
            texts = [f"Kneser-Ney by {strong:g}", f"by {weak:g}", "even", f"by {weak:g}", f"network by {strong:g} bits"]
            parts = list(zip(texts, _DIFFERENCE, strict=True))
        else:
            low, middle, high = BITS
            texts = [f"under {low:g} bits", f"{low:g} to {middle:g}", f"{middle:g} to {high:g}", f"over {high:g}"]
            parts = list(zip(texts, _SURPRISE, strict=True))
        parts.append(("unknown".join(UNKNOWN_MARKS), "lens--unknown"))
        between: list[Content] = []
        for text, name in parts:
            between += [Content.styled(text, self.get_visual_style(name)), Content("  ")]
        return Content.assemble(*between[:-1])

    # Painting

    def render_line(self, y: int) -> Strip:
        """The line at `y` of what is seen."""
        width, line = self.size.width, y + self.scroll_offset.y
        if line >= len(self._starts):
            return Strip.blank(width, self.rich_style)
        text, begin, end = self._page.text, int(self._starts[line]), int(self._ends[line])
        between = self._style("lens--between")
        segments = []
        for index in range(*self._words_between(begin, end)):
            start, stop = max(begin, int(self._page.starts[index])), min(end, int(self._page.ends[index]))
            style = self._style(self._shade(index))
            if index == self.cursor:
                style += Style(reverse=True)
            segments += [Segment(text[begin:start], between), Segment(text[start:stop], style)]
            begin = stop
        segments.append(Segment(text[begin:end], between))
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
        self.vertical_scrollbar.window_virtual_size = size.height

    def _shade(self, index: int) -> str:
        """The component class of a word."""
        readings = self._shown_readings()
        if self._page.words.unknown[index]:
            return "lens--unknown"
        if not readings or any(index >= reading.done for reading in readings):
            return "lens--unread"
        bits = [-float(reading.scores[index]) / np.log(2) for reading in readings]
        if len(bits) == 2:
            return _DIFFERENCE[int(np.digitize(bits[1] - bits[0], DIFFERENCES))]
        return _SURPRISE[int(np.digitize(bits[0], BITS))]

    def _shown_readings(self) -> list[Reading]:
        """Those that the shades are of; none where one of them is not there."""
        wanted = {
            "network": [self._network],
            "Kneser-Ney": [self._kneser_ney],
            "difference": [self._network, self._kneser_ney],
        }[self._view]
        there = [reading for reading in wanted if reading is not None]
        return there if len(there) == len(wanted) else []

    def _style(self, name: str) -> Style:
        if name not in self._styles:
            self._styles[name] = self.get_component_rich_style(name)
        return self._styles[name]

    # Where words stand

    def _break(self) -> None:
        width = max(1, self.scrollable_content_region.width)
        self._starts, self._ends = break_lines(self._page, width)
        self.virtual_size = Size(self.size.width, len(self._starts))
        self._into_sight()
        self.refresh()

    def _words_between(self, begin: int, end: int) -> tuple[int, int]:
        """The words of which something stands from the character `begin` to before `end`."""
        first = int(np.searchsorted(self._page.ends, begin, side="right"))
        return first, max(first, int(np.searchsorted(self._page.starts, end, side="left")))

    def _seen_words(self) -> tuple[int, int]:
        top = min(self.scroll_offset.y, len(self._starts) - 1)
        bottom = min(top + max(1, self.size.height), len(self._starts)) - 1
        return self._words_between(int(self._starts[top]), int(self._ends[bottom]))

    def _line_of(self, index: int) -> int:
        return int(np.searchsorted(self._starts, self._page.starts[index], side="right")) - 1

    def _column(self, character: int, line: int) -> int:
        """Cells before a character on its line."""
        cells, begin = self._page.cells, int(self._starts[line])
        return character - begin if cells is None else int(cells[character] - cells[begin])

    def _nearest(self, line: int, column: int) -> int | None:
        """The word of a line at a column, or the nearest; None where it has none."""
        first, last = self._words_between(int(self._starts[line]), int(self._ends[line]))
        behind = [self._column(int(self._page.ends[index]), line) for index in range(first, last)]
        return first + min(sum(end <= column for end in behind), last - first - 1) if behind else None

    # The cursor

    def move_to(self, index: int) -> None:
        """Put the cursor on a word, and bring that into sight."""
        if not len(self._page.starts):
            return
        index = max(0, min(index, len(self._page.starts) - 1))
        lines = {self._line_of(self.cursor), self._line_of(index)}
        moved, self.cursor = index != self.cursor, index
        top = self.scroll_offset.y
        self._into_sight()
        if self.scroll_offset.y == top:
            # A word may go on on the line below.
            self.refresh(*(Region(0, line - top, self.size.width, 2) for line in lines))
        if moved:
            self.post_message(self.WordChosen(index))

    def _into_sight(self) -> None:
        line = self._line_of(self.cursor) if len(self._page.starts) else 0
        height = max(1, self.size.height)
        top = min(max(self.scroll_offset.y, line - height + 1), line)
        self.scroll_to(y=top, animate=False, immediate=True, force=True)

    def action_step(self, words: int) -> None:
        """So many words on, or back."""
        self.move_to(self.cursor + words)

    def action_line(self, lines: int) -> None:
        """To the next line with a word, above or below."""
        if len(self._page.starts):
            line = self._line_of(self.cursor)
            first, last = self._words_between(int(self._starts[line]), int(self._ends[line]))
            self._to_line_of(first - 1 if lines < 0 else last)

    def action_page(self, pages: int) -> None:
        """A page up or down."""
        if len(self._page.starts):
            line = self._line_of(self.cursor) + pages * max(1, self.size.height - 1)
            character = self._starts[max(0, min(line, len(self._starts) - 1))]
            self._to_line_of(int(np.searchsorted(self._page.starts, character, side="left")))

    def _to_line_of(self, index: int) -> None:
        """To the line of a word, in the column where the cursor is."""
        index = max(0, min(index, len(self._page.starts) - 1))
        column = self._column(int(self._page.starts[self.cursor]), self._line_of(self.cursor))
        nearest = self._nearest(self._line_of(index), column)
        self.move_to(index if nearest is None else nearest)

    def action_first(self) -> None:
        """To the first word."""
        self.move_to(0)

    def action_last(self) -> None:
        """To the last word."""
        self.move_to(len(self._page.starts) - 1)

    def action_surprise(self, direction: int) -> None:
        """To the next word of the strongest shade, or the one before."""
        readings = self._shown_readings()
        if not readings:
            return
        done = min(reading.done for reading in readings)
        bits = [-reading.scores[:done] / np.log(2) for reading in readings]
        strong = np.abs(bits[1] - bits[0]) >= DIFFERENCES[-1] if len(bits) == 2 else bits[0] >= BITS[-1]
        found = np.flatnonzero(strong & ~readings[0].words.unknown[:done])
        found = found[found > self.cursor] if direction > 0 else found[found < self.cursor][::-1]
        if len(found):
            self.move_to(int(found[0]))

    def on_click(self, event: events.Click) -> None:
        """To the word under the pointer."""
        place = event.get_content_offset(self)
        if place is None or (line := place.y + self.scroll_offset.y) >= len(self._starts):
            return
        if (index := self._nearest(line, place.x)) is not None:
            self.move_to(index)
