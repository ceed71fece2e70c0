"""Scroll view of transcript entries, painted line by line."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise, takewhile
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.strip import Strip

from lotr_tui.formatting import truncate
from lotr_tui.session.cast import MIN_NAME_WIDTH
from lotr_tui.session.reply import Reply
from lotr_tui.session.transcript import Block, Entry, Span, SpeakerLabel, entry_blocks, reply_figures, wrap
from lotr_tui.widgets.line_list import LineScrollView
from lotr_tui.widgets.speaker_styles import speaker_classes, speaker_css

MAX_LINE_WIDTH = 100
"""Maximum cells of a line, since longer lines are hard to read."""
FIGURES_INDENT = 2
MARK_WIDTH = 2
"""Width in cells of the mark before the name of a speaker."""
NAME_GAP = 2
"""Cells between the name of a speaker and the text."""
MIN_TEXT_WIDTH = 36
"""Width in cells of the text below which the column of names becomes narrower."""


class EntryScrollView(LineScrollView, can_focus=False):
    """Entries of a conversation, the latest last; the view follows the end unless the reader has scrolled away.

    A text that grows twenty times per second must not lay out the whole screen each time, so the entries are painted
    instead of composed of widgets. The height of every entry is known, but its lines are built only while visible:
    thousands of entries cost no more than those on the screen.

    An empty line follows each entry. It shows the figures of a reply, so nothing moves when they appear or disappear.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"transcript--{name}" for name in ("text", "prompt", "accent", "muted", "warning", "branch")
    } | speaker_classes("transcript")
    DEFAULT_CSS = f"""
    EntryScrollView {{
        padding: 1 0 0 2;
        .transcript--prompt {{ text-style: bold; }}
        .transcript--accent {{ color: $accent; text-style: bold; }}
        .transcript--muted {{ color: $muted; text-style: $muted-style; }}
        .transcript--warning {{ color: $warning; }}
        .transcript--branch {{ color: $accent; text-style: underline; }}
        {speaker_css("transcript")}
    }}
    """

    def __init__(self, entries: Sequence[Entry], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.entries: list[Entry] = list(entries)
        self._heights: list[int] = []
        self._end_lines: list[int] = []  # line after each entry
        self._min_height = 0
        """Lines up to the bottom of the view, kept when a reply is replaced by a shorter one, so that nothing moves."""
        self._strips: dict[int, list[Strip]] = {}
        self._style_cache: dict[str, Style] = {}
        self._name_width = MIN_NAME_WIDTH
        """Width in cells of the longest name of a speaker."""
        self._layout_size = Size(0, 0)  # size that the lines are wrapped for

    # Content

    def append(self, entry: Entry, *, follow: bool | None = None) -> None:
        """Append an entry, and scroll to it if `follow`.

        By default, the view scrolls to a new reply; a note does not move a reader who has scrolled away.
        """
        if follow is None:
            follow = isinstance(entry, Reply) or self.is_vertical_scroll_end
        self.entries.append(entry)
        self._measure_new_entries()
        self._min_height = 0
        self._update_content_layout(follow=follow)

    def refresh_entry(self, index: int) -> None:
        """Repaint an entry after a change."""
        follow = self.is_vertical_scroll_end and index == self._last_reply_index()
        start = self._first_line(index)
        before = self._strips.pop(index, [])
        self._measure_entry(index)
        after = self._entry_strips(index)
        unchanged = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
        self._update_content_layout(follow=follow, changed_from=start + unchanged)

    def replace_entries(self, start: int, entries: Sequence[Entry]) -> None:
        """Replace all entries from index `start` on."""
        shown = self.scroll_offset.y + self.scrollable_content_region.height
        self._min_height = min(self.virtual_size.height, shown) if start else 0
        self.entries[start:] = entries
        del self._heights[start:]
        self._strips = {index: strips for index, strips in self._strips.items() if index < start}
        self._measure_new_entries()
        self._update_content_layout(follow=False)

    def set_name_width(self, width: int) -> None:
        """Set the width in cells of the column with the names of speakers."""
        if width != self._name_width:
            self._name_width = width
            self._wrap_all()
            self._update_content_layout(follow=self.is_vertical_scroll_end)

    # Layout

    def on_resize(self, event: events.Resize) -> None:
        """Wrap the lines for the new width, and keep the end in view if it was."""
        before, self._layout_size = self._layout_size, self.scrollable_content_region.size
        follow = not self._end_lines or self.scroll_offset.y >= self._end_lines[-1] - before.height
        if self._layout_size.width != before.width:
            self._wrap_all()
        self._min_height = 0
        self._update_content_layout(follow=follow)
        self.after_resize()

    def after_resize(self) -> None:
        """React to a new size, after the lines are wrapped for it; does nothing by default."""

    def notify_style_update(self) -> None:
        """Rebuild the lines when the theme has changed."""
        super().notify_style_update()
        self._strips.clear()
        self._style_cache.clear()

    def _wrap_all(self) -> None:
        self._strips.clear()
        self._heights.clear()
        self._measure_new_entries()

    @property
    def _shown_name_width(self) -> int:
        """Width in cells of the names, which are cut on a narrow terminal."""
        room = self._layout_size.width - 1 - MARK_WIDTH - NAME_GAP - MIN_TEXT_WIDTH
        return min(self._name_width, max(MIN_NAME_WIDTH, room))

    def _indent(self, block: Block) -> int:
        """Return the cells before the text of a block."""
        column = MARK_WIDTH + self._shown_name_width + NAME_GAP if block.is_beside_names else 0
        return column + block.indent

    def _wrap_block(self, block: Block) -> list[tuple[int, int]]:
        """Return the start and end character of each line of a block."""
        return wrap(block.text, max(1, min(MAX_LINE_WIDTH, self._layout_size.width - 1 - self._indent(block))))

    def _measure_entry(self, index: int) -> None:
        """Set the height of an entry: its lines and an empty one."""
        height = 1 + sum(len(self._wrap_block(block)) for block in entry_blocks(self.entries[index]))
        self._heights[index : index + 1] = [height]

    def _measure_new_entries(self) -> None:
        for index in range(len(self._heights), len(self.entries)):  # all entries while the view has no size
            self._measure_entry(index)

    def _first_line(self, index: int) -> int:
        return self._end_lines[index] - self._heights[index]

    def _update_content_layout(self, *, follow: bool, changed_from: int = 0) -> None:
        """Update the scrollable size, scroll to the end if `follow`, and repaint from the line `changed_from` on."""
        self._end_lines = list(accumulate(self._heights))
        top = self.scroll_offset.y
        height = max(self._min_height, self._end_lines[-1] if self._end_lines else 0)
        self.virtual_size = Size(self.size.width, height)
        if follow:
            self.scroll_end(animate=False, immediate=True, x_axis=False)
        if self.scroll_offset.y == top and changed_from:
            self.refresh(Region(0, changed_from - top, self.size.width, self.size.height))
        else:
            self.refresh()

    def _scroll_to_character(self, index: int, block_index: int, character: int) -> None:
        """Scroll the shortest distance that brings a character into view, and figures directly below it."""
        blocks = entry_blocks(self.entries[index])
        above = sum(len(self._wrap_block(block)) for block in blocks[:block_index])
        starts = [start for start, _ in self._wrap_block(blocks[block_index])]
        line = self._first_line(index) + above + bisect_right(starts, character) - 1
        figures_line = self._end_lines[index] - 1
        bottom = figures_line if line == figures_line - 1 else line
        top, height = self.scroll_offset.y, self.scrollable_content_region.height
        if line < top:
            self.scroll_to(y=line, animate=False, immediate=True)
        elif bottom >= top + height:
            self.scroll_to(y=bottom - height + 1, animate=False, immediate=True)

    # Painting

    def render_line(self, y: int) -> Strip:
        """Return the line at row `y` of the view."""
        width = self.size.width
        line = y + self.scroll_offset.y
        index = bisect_right(self._end_lines, line)
        if index == len(self._end_lines):
            return Strip.blank(width, self.rich_style)
        strips, line_in_entry = self._entry_strips(index), line - self._first_line(index)
        if line_in_entry < len(strips):
            strip = strips[line_in_entry]
        elif self._shows_figures(index) and line_in_entry == self._heights[index] - 1:
            strip = self._figures_strip(index)
        else:
            strip = Strip.blank(width, self.rich_style)
        return strip.adjust_cell_length(width, self.rich_style)

    def highlight_spans(self, index: int, block_index: int, block: Block) -> list[Span]:
        """Return additional spans of a block; a subclass highlights its cursor or its search."""
        return []

    def _entry_strips(self, index: int) -> list[Strip]:
        """Return the lines of an entry, cached until the entry changes."""
        strips = self._strips.get(index)
        if strips is None:
            strips = []
            for block_index, block in enumerate(entry_blocks(self.entries[index])):
                spans = [*block.spans, *self.highlight_spans(index, block_index, block)]
                lines = self._wrap_block(block)
                strips += [self._line_strip(block, spans, *line, is_first=line is lines[0]) for line in lines]
            self._strips[index] = strips
        return strips

    def _line_strip(self, block: Block, spans: Sequence[Span], start: int, end: int, *, is_first: bool) -> Strip:
        line_spans = [span for span in spans if span[0] < end and span[1] > start]
        cuts = sorted({start, end, *(min(max(at, start), end) for span in line_spans for at in span[:2])})
        label = block.label if is_first else None
        blank = Segment(" " * self._indent(block), self.rich_style)
        segments = [blank] if label is None else self._label_segments(label)
        for left, right in pairwise(cuts):
            style = self._text_style(block.style)
            for span_start, span_end, name in line_spans:
                if span_start <= left < span_end:
                    style += self._text_style(name)
            segments.append(Segment(block.text[left:right], style))
        return Strip(segments)

    def _label_segments(self, label: SpeakerLabel) -> list[Segment]:
        """Return the mark and the name before a line, and the gap after them."""
        width = self._shown_name_width
        name = set_cell_size(truncate(label.text, width), width + NAME_GAP)
        return [
            Segment(label.mark.ljust(MARK_WIDTH), self._text_style("accent")),
            Segment(name, self._text_style(label.style)),
        ]

    def _last_reply_index(self) -> int:
        """Return the index of the newest reply, or -1 if there is none."""
        return next((i for i in reversed(range(len(self.entries))) if isinstance(self.entries[i], Reply)), -1)

    def _shows_figures(self, index: int) -> bool:
        """Return True if the figures of an entry are shown; by default, of the newest reply only."""
        return index == self._last_reply_index()

    def _figures_strip(self, index: int) -> Strip:
        """Return the figures of a reply on one line, with an ellipsis where they do not fit."""
        entry = self.entries[index]
        text = reply_figures(entry) if isinstance(entry, Reply) else ""
        is_beside_names = isinstance(entry, Reply) and entry.reply_mode == "conversation"
        indent = self._indent(Block("", is_beside_names=True)) if is_beside_names else FIGURES_INDENT
        width = max(1, self._layout_size.width - 1 - indent)
        if cell_len(text) > width:
            text = f"{set_cell_size(text, width - 1).rpartition(' ')[0].rstrip(' ·→')} …"  # without half of a number
        return Strip([Segment(" " * indent, self.rich_style), Segment(text, self._text_style("muted"))])

    def _text_style(self, name: str) -> Style:
        if name not in self._style_cache:
            self._style_cache[name] = self.get_component_rich_style(f"transcript--{name}")
        return self._style_cache[name]

    def _repaint_entry(self, index: int) -> None:
        """Repaint an entry whose highlights have changed; its height stays the same."""
        self._strips.pop(index, None)
        top = self._first_line(index) - self.scroll_offset.y
        self.refresh(Region(0, top, self.size.width, self._heights[index]))
