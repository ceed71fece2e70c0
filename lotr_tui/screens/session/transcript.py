"""Transcript of a conversation, painted line by line, with a cursor on its words and a search."""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise, takewhile
from typing import ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import app, containers, events, on
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widgets import Input, Label

from lotr_tui.formatting import fit_cells
from lotr_tui.session import transcript as text
from lotr_tui.session.cast import MIN_NAME_WIDTH
from lotr_tui.session.reply import Reply
from lotr_tui.widgets.drawing import wrap
from lotr_tui.widgets.inputs import LineInput
from lotr_tui.widgets.line_list import LineScrollView
from lotr_tui.widgets.speaker_bars import speaker_classes, speaker_css

MAX_LINE_WIDTH = 100  # cells, since longer lines are hard to read
FIGURES_INDENT = 2
MARK_WIDTH = 2  # of the mark before the name of a speaker
NAME_GAP = 2
MIN_TEXT_WIDTH = 36  # of the text, below which the column of names becomes narrower
MAX_QUERY_CHARACTERS = 200
MOUSE_HELP = "Click a word to see why it was picked, and an alternative to branch to it"


class Layout(NamedTuple):
    """Blocks of an entry and the lines that they take; an empty one follows, for the figures of a reply."""

    blocks: Sequence[text.Block]
    lines: Sequence[tuple[int, int, int]]  # block, and its first and last character that are on the line


