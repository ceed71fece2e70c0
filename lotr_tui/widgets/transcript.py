"""What was said: prompts, and the words as they come."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from rich.style import Style
from textual import events
from textual.content import Content
from textual.geometry import Region, Size
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.visual import Visual

from engine.sampling import Done, TokenEvent
from lotr_tui.theme import MUTED
from lotr_tui.wording import ending


class Note:
    """A line of our own between the exchanges."""

    def __init__(self, text: str) -> None:
        self.text = text

    def blocks(self) -> list[tuple[int, Content]]:
        """Indent and content of each block of lines."""
        return [(0, Content.styled(self.text, MUTED))]


class Exchange:
    """A prompt, the model's words, and how they came about."""

    def __init__(self, prompt: str, unknown: Sequence[str], seed: int, chain: str) -> None:
        self.prompt = prompt
        self.words: list[str] = []
        self.notes = [f"seed {seed}", chain]
        self.writing = True
        self._unknown = ", ".join(unknown)

    def add(self, events: Sequence[TokenEvent | Done]) -> None:
        """Take in what has come since the last call."""
        for event in events:
            if isinstance(event, TokenEvent):
                self.words.append(event.text)
            else:
                self.writing = False
                self.notes += [f"{event.tokens_per_second:,.0f} words/s", ending(event)]

    def fail(self, message: str) -> None:
        """No more words come; those that came stay."""
        self.writing = False
        self.notes.append(f"broken off: {message}")

    def blocks(self) -> list[tuple[int, Content]]:
        """Indent and content of each block of lines."""
        blocks = [(0, Content.assemble(("❯ ", "bold $accent"), (self.prompt, "bold")))]
        if self._unknown:
            blocks.append((2, Content.styled(f"not in the vocabulary, read as <unk>: {self._unknown}", "$warning")))
        cursor = [("▌", "$accent")] if self.writing else []
        if self.words or self.writing:
            blocks.append((2, Content.assemble(" ".join(self.words), *cursor)))
        if not self.writing:
            blocks.append((2, Content.styled(" · ".join(self.notes), MUTED)))
        return blocks


class Transcript(ScrollView, can_focus=False):
    """Exchanges, latest last; follows the end unless the reader has scrolled away from it.

    Painted line by line rather than built of widgets: a text that grows twenty times a second must not have
    the whole screen arranged anew each time.
    """

    DEFAULT_CSS = """
    Transcript {
        padding: 1 0 0 2;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
        scrollbar-background: $background;
        scrollbar-color: $border;
    }
    """
    ALLOW_SELECT = False

    virtual_size: Reactive[Size] = Reactive(Size(0, 0))  # without `layout`, which the base class has

    def __init__(self, welcome: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.entries: list[Note | Exchange] = [Note(welcome)]
        self._strips: list[list[Strip]] = []
        self._ends: list[int] = []
        self._style = Style.null()

    def append(self, entry: Note | Exchange) -> None:
        """A new entry, to be seen."""
        self.entries.append(entry)
        self._wrap(len(self.entries) - 1)
        self._lay_out(follow=True)

    def last_changed(self) -> None:
        """The last entry has changed: paint it anew."""
        follow = self.is_vertical_scroll_end
        before = self._strips[-1]
        self._wrap(len(self.entries) - 1)
        after = self._strips[-1]
        same = 0
        while same < min(len(before), len(after)) and before[same] == after[same]:
            same += 1
        self._lay_out(follow=follow, changed_from=self._ends[-1] - len(before) + same)

    def on_resize(self, event: events.Resize) -> None:
        """Lines break elsewhere."""
        follow = self.is_vertical_scroll_end
        self._style = self.rich_style
        self._strips.clear()
        for index in range(len(self.entries)):
            self._wrap(index)
        self._lay_out(follow=follow)

    def notify_style_update(self) -> None:
        """Colours have changed."""
        super().notify_style_update()
        self._style = self.rich_style
        for index in range(len(self._strips)):
            self._wrap(index)

    def watch_virtual_size(self, size: Size) -> None:
        """The scroll bar shows how long it has become."""
        self.vertical_scrollbar.window_virtual_size = size.height

    def render_line(self, y: int) -> Strip:
        """The line at `y` of what is seen."""
        width = self.size.width
        line = y + self.scroll_offset.y
        index = bisect_right(self._ends, line)
        if index == len(self._ends):
            return Strip.blank(width, self._style)
        strips = self._strips[index]
        return strips[line - (self._ends[index] - len(strips))].adjust_cell_length(width, self._style)

    def _wrap(self, index: int) -> None:
        """Break an entry into lines of the width there is, and a blank one behind it."""
        width = max(1, self.scrollable_content_region.width - 1)
        strips: list[Strip] = []
        for indent, content in self.entries[index].blocks():
            lines = Visual.to_strips(
                self, content, max(1, width - indent), None, self.visual_style, apply_selection=False
            )
            blank = Strip.blank(indent, self._style)
            strips += [Strip.join([blank, line]) for line in lines] if indent else lines
        strips.append(Strip.blank(width, self._style))
        self._strips[index : index + 1] = [strips]

    def _lay_out(self, *, follow: bool, changed_from: int = 0) -> None:
        """Set the length, keep to the end if so asked, and paint from the line `changed_from` on."""
        self._ends = list(accumulate(len(strips) for strips in self._strips))
        top = self.scroll_offset.y
        self.virtual_size = Size(self.size.width, self._ends[-1] if self._ends else 0)
        if follow:
            self.scroll_end(animate=False, immediate=True, x_axis=False)
        if self.scroll_offset.y == top and changed_from:
            self.refresh(Region(0, changed_from - top, self.size.width, self.size.height))
        else:
            self.refresh()
