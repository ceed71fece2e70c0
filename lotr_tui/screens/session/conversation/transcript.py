"""Transcript of a conversation, with a cursor on its words and a search."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Offset
from textual.message import Message

from lotr_tui.screens.session.conversation.entry_scroll_view import EntryScrollView
from lotr_tui.session.reply import Reply
from lotr_tui.session.transcript import Block, Entry, Note, Span, entry_blocks, token_index_at, token_span

MOUSE_HELP = "Click a word to see why it was picked; a double click branches to another word"


class Transcript(EntryScrollView):
    """Prompts and replies. The widget takes the focus only while the cursor is on a word: see `enter_cursor_mode`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"transcript--{name}" for name in ("cursor", "hover", "match", "current-match")
    }
    DEFAULT_CSS = """
    Transcript {
        .transcript--cursor { text-style: reverse; }
        .transcript--hover { text-style: underline; }
        .transcript--match { text-style: underline bold; }
        .transcript--current-match { color: $accent; text-style: reverse bold; }
    }
    """
    BINDING_GROUP_TITLE = "Words of the conversation"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "word", key_display="←→", id="transcript.left", tooltip="The previous word"),
        Binding("right", "step(1)", "next word", show=False, id="transcript.right", tooltip="The next word"),
        Binding("up", "step_reply(-1)", "reply", key_display="↑↓", id="transcript.up", tooltip="The previous reply"),
        Binding("down", "step_reply(1)", "next reply", show=False, id="transcript.down", tooltip="The next reply"),
        Binding("home", "go_to_token(0)", "first word", False, id="transcript.home", tooltip="First word of the reply"),
        Binding("end", "go_to_token(-1)", "last word", False, id="transcript.end", tooltip="Last word of the reply"),
    ]

    class CursorMoved(Message):
        """Posted when the cursor moves to another word."""

        def __init__(self, reply: Reply, token_index: int) -> None:
            super().__init__()
            self.reply = reply
            self.token_index = token_index

    class TokenActivated(Message):
        """Posted after a double click on a word, which is then under the cursor."""

    def __init__(self, welcome: str, *, id: str | None = None) -> None:
        super().__init__([Note(welcome)], id=id)
        self.cursor: tuple[int, int] | None = None
        """Index of the entry and of its token under the cursor; None outside cursor mode."""
        self._hovered: tuple[int, int] | None = None
        """Index of the entry and of its token under the mouse."""
        self._query = ""
        self._current_match: tuple[int, int, int] | None = None  # entry, block, character

    def get_help_line(self) -> str:
        """Return what a click on a word does; "" without words, and in cursor mode, whose keys have their own help."""
        return MOUSE_HELP if self.cursor is None and self._reply_indices() else ""

    def replace_entries(self, start: int, entries: Sequence[Entry]) -> None:
        """Replace all entries from index `start` on; a cursor on one of them is removed."""
        self._hovered = None
        if self.cursor is not None and self.cursor[0] >= start:
            self.cursor = None
        super().replace_entries(start, entries)

    def after_resize(self) -> None:
        """Keep the cursor in view."""
        if self.cursor is not None:
            self._scroll_to_cursor()

    def highlight_spans(self, index: int, block_index: int, block: Block) -> list[Span]:
        """Return the spans of the matches, of the cursor and of the token under the mouse in a block."""
        spans: list[Span] = []
        for start in _find_matches(block.text, self._query):
            is_current = (index, block_index, start) == self._current_match
            spans.append((start, start + len(self._query), "current-match" if is_current else "match"))
        entry = self.entries[index]
        if block.is_reply and isinstance(entry, Reply):
            for position, style in ((self._hovered, "hover"), (self.cursor, "cursor")):
                if position is not None and position[0] == index and position[1] < len(entry.tokens):
                    spans.append((*token_span(entry, position[1]), style))
        return spans

    def _shows_figures(self, index: int) -> bool:
        """Return True for the newest reply and the one under the cursor."""
        return super()._shows_figures(index) or (self.cursor is not None and self.cursor[0] == index)

    # Cursor

    def enter_cursor_mode(self, entry_index: int | None = None, token_index: int = -1) -> bool:
        """Put the cursor on a token of an entry, by default the last one of the latest reply.

        Returns:
            True if there is a reply to put the cursor on.
        """
        replies = self._reply_indices() if entry_index is None else [entry_index]
        if not replies:
            return False
        self._move_cursor(replies[-1], token_index)
        self.can_focus = True
        self.screen.set_focus(self, scroll_visible=False)  # at once, because the next keys are for the cursor
        return True

    def exit_cursor_mode(self) -> None:
        """Remove the cursor."""
        if self.cursor is not None:
            index, self.cursor = self.cursor[0], None
            self._repaint_entry(index)
        self.can_focus = False

    def action_step(self, offset: int) -> None:
        """Move the cursor by one token, at the end of a reply to the next reply."""
        if self.cursor is None:
            return
        index, token_index = self.cursor
        if 0 <= token_index + offset < len(self._reply(index).tokens):
            self._move_cursor(index, token_index + offset)
        elif (other := self._adjacent_reply(index, offset)) is not None:
            self._move_cursor(other, 0 if offset > 0 else -1)

    def action_step_reply(self, offset: int) -> None:
        """Move the cursor to the first token of the next or previous reply."""
        if self.cursor is not None and (other := self._adjacent_reply(self.cursor[0], offset)) is not None:
            self._move_cursor(other, 0)

    def action_go_to_token(self, token_index: int) -> None:
        """Move the cursor to a token of the same reply; -1 is the last one."""
        if self.cursor is not None:
            self._move_cursor(self.cursor[0], token_index)

    # Mouse

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the clicked token, or on the first one after a clicked prompt."""
        if event.chain == 2 and self.cursor is not None:  # the first click may have moved the words under the mouse
            self.post_message(self.TokenActivated())
        elif (position := self._token_at(event.get_content_offset(self))) is not None:
            self.enter_cursor_mode(*position)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Underline the token that a click would put the cursor on."""
        self._hover(self._token_at(event.get_content_offset(self)))

    def on_leave(self) -> None:
        """Underline no token."""
        self._hover(None)

    def _hover(self, position: tuple[int, int] | None) -> None:
        before, self._hovered = self._hovered, position
        if position != before:
            for index in {each[0] for each in (before, position) if each is not None}:
                self._repaint_entry(index)

    def _token_at(self, offset: Offset | None) -> tuple[int, int] | None:
        """Return the indices of the entry and of its token at an offset; a prompt counts as the first token."""
        if offset is None:
            return None
        line = offset.y + self.scroll_offset.y
        index = bisect_right(self._end_lines, line)
        entry = self.entries[index] if index < len(self.entries) else None
        if not isinstance(entry, Reply) or not entry.tokens:
            return None
        line -= self._first_line(index)
        for block_index, block in enumerate(entry_blocks(entry)):
            lines = self._wrap_block(block)
            if line >= len(lines):
                line -= len(lines)
                continue
            start, end = lines[line]
            cells = offset.x - self._indent(block)
            while start < end and cells >= cell_len(block.text[start]):
                cells -= cell_len(block.text[start])
                start += 1
            if cells < 0 or start == end:
                return None
            is_prompt = block_index == 0
            token_index = token_index_at(entry, start) if block.is_reply else 0 if is_prompt else -1
            return (index, token_index) if token_index >= 0 else None
        return None

    def _reply_indices(self) -> list[int]:
        """Return the indices of the entries that have tokens."""
        return [i for i, entry in enumerate(self.entries) if isinstance(entry, Reply) and entry.tokens]

    def _adjacent_reply(self, index: int, direction: int) -> int | None:
        """Return the index of the nearest entry with tokens below (direction 1) or above (-1)."""
        candidates = [other for other in self._reply_indices() if (other - index) * direction > 0]
        return min(candidates, key=lambda other: abs(other - index), default=None)

    def _reply(self, index: int) -> Reply:
        entry = self.entries[index]
        assert isinstance(entry, Reply)
        return entry

    def _move_cursor(self, index: int, token_index: int) -> None:
        """Put the cursor on a token of an entry; -1 is the last one."""
        reply = self._reply(index)
        before, self.cursor = self.cursor, (index, token_index % len(reply.tokens))
        if before is not None and before[0] != index:
            self._repaint_entry(before[0])
        self._repaint_entry(index)
        self._scroll_to_cursor()
        self.post_message(self.CursorMoved(reply, self.cursor[1]))

    def _scroll_to_cursor(self) -> None:
        assert self.cursor is not None
        index, token_index = self.cursor
        reply = self._reply(index)
        block_index = next(i for i, block in enumerate(entry_blocks(reply)) if block.is_reply)
        self._scroll_to_character(index, block_index, token_span(reply, token_index)[0])

    # Search

    def find(self, query: str, offset: int = 0) -> tuple[int, int]:
        """Highlight all matches of a query, and scroll to one of them.

        Args:
            query: Text to find, regardless of case; empty removes the highlights.
            offset: Number of matches to move down from the current one. A new query starts at the last match.

        Returns:
            Number of the current match, counted from 1, and number of matches; both 0 without a match.
        """
        if query.lower() != self._query:
            self._query, self._current_match = query.lower(), None
            self._strips.clear()
        matches = [
            (index, block_index, start)
            for index, entry in enumerate(self.entries if self._query else [])
            for block_index, block in enumerate(entry_blocks(entry))
            for start in _find_matches(block.text, self._query)
        ]
        if not matches:
            self._current_match = None
            self.refresh()
            return 0, 0
        at = len(matches) - 1
        if self._current_match is not None:
            at = (bisect_right(matches, self._current_match) - 1 + offset) % len(matches)
            self._repaint_entry(self._current_match[0])
        self._current_match = matches[at]
        self._repaint_entry(self._current_match[0])
        self._scroll_to_character(*self._current_match)
        self.refresh()
        return at + 1, len(matches)


def _find_matches(text: str, query: str) -> list[int]:
    """Return the positions of a lower-case query in a text."""
    return [match.start() for match in re.finditer(re.escape(query), text.lower())] if query else []