class Transcript(LineScrollView, can_focus=True, inherit_bindings=False):
    """Prompts, replies and notes, the latest last; the view follows the end unless the reader has scrolled away.

    Entries are painted, because a growing text must not lay out the screen; only visible ones are drawn. The empty line
    after an entry shows the number of answers, or the figures of a reply under the cursor.
    """

    FOCUS_ON_CLICK = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"transcript--{name}"
        for name in (
            "text", "prompt", "accent", "muted", "warning", "branch", "cursor", "match", "current-match"
        )
    } | speaker_classes("transcript")  # fmt: skip
    DEFAULT_CSS = f"""
    Transcript {{
        padding: 1 0 0 2;
        .transcript--prompt {{ text-style: bold; }}
        .transcript--accent {{ color: $accent; text-style: bold; }}
        .transcript--muted {{ color: $muted; text-style: $muted-style; }}
        .transcript--warning {{ color: $warning; }}
        .transcript--branch {{ color: $accent; text-style: underline; }}
        .transcript--cursor {{ text-style: reverse; }}
        .transcript--match {{ text-style: underline bold; }}
        .transcript--current-match {{ color: $accent; text-style: reverse bold; }}
        {speaker_css("transcript")}
    }}
    """

    def __init__(
        self,
        welcome: str,
        on_cursor: Callable[[Reply, int], None],
        step_answer: Callable[[int, Reply], None],
    ) -> None:
        """Call `on_cursor` when the cursor is on another token, `step_answer` after a click beside their number."""
        super().__init__(id="transcript")
        self._on_cursor, self._step_answer = on_cursor, step_answer
        self.entries: list[text.Entry] = [text.Note(welcome)]
        self.cursor: tuple[int, int] | None = None  # indices of the entry and of its token
        self._layouts: list[Layout] = []
        self._end_lines: list[int] = []  # line after each entry
        self._strips: dict[int, list[Strip]] = {}  # of the entries that were visible
        self._min_height = 0  # kept when a reply is replaced by a shorter one, so that nothing moves
        self._style_cache: dict[str, Style] = {}
        self._name_width = MIN_NAME_WIDTH
        self._layout_size = Size(0, 0)  # that the lines are wrapped for
        self._query = ""
        self._current_match: tuple[int, int, int] | None = None  # entry, block, character

    def get_help_line(self) -> str:
        return MOUSE_HELP if self.cursor is None and self._reply_indices() else ""

    # Content

    def append(self, entry: text.Entry, *, follow: bool = False) -> None:
        """Append an entry, and scroll to it if `follow`, or unless the reader has scrolled away."""
        follow = follow or self.is_vertical_scroll_end
        self.entries.append(entry)
        self._min_height = 0
        self._update_layout(follow=follow)

    def refresh_entry(self, index: int) -> None:
        follow = self.is_vertical_scroll_end and index == max(self._reply_indices(empty=True), default=-1)
        before = self._strips.pop(index, [])
        self._layouts[index] = self._lay_out(self.entries[index])
        pairs = zip(before, self._draw(index), strict=False)
        unchanged = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._update_layout(follow=follow, changed_from=self._top(index) + unchanged)

    def replace_entries(self, start: int, entries: Sequence[text.Entry]) -> None:
        """Replace all entries from index `start` on; a cursor on one of them is removed."""
        if self.cursor is not None and self.cursor[0] >= start:
            self.cursor = None
        shown = self.scroll_offset.y + self.scrollable_content_region.height
        self._min_height = min(self.virtual_size.height, shown) if start else 0
        self.entries[start:] = entries
        del self._layouts[start:]
        self._strips = {index: strips for index, strips in self._strips.items() if index < start}
        self._update_layout(follow=False)

    def set_name_width(self, width: int) -> None:
        if width != self._name_width:
            self._name_width = width
            self._layouts.clear()
            self._update_layout(follow=self.is_vertical_scroll_end)

    # Layout

    def on_resize(self, event: events.Resize) -> None:
        """Wrap the lines for the new width, and keep the end or the cursor in view if it was."""
        before, self._layout_size = self._layout_size, self.scrollable_content_region.size
        follow = not self._end_lines or self.scroll_offset.y >= self._end_lines[-1] - before.height
        if self._layout_size.width != before.width:
            self._layouts.clear()
        self._min_height = 0
        self._update_layout(follow=follow)
        self._scroll_to_cursor()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips.clear()
        self._style_cache.clear()

    @property
    def _name_cells(self) -> int:
        room = self._layout_size.width - 1 - MARK_WIDTH - NAME_GAP - MIN_TEXT_WIDTH
        return min(self._name_width, max(MIN_NAME_WIDTH, room))

    def _indent(self, block: text.Block) -> int:
        return block.indent + (MARK_WIDTH + self._name_cells + NAME_GAP if block.is_beside_names else 0)

    def _lay_out(self, entry: text.Entry) -> Layout:
        blocks = text.entry_blocks(entry)
        widths = [min(MAX_LINE_WIDTH, self._layout_size.width - 1 - self._indent(block)) for block in blocks]
        wrapped = [wrap(block.text, max(1, width)) for block, width in zip(blocks, widths, strict=True)]
        return Layout(blocks, [(index, *line) for index, lines in enumerate(wrapped) for line in lines])

    def _update_layout(self, *, follow: bool, changed_from: int = 0) -> None:
        """Lay out new entries, scroll to the end if `follow`, and repaint from the line `changed_from` on."""
        if not self._layouts:
            self._strips.clear()
        self._layouts += map(self._lay_out, self.entries[len(self._layouts) :])
        self._end_lines = list(accumulate(len(layout.lines) + 1 for layout in self._layouts))
        top = self.scroll_offset.y
        self.virtual_size = Size(self.size.width, max(self._min_height, *self._end_lines[-1:]))
        if follow:
            self.scroll_end(animate=False, immediate=True, x_axis=False)
        if self.scroll_offset.y == top and changed_from:
            self.refresh(Region(0, changed_from - top, self.size.width, self.size.height))
        else:
            self.refresh()

    def _top(self, index: int) -> int:
        return self._end_lines[index - 1] if index else 0

    def _scroll_to_character(self, index: int, block_index: int, character: int) -> None:
        """Scroll the shortest distance that brings a character into view, and figures directly below it."""
        lines = self._layouts[index].lines
        line = self._top(index) + bisect_right(lines, (block_index, character), key=lambda line: line[:2]) - 1
        bottom = line + 1 if line + 2 == self._end_lines[index] else line
        top, height = self.scroll_offset.y, self.scrollable_content_region.height
        if line < top or bottom >= top + height:
            self.scroll_to(y=line if line < top else bottom - height + 1, animate=False, immediate=True)

    # Painting

    def render_line(self, y: int) -> Strip:
        width, line = self.size.width, y + self.scroll_offset.y
        index = bisect_right(self._end_lines, line)
        strip = Strip([])
        if index < len(self._end_lines):
            strips, line_in_entry = self._draw(index), line - self._top(index)
            if line_in_entry < len(strips):
                strip = strips[line_in_entry]
            elif figures := self._figures(index):
                strip = Strip([Segment(" " * self._figures_indent(index)), Segment(figures, self._style("muted"))])
        return strip.adjust_cell_length(width, self.rich_style)

    def _draw(self, index: int) -> list[Strip]:
        if index not in self._strips:
            entry, layout, spans = self.entries[index], self._layouts[index], []
            for block_index, block in enumerate(layout.blocks):
                found = list(block.spans)
                for start in _find_matches(block.text, self._query):
                    is_current = (index, block_index, start) == self._current_match
                    found.append((start, start + len(self._query), "current-match" if is_current else "match"))
                if block.is_reply and isinstance(entry, Reply) and self.cursor is not None and self.cursor[0] == index:
                    found.append((*text.token_span(entry, self.cursor[1]), "cursor"))
                spans.append(found)
            lines, blocks = layout.lines, layout.blocks
            self._strips[index] = [self._draw_line(blocks[at], start, end, spans[at]) for at, start, end in lines]
        return self._strips[index]

    def _draw_line(self, block: text.Block, start: int, end: int, spans: Sequence[text.Span]) -> Strip:
        spans = [span for span in spans if span[0] < end and span[1] > start]
        cuts = sorted({start, end, *(min(max(at, start), end) for span in spans for at in span[:2])})
        segments = [Segment(" " * self._indent(block), self.rich_style)]
        if (label := block.label) is not None and start == 0:
            name = fit_cells(label.text, self._name_cells) + " " * NAME_GAP
            mark = Segment(label.mark.ljust(MARK_WIDTH), self._style("accent"))
            segments = [mark, Segment(name, self._style(label.style))]
        for left, right in pairwise(cuts):
            style = self._style(block.style)
            for span_start, span_end, name in spans:
                if span_start <= left < span_end:
                    style += self._style(name)
            segments.append(Segment(block.text[left:right], style))
        return Strip(segments)

    def _figures(self, index: int) -> str:
        """Return the figures of the reply under the cursor, or the number of answers; an ellipsis ends a cut line."""
        entry = self.entries[index]
        if not isinstance(entry, Reply):
            return ""
        if self.cursor is None or self.cursor[0] != index:
            return text.answer_page(entry)
        figures = text.reply_figures(entry)
        width = max(1, self._layout_size.width - 1 - self._figures_indent(index))
        if cell_len(figures) <= width:
            return figures
        return f"{set_cell_size(figures, width - 1).rpartition(' ')[0].rstrip(' ·→')} …"  # without half of a number

    def _figures_indent(self, index: int) -> int:
        is_beside_names = self._layouts[index].blocks[0].is_beside_names
        return MARK_WIDTH + self._name_cells + NAME_GAP if is_beside_names else FIGURES_INDENT

    def _style(self, name: str) -> Style:
        if name not in self._style_cache:
            self._style_cache[name] = self.get_component_rich_style(f"transcript--{name}")
        return self._style_cache[name]

    def _repaint(self, index: int) -> None:
        self._strips.pop(index, None)
        height = len(self._layouts[index].lines) + 1
        self.refresh(Region(0, self._top(index) - self.scroll_offset.y, self.size.width, height))

    # Cursor

    def put_cursor(self, index: int | None = None, token_index: int = -1) -> None:
        """Put the cursor on a token of an entry, by default the last of the latest reply. The focus stays."""
        if replies := self._reply_indices():
            self._move_cursor(replies[-1] if index is None else index, token_index)

    def remove_cursor(self) -> None:
        if self.cursor is not None:
            index, self.cursor = self.cursor[0], None
            self._repaint(index)

    def step(self, offset: int) -> None:
        """Move the cursor by one token, at the end of a reply to the next reply."""
        if self.cursor is not None:
            index, token_index = self.cursor
            entry = self.entries[index]
            if isinstance(entry, Reply) and 0 <= token_index + offset < len(entry.tokens):
                self._move_cursor(index, token_index + offset)
            else:
                self.step_reply(offset, -1 if offset < 0 else 0)

    def step_reply(self, offset: int, token_index: int = 0) -> None:
        if self.cursor is not None:
            others = [other for other in self._reply_indices() if (other - self.cursor[0]) * offset > 0]
            if others:
                self._move_cursor(others[0] if offset > 0 else others[-1], token_index)

    def go_to_token(self, token_index: int) -> None:
        if self.cursor is not None:
            self._move_cursor(self.cursor[0], token_index)

    def _reply_indices(self, *, empty: bool = False) -> list[int]:
        """Return the indices of the replies with tokens, or also of the ones that are still `empty`."""
        return [i for i, entry in enumerate(self.entries) if isinstance(entry, Reply) and (empty or entry.tokens)]

    def _move_cursor(self, index: int, token_index: int) -> None:
        reply = self.entries[index]
        assert isinstance(reply, Reply)
        before, self.cursor = self.cursor, (index, token_index % len(reply.tokens))
        for changed in {index} if before is None else {before[0], index}:
            self._repaint(changed)
        self._scroll_to_cursor()
        self._on_cursor(reply, self.cursor[1])

    def _scroll_to_cursor(self) -> None:
        if self.cursor is not None and isinstance(reply := self.entries[self.cursor[0]], Reply):
            blocks = self._layouts[self.cursor[0]].blocks
            block_index = next(index for index, block in enumerate(blocks) if block.is_reply)
            self._scroll_to_character(self.cursor[0], block_index, text.token_span(reply, self.cursor[1])[0])

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the clicked token, or on the first one after a clicked prompt, or show another answer."""
        offset = event.get_content_offset(self)
        line = -1 if offset is None else offset.y + self.scroll_offset.y
        index = bisect_right(self._end_lines, line)
        entry = self.entries[index] if index < len(self.entries) else None
        if offset is None or not isinstance(entry, Reply):
            return
        blocks, lines = self._layouts[index]
        if (row := line - self._top(index)) == len(lines):
            at, page = offset.x - self._figures_indent(index), text.answer_page(entry)
            if 0 <= at < len(page):
                self._step_answer(-1 if at < len(page) // 2 else 1, entry)
            return
        block_index, start, end = lines[row]
        block = blocks[block_index]
        cells = offset.x - self._indent(block)
        while start < end and cells >= cell_len(block.text[start]):
            cells -= cell_len(block.text[start])
            start += 1
        if entry.tokens and cells >= 0 and start < end and (block.is_reply or block_index == 0):
            token_index = text.token_index_at(entry, start) if block.is_reply else 0
            if token_index >= 0:
                self.put_cursor(index, token_index)

    # Search

    def find(self, query: str, offset: int = 0) -> tuple[int, int]:
        """Highlight all matches of a query regardless of case (empty: none), and scroll `offset` matches down.

        A new query starts at the last match. Return the number of the current match, counted from 1, and of matches.
        """
        if query.lower() != self._query:
            self._query, self._current_match = query.lower(), None
            self._strips.clear()
        matches = [
            (index, block_index, start)
            for index, layout in enumerate(self._layouts)
            for block_index, block in enumerate(layout.blocks)
            for start in _find_matches(block.text, self._query)
        ]
        self.refresh()
        if not matches:
            self._current_match = None
            return 0, 0
        at = len(matches) - 1
        if self._current_match is not None:
            at = (bisect_right(matches, self._current_match) - 1 + offset) % len(matches)
            self._repaint(self._current_match[0])
        self._current_match = matches[at]
        self._repaint(self._current_match[0])
        self._scroll_to_character(*self._current_match)
        return at + 1, len(matches)


def _find_matches(text: str, query: str) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(query), text.lower())] if query else []


class SearchBar(containers.Horizontal):
    """Input for a query with the number of matches; enter and up go to the previous match, down to the next."""

    def __init__(self, transcript: Transcript) -> None:
        super().__init__(id="search")
        self._transcript = transcript

    def compose(self) -> app.ComposeResult:
        yield Label("find", markup=False)
        yield LineInput(id="query", compact=True, max_length=MAX_QUERY_CHARACTERS)
        yield Label("", id="matches", markup=False)

    def open(self) -> None:
        self.add_class("-open")
        self.screen.set_focus(self.query_one(Input))  # at once, because the next keys are for the query
        self.step_match(0)

    def close(self) -> bool:
        """Hide the bar and end the search; return True if it was open."""
        was_open = self.has_class("-open")
        self.remove_class("-open")
        self._transcript.find("")
        return was_open

    @on(Input.Changed)
    @on(Input.Submitted)
    def _find(self, event: Input.Changed | Input.Submitted) -> None:
        event.stop()
        if self.has_class("-open"):
            self.step_match(-1 if isinstance(event, Input.Submitted) else 0)

    def step_match(self, offset: int) -> None:
        query = self.query_one(Input).value
        current, total = self._transcript.find(query, offset)
        text = f"{current} of {total:,}" if total else "no match" if query else ""
        self.query_one("#matches", Label).update(text)
