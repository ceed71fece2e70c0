"""View of the words of a text with the bits of each below it, and a cursor on one of them."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from engine.analysis.token_scores import TokenScores
from lotr_tui.formatting import LINE_END_MARK, truncate
from lotr_tui.screens.inspect.page import UNKNOWN_MARKS, visible_part
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.line_list import LineScrollView

GAP = 2
"""Columns between two words."""
UNSCORED = "·"
ROW_HEIGHT = 2
"""Lines of a row: the words, and their bits."""
THRESHOLDS = (3.0, 6.0, 10.0)
"""Bits that separate the four shades."""
SHADES = ("expected", "usual", "surprising", "astonishing")


@dataclass(frozen=True)
class _Cell:
    """A word and its bits at a place of the view."""

    row: int
    x: int
    width: int
    word: str
    bits: str
    shade: str

    @property
    def middle(self) -> float:
        """Column of the middle of the word."""
        return self.x + self.width / 2


class WordBits(LineScrollView, can_focus=True):
    """Words in rows, shaded by their surprisal, with the bits of each word below it. Posts `Moved`."""

    DEFAULT_CSS = """
    WordBits { overflow-y: auto; height: 1fr; min-height: 2; }
    WordBits > .word-bits--bits { color: $muted; text-style: $muted-style; }
    WordBits > .word-bits--expected { color: $foreground; text-style: dim; }
    WordBits > .word-bits--usual { color: $foreground; }
    WordBits > .word-bits--surprising { color: $foreground; background: $accent 20%; text-style: underline; }
    WordBits > .word-bits--astonishing { color: $foreground; background: $accent 50%; text-style: bold underline; }
    WordBits > .word-bits--cursor { text-style: reverse; }
    WordBits:focus > .word-bits--cursor { text-style: bold reverse; }
    /* A percentage of a colour of the terminal is that colour, on which other text is hard to read. */
    WordBits:ansi {
        & > .word-bits--surprising { color: $accent; background: $background; }
        & > .word-bits--astonishing { color: $block-cursor-foreground; background: $accent; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"word-bits--{name}" for name in ("bits", "cursor", *SHADES)}
    BINDING_GROUP_TITLE = "Words"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-perplexity",
        """
        left  | left  | step(-1)        | previous word | The previous word
        right | right | step(1)         | next word     | The next word
        up    | up    | step_row(-1)    | row up        | A word of the row above
        down  | down  | step_row(1)     | row down      | A word of the row below
        first | home  | step_to_end(-1) | first word    | The first word of the line
        last  | end   | step_to_end(1)  | last word     | The last word of the line
        """,
    )
    HELP_LINE = "← → from word to word; typing changes the line"

    class Moved(Message):
        """Posted when the user has moved the cursor to another word."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.cursor = 0
        """Index of the word under the cursor."""
        self.scores: TokenScores | None = None
        """Scores of the text; None before the first text."""
        self._cells: list[_Cell] = []

    def show(self, scores: TokenScores, cursor: int) -> None:
        """Show a text with its scores so far, and the cursor on the word nearest to an index."""
        self.scores = scores
        self.cursor = max(0, min(cursor, scores.tokens.num_words - 1))
        self._lay_out()

    # Layout

    def _lay_out(self) -> None:
        """Place the words in rows."""
        self._cells = []
        if self.scores is None:
            return
        tokens, width = self.scores.tokens, max(1, self.scrollable_content_region.width)
        row, x = 0, 0
        bits = self.scores.word_bits.tolist()
        for index, is_unknown in enumerate(tokens.unknown_words.tolist()):
            written = tokens.word(index)
            is_line_end = written.endswith("\n")
            word = LINE_END_MARK if is_line_end else visible_part(written)
            word = truncate(word.join(UNKNOWN_MARKS) if is_unknown else word, width)
            number = UNSCORED if np.isnan(bits[index]) else f"{bits[index]:.1f}"
            cell_width = max(cell_len(word), len(number))
            if x and x + cell_width > width:
                row, x = row + 1, 0
            shade = "bits" if np.isnan(bits[index]) else SHADES[int(np.digitize(bits[index], THRESHOLDS))]
            self._cells.append(_Cell(row, x, cell_width, word, number, shade))
            row, x = (row + 1, 0) if is_line_end else (row, x + cell_width + GAP)
        self.virtual_size = Size(self.size.width, ROW_HEIGHT * self._num_rows)
        self._scroll_to_cursor()
        self.refresh()

    @property
    def _num_rows(self) -> int:
        return self._cells[-1].row + 1 if self._cells else 0

    def _row_indices(self, row: int) -> range:
        """Return the words of a row."""
        first, end = (bisect_left(self._cells, each, key=lambda cell: cell.row) for each in (row, row + 1))
        return range(first, end)

    def _scroll_to_cursor(self) -> None:
        if self._cells:
            top = ROW_HEIGHT * self._cells[self.cursor].row
            self.scroll_to_line(top + ROW_HEIGHT - 1)
            self.scroll_to_line(top)

    def on_resize(self) -> None:
        """Place the words for the new width."""
        self._lay_out()

    # Painting

    def render_line(self, y: int) -> Strip:
        """Render the words or the bits of a row."""
        row, part = divmod(y + self.scroll_offset.y, ROW_HEIGHT)
        blank = self.rich_style
        segments: list[Segment] = []
        end = 0
        for index in self._row_indices(row):
            cell = self._cells[index]
            segments.append(Segment(" " * (cell.x - end), blank))
            text = cell.bits if part else cell.word
            segments.append(Segment(text, self._style(index, "bits" if part else cell.shade)))
            end = cell.x + cell_len(text)
        return Strip(segments).adjust_cell_length(self.size.width, blank)

    def _style(self, index: int, name: str) -> Style:
        names = [f"word-bits--{name}"]
        if index == self.cursor:
            names.append("word-bits--cursor")
        return self.get_component_rich_style(*names)

    # Cursor

    def move_cursor(self, index: int) -> None:
        """Move the cursor to the word nearest to an index."""
        index = max(0, min(index, len(self._cells) - 1))
        if self._cells and index != self.cursor:
            self.cursor = index
            self._scroll_to_cursor()
            self.refresh()
            self.post_message(self.Moved())

    def action_step(self, offset: int) -> None:
        """Move the cursor by a number of words."""
        self.move_cursor(self.cursor + offset)

    def action_step_row(self, offset: int) -> None:
        """Move the cursor to the nearest word of a row above or below."""
        if self._cells:
            here = self._cells[self.cursor]
            self._move_to(here.row + offset, here.middle)

    def action_step_to_end(self, direction: int) -> None:
        """Move the cursor to the first word if `direction` is -1, or to the last one if it is 1."""
        self.move_cursor(self.cursor + direction * len(self._cells))

    def _move_to(self, row: int, x: float) -> None:
        """Move the cursor to the word of a row that is nearest to a column, if there is such a row."""
        if indices := self._row_indices(row):
            self.move_cursor(min(indices, key=lambda index: abs(self._cells[index].middle - x)))

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the clicked word."""
        offset = event.get_content_offset(self)
        if offset is not None:
            self._move_to((offset.y + self.scroll_offset.y) // ROW_HEIGHT, offset.x + 0.5)
