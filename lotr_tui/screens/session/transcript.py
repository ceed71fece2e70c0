"""What was said: prompts, and the words as they come."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lotr_tui.session.entries import Block, Exchange, Note, Span, word_at, word_place, wrap

Entry = Note | Exchange


class Transcript(ScrollView, can_focus=False):
    """Exchanges, latest last; follows the end unless the reader has scrolled away from it.

    Painted line by line rather than built of widgets: a text that grows twenty times a second must not have
    the whole screen arranged anew each time. Of an entry its height is known; its lines are made when they are
    seen, so that thousands of entries cost no more than those on the screen.

    It takes the cursor only while somebody walks over its words: see `walk`.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"transcript--{name}"
        for name in ("text", "prompt", "accent", "muted", "warning", "branch", "cursor", "match", "found")
    }
    DEFAULT_CSS = """
    Transcript {
        padding: 1 0 0 2;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
        scrollbar-background: $background;
        scrollbar-color: $border;
        .transcript--prompt { text-style: bold; }
        .transcript--accent { color: $accent; text-style: bold; }
        .transcript--muted { color: $foreground 60%; }
        .transcript--warning { color: $warning; }
        .transcript--branch { color: $accent; text-style: underline; }
        .transcript--cursor { text-style: reverse; }
        .transcript--match { text-style: underline bold; }
        .transcript--found { color: $accent; text-style: reverse bold; }
    }
    """
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "word", key_display="←→", id="transcript.left", tooltip="The word before"),
        Binding("right", "step(1)", "next word", show=False, id="transcript.right", tooltip="The next word"),
        Binding("up", "leap(-1)", "reply", key_display="↑↓", id="transcript.up", tooltip="The reply before"),
        Binding("down", "leap(1)", "next reply", show=False, id="transcript.down", tooltip="The next reply"),
        Binding("home", "edge(0)", "first word", show=False, id="transcript.home", tooltip="First word of the reply"),
        Binding("end", "edge(-1)", "last word", show=False, id="transcript.end", tooltip="Last word of the reply"),
    ]

    class Walked(Message):
        """The cursor is on another word."""

        def __init__(self, exchange: Exchange, word: int) -> None:
            super().__init__()
            self.exchange = exchange
            self.word = word

    virtual_size: Reactive[Size] = Reactive(Size(0, 0))  # without `layout`, which the base class has

    def __init__(self, welcome: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.entries: list[Entry] = [Note(welcome)]
        self.cursor: tuple[int, int] | None = None
        """The entry and its word that the cursor is on."""
        self._query = ""
        self._found: tuple[int, int, int] | None = None  # the entry, its block, the character
        self._strips: dict[int, list[Strip]] = {}
        self._heights: list[int] = []
        self._ends: list[int] = []
        self._styles: dict[str, Style] = {}
        self._seen = Size(0, 0)  # the room that the lines were broken for

    # What stands in it

    def append(self, entry: Entry) -> None:
        """A new entry, to be seen."""
        self.entries.append(entry)
        for index in range(len(self._heights), len(self.entries)):  # all, where it was never seen: it has no size yet
            self._measure(index)
        self._lay_out(follow=True)

    def last_changed(self) -> None:
        """The last entry has changed: paint it anew."""
        self.changed(len(self.entries) - 1)

    def changed(self, index: int) -> None:
        """An entry has changed: paint it anew."""
        follow = self.is_vertical_scroll_end and index == len(self.entries) - 1
        start = self._ends[index] - self._heights[index]
        before = self._strips.pop(index, [])
        self._measure(index)
        after = self._lines(index)
        same = 0
        while same < min(len(before), len(after)) and before[same] == after[same]:
            same += 1
        self._lay_out(follow=follow, changed_from=start + same)

    def replace(self, start: int, entries: Sequence[Entry]) -> None:
        """Other entries from `start` on."""
        self.entries[start:] = entries
        del self._heights[start:]
        self._strips = {index: strips for index, strips in self._strips.items() if index < start}
        for index in range(len(self._heights), len(self.entries)):
            self._measure(index)
        if self.cursor is not None and self.cursor[0] >= start:
            self.cursor = None
        self._lay_out(follow=False)

    # A cursor on its words

    def walk(self, index: int | None = None, word: int = -1) -> bool:
        """Put the cursor on a word of a reply, to begin with the latest one's last; tells whether there is any."""
        replies = self._replies() if index is None else [index]
        if not replies:
            return False
        entry = self.entries[replies[-1]]
        assert isinstance(entry, Exchange)
        self._move(replies[-1], word % len(entry.words))
        self.can_focus = True
        self.screen.set_focus(self, scroll_visible=False)  # at once: the keys behind it are for the walk
        return True

    def leave(self) -> None:
        """Take the cursor away."""
        if self.cursor is not None:
            index, self.cursor = self.cursor[0], None
            self._repaint(index)
        self.can_focus = False

    def action_step(self, step: int) -> None:
        """Word by word; behind the last one of a reply comes the first of the next."""
        if self.cursor is None:
            return
        index, word = self.cursor
        entry = self.entries[index]
        assert isinstance(entry, Exchange)
        if 0 <= word + step < len(entry.words):
            self._move(index, word + step)
        elif (other := self._beside(index, step)) is not None:
            self._move(other, 0 if step > 0 else -1)

    def action_leap(self, step: int) -> None:
        """Reply by reply."""
        if self.cursor is not None and (other := self._beside(self.cursor[0], step)) is not None:
            self._move(other, 0)

    def action_edge(self, word: int) -> None:
        """The first or the last word of the reply."""
        if self.cursor is not None:
            self._move(self.cursor[0], word)

    def on_click(self, event: events.Click) -> None:
        """A word that is clicked on has the cursor."""
        place = event.get_content_offset(self)
        if place is None:
            return
        line = place.y + self.scroll_offset.y
        index = bisect_right(self._ends, line)
        entry = self.entries[index] if index < len(self.entries) else None
        if not isinstance(entry, Exchange):
            return
        line -= self._ends[index] - self._heights[index]
        for block in entry.blocks():
            lines = wrap(block.plain, self._room(block))
            if line < len(lines):
                start, end = lines[line]
                cells = place.x - block.indent
                while start < end and cells >= cell_len(block.plain[start]):
                    cells -= cell_len(block.plain[start])
                    start += 1
                word = word_at(entry.words, start)
                if block.walked and place.x >= block.indent and start < end and word >= 0:
                    self.walk(index, word)
                return
            line -= len(lines)

    def _replies(self) -> list[int]:
        """The entries that have words."""
        return [i for i, entry in enumerate(self.entries) if isinstance(entry, Exchange) and entry.words]

    def _beside(self, index: int, step: int) -> int | None:
        """The next entry with words, up or down."""
        found = [other for other in self._replies() if (other - index) * step > 0]
        return None if not found else found[0] if step > 0 else found[-1]

    def _move(self, index: int, word: int) -> None:
        entry = self.entries[index]
        assert isinstance(entry, Exchange)
        before, self.cursor = self.cursor, (index, word % len(entry.words))
        if before is not None and before[0] != index:
            self._repaint(before[0])
        self._repaint(index)
        self._show_cursor()
        self.post_message(self.Walked(entry, self.cursor[1]))

    def _show_cursor(self) -> None:
        """Scroll to the word it is on."""
        assert self.cursor is not None
        index, word = self.cursor
        entry = self.entries[index]
        assert isinstance(entry, Exchange)
        number = next(i for i, block in enumerate(entry.blocks()) if block.walked)
        self._reveal(index, number, word_place(entry.words, word)[0])

    # Searching it

    def find(self, query: str, step: int = 0) -> tuple[int, int]:
        """Mark what matches, and go to the match `step` further down; 0: to the one nearest above the end.

        Returns which match that is, counted from 1 at the top, and how many there are; 0 of 0 if none.
        """
        if query.lower() != self._query:
            self._query, self._found = query.lower(), None
            self._strips.clear()
        found = [
            (index, number, start)
            for index, entry in enumerate(self.entries if self._query else [])
            for number, block in enumerate(entry.blocks())
            for start in _matches(block.plain, self._query)
        ]
        if not found:
            self._found = None
            self.refresh()
            return 0, 0
        at = len(found) - 1
        if self._found is not None:
            at = (bisect_right(found, self._found) - 1 + step) % len(found)
            self._repaint(self._found[0])
        self._found = found[at]
        self._repaint(self._found[0])
        self._reveal(*self._found)
        self.refresh()
        return at + 1, len(found)

    # How it is painted

    def on_resize(self, event: events.Resize) -> None:
        """Lines break elsewhere; the end stays in sight if it was, and so does the cursor."""
        before, self._seen = self._seen, self.scrollable_content_region.size
        follow = not self._ends or self.scroll_offset.y >= self._ends[-1] - before.height
        if self._seen.width != before.width:
            self._strips.clear()
            self._heights.clear()
            for index in range(len(self.entries)):
                self._measure(index)
        self._lay_out(follow=follow)
        if self.cursor is not None:
            self._show_cursor()

    def notify_style_update(self) -> None:
        """Colours have changed."""
        super().notify_style_update()
        self._strips.clear()
        self._styles.clear()

    def watch_virtual_size(self, size: Size) -> None:
        """The scroll bar shows how long it has become."""
        self.vertical_scrollbar.window_virtual_size = size.height

    def render_line(self, y: int) -> Strip:
        """The line at `y` of what is seen."""
        width = self.size.width
        line = y + self.scroll_offset.y
        index = bisect_right(self._ends, line)
        if index == len(self._ends):
            return Strip.blank(width, self.rich_style)
        strips, number = self._lines(index), line - (self._ends[index] - self._heights[index])
        if number >= len(strips):  # it has become shorter, and nobody has said so yet
            return Strip.blank(width, self.rich_style)
        return strips[number].adjust_cell_length(width, self.rich_style)

    def _room(self, block: Block) -> int:
        return max(1, self._seen.width - 1 - block.indent)

    def _measure(self, index: int) -> None:
        """Count the lines of an entry, and a blank one behind it."""
        height = 1 + sum(len(wrap(block.plain, self._room(block))) for block in self.entries[index].blocks())
        self._heights[index : index + 1] = [height]

    def _lines(self, index: int) -> list[Strip]:
        """The lines of an entry, kept until it changes."""
        strips = self._strips.get(index)
        if strips is None:
            strips = []
            for number, block in enumerate(self.entries[index].blocks()):
                spans = [*block.spans, *self._overlays(index, number, block)]
                strips += [self._line(block, spans, *line) for line in wrap(block.plain, self._room(block))]
            strips.append(Strip.blank(self.size.width, self.rich_style))
            self._strips[index] = strips
        return strips

    def _overlays(self, index: int, number: int, block: Block) -> list[Span]:
        """The marks of the cursor and of a search."""
        spans: list[Span] = []
        for start in _matches(block.plain, self._query):
            style = "found" if (index, number, start) == self._found else "match"
            spans.append((start, start + len(self._query), style))
        entry = self.entries[index]
        if block.walked and self.cursor is not None and self.cursor[0] == index and isinstance(entry, Exchange):
            spans.append((*word_place(entry.words, self.cursor[1]), "cursor"))
        return spans

    def _line(self, block: Block, spans: Sequence[Span], start: int, end: int) -> Strip:
        here = [span for span in spans if span[0] < end and span[1] > start]
        cuts = sorted({start, end, *(min(max(at, start), end) for span in here for at in span[:2])})
        segments = [Segment(" " * block.indent, self.rich_style)]
        for left, right in pairwise(cuts):
            style = self._style(block.style)
            for span in here:
                if span[0] <= left < span[1]:
                    style += self._style(span[2])
            segments.append(Segment(block.plain[left:right], style))
        return Strip(segments)

    def _style(self, name: str) -> Style:
        if name not in self._styles:
            self._styles[name] = self.get_component_rich_style(f"transcript--{name}")
        return self._styles[name]

    def _repaint(self, index: int) -> None:
        """The marks on an entry have changed; no line breaks elsewhere for that."""
        self._strips.pop(index, None)
        top = self._ends[index] - self._heights[index] - self.scroll_offset.y
        self.refresh(Region(0, top, self.size.width, self._heights[index]))

    def _reveal(self, index: int, number: int, character: int) -> None:
        """Scroll so far that a character of a block is seen, and no further."""
        blocks = self.entries[index].blocks()
        above = sum(len(wrap(block.plain, self._room(block))) for block in blocks[:number])
        starts = [start for start, _ in wrap(blocks[number].plain, self._room(blocks[number]))]
        line = self._ends[index] - self._heights[index] + above + bisect_right(starts, character) - 1
        top, height = self.scroll_offset.y, self.scrollable_content_region.height
        if line < top:
            self.scroll_to(y=line, animate=False, immediate=True)
        elif line >= top + height:
            self.scroll_to(y=line - height + 1, animate=False, immediate=True)

    def _lay_out(self, *, follow: bool, changed_from: int = 0) -> None:
        """Set the length, keep to the end if so asked, and paint from the line `changed_from` on."""
        self._ends = list(accumulate(self._heights))
        top = self.scroll_offset.y
        self.virtual_size = Size(self.size.width, self._ends[-1] if self._ends else 0)
        if follow:
            self.scroll_end(animate=False, immediate=True, x_axis=False)
        if self.scroll_offset.y == top and changed_from:
            self.refresh(Region(0, changed_from - top, self.size.width, self.size.height))
        else:
            self.refresh()


def _matches(text: str, query: str) -> list[int]:
    """Where `query`, in lower case, begins in `text`."""
    if not query:
        return []
    lower, found = text.lower(), []
    start = lower.find(query)
    while start >= 0:
        found.append(start)
        start = lower.find(query, start + len(query))
    return found
