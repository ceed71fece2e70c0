"""A text on the screen: its words or tokens, marks for unknown parts and line ends, and the view with a cursor."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events, message
from textual.binding import BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.strip import Strip

from engine.analysis.tokenized_text import LINE_END, TokenizedText
from engine.data.arrays import Int32Array, Int64Array
from engine.data.tokenizers import UNK, Tokenizer
from lotr_tui.formatting import LINE_END_MARK, SPACE_MARK, format_lone_token
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.line_list import LineScrollView

UNKNOWN_MARKS = ("‹", "›")
LEVELS = ("level-1", "level-2", "level-3", "level-4")  # shades of attention
DIFFERENCES = ("much-worse", "worse", "even", "better", "much-better")
_STYLES = ("gap", "token", "label", "unknown", "cursor", "dim", "usual", "surprising", "strong", *LEVELS, *DIFFERENCES)
Marks = Mapping[int, tuple[str, str]]  # texts before and after some items, by their indices
NO_MARKS: Marks = {}
BoolArray = npt.NDArray[np.bool_]


def sanitize_text(text: str) -> str:
    """Return `text` with every line end as a line feed and other unprintable characters as spaces.

    A tokenizer of words finds the same words in both texts.
    """
    text = LINE_END.sub("\n", text)
    return text.translate({ord(c): " " for c in set(text) if c != "\n" and not c.isprintable()})


@dataclass
class Page:
    """A sanitized text ready for display, with marks around unknown parts and before line ends that are tokens.

    The items of the text, which have styles of their own and which a cursor selects, are its words or its tokens.
    """

    tokens: TokenizedText
    text: str
    starts: Int32Array
    ends: Int32Array
    unknown_mask: BoolArray
    specials: list[tuple[int, int, str]]  # start, end and style of each label and of unreadable characters, in order
    cell_offsets: Int64Array | None = field(init=False)

    def __post_init__(self) -> None:
        self.cell_offsets = _cell_offsets(self.text)

    @classmethod
    def from_words(cls, tokens: TokenizedText, marks: Marks = NO_MARKS) -> "Page":
        return cls._lay_out(tokens, *tokens.word_spans, tokens.unknown_words, marks)

    @classmethod
    def from_tokens(cls, tokens: TokenizedText) -> "Page":
        """Lay out the tokens of a text; a later byte of a character, which cannot be shown, has the place of all."""
        is_later_byte = tokens.start_offsets == tokens.end_offsets
        first_bytes = np.maximum.accumulate(np.where(is_later_byte, 0, np.arange(len(tokens))))
        starts, ends = tokens.start_offsets[first_bytes], tokens.end_offsets[first_bytes]
        return cls._lay_out(tokens, starts, ends, tokens.unknown_mask, NO_MARKS)

    @classmethod
    def plain(cls, text: str, spans: Sequence[tuple[int, int]] = (), marks: Marks = NO_MARKS) -> "Page":
        """Lay out a text that no model reads, with the items at `spans`."""
        items, empty = np.array(spans, np.int32).reshape(-1, 2), np.empty(0, np.int32)
        tokens = TokenizedText(text, empty, empty, empty, empty, empty)
        return cls._lay_out(tokens, items[:, 0], items[:, 1], np.zeros(len(items), np.bool_), marks)

    @classmethod
    def _lay_out(
        cls, tokens: TokenizedText, starts: Int32Array, ends: Int32Array, unknown_mask: BoolArray, marks: Marks
    ) -> "Page":
        text, is_unknown = tokens.text, unknown_mask.tolist()
        items = enumerate(zip(starts.tolist(), ends.tolist(), strict=True))
        spans = [(start, end, index, "") for index, (start, end) in items]
        spans += [(start, end, -1, "unknown") for start, end in tokens.skipped_spans.tolist()]
        spans += [(start, end, -1, "label") for start, end in tokens.label_spans.tolist()]
        page_starts, page_ends = np.empty_like(starts), np.empty_like(ends)
        specials: list[tuple[int, int, str]] = []
        parts, length, copied, place, first, last = list[str](), 0, 0, (-1, -1), 0, 0
        for start, end, index, style in sorted(spans, key=itemgetter(0)):
            if (start, end) != place:  # otherwise a later byte of the same character
                place, shown = (start, end), text[start:end]
                if not style and shown.endswith("\n"):
                    # The item of a line end is its mark alone, without spaces before it and the line feed.
                    start, end, shown = end - 1, end - 1, LINE_END_MARK
                elif style == "unknown" or (not style and is_unknown[index]):
                    shown = shown.join(UNKNOWN_MARKS)
                before, after = marks.get(index, ("", ""))
                parts += [text[copied:start], before, shown, after]
                first = length + start - copied + len(before)
                last = first + len(shown)
                length, copied = last + len(after), end
            if style:
                specials.append((first, last, style))
            else:
                page_starts[index], page_ends[index] = first, last
        return cls(tokens, "".join([*parts, text[copied:]]), page_starts, page_ends, unknown_mask, specials)


def _cell_offsets(text: str) -> Int64Array | None:
    """Return the cells before each character of a text and before its end; None if every character takes one."""
    unusual_widths = {ord(c): width for c in set(text) if (width := cell_len(c)) != 1 and c != "\n"}
    if not unusual_widths:
        return None
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    widths = np.ones(int(codes.max()) + 1, np.int64)
    for code, width in unusual_widths.items():
        widths[code] = width
    return np.concatenate([[0], np.cumsum(widths[codes])])


def break_lines(page: Page, width: int) -> tuple[Int32Array, Int32Array]:
    """Break the text of a page into lines of at most `width` cells, at spaces where possible.

    Returns:
        The position of each line's first character and the position after its last one, both `[lines]`.
    """
    text, cells = page.text, page.cell_offsets
    starts, ends = [], []
    start = 0
    while start <= len(text):
        paragraph_end = text.find("\n", start)
        paragraph_end = len(text) if paragraph_end < 0 else paragraph_end
        while True:
            starts.append(start)
            limit = start + width
            if cells is not None:
                limit = int(np.searchsorted(cells, cells[start] + width, side="right")) - 1
            if limit >= paragraph_end:
                ends.append(paragraph_end)
                break
            space = text.rfind(" ", start, limit + 1)
            # Breaking after the indentation would leave a line of spaces.
            end = space if space > start and not text[start:space].isspace() else max(limit, start + 1)
            ends.append(end)
            start = end
            while start < paragraph_end and text[start] == " ":
                start += 1
            if start == paragraph_end and end < paragraph_end:
                break
        start = paragraph_end + 1
    return np.array(starts, np.int32), np.array(ends, np.int32)


def visible_part(text: str) -> str:
    """Return a token of a text without the space before a word; spaces alone and line ends as marks."""
    if text.endswith("\n"):
        return LINE_END_MARK
    return text.strip(" ") or SPACE_MARK * len(text)


def token_names(page: Page, tokenizer: Tokenizer) -> list[str]:
    """Return the name of each token of a text: "·wiz" and "ard" for " wizard", "😀" and "<0x9F>" for two bytes."""
    if page.tokens.unk_id is not None:
        return [page.text[start:end] for start, end in zip(page.starts, page.ends, strict=True)]
    names = []
    for index, id in enumerate(page.tokens.ids.tolist()):
        text, token = page.tokens[index] or tokenizer.tokens[id], tokenizer.tokens[id]
        # The space between the name of a speaker and the text is no part of the text, but of its first token.
        space = " " if index in page.tokens.heads and token.startswith(" ") and not text.startswith(" ") else ""
        names.append(LINE_END_MARK if text.endswith("\n") else format_lone_token(space + text))
    return names


def next_token_name(tokenizer: Tokenizer, id: int) -> str:
    """Return the name of a possible next token, which is `<unk>` for all words outside the vocabulary."""
    if id == tokenizer.unk_id:
        return UNK
    return format_lone_token(tokenizer.tokens[id], ends_text=tokenizer.reads_line_ends)


class TextView(LineScrollView, can_focus=True):
    """The words or tokens of a page. Each style also differs in weight or underline, for terminals without colour."""

    # Here and not in a screen's file: Textual does not read the style sheet of an app's first screen.
    DEFAULT_CSS = """
    TextView { overflow-y: auto; }
    TextView > .text-view--gap { color: $muted; text-style: $muted-style; }
    TextView > .text-view--token, TextView > .text-view--usual { color: $foreground; }
    TextView > .text-view--label { color: $foreground; text-style: bold; }
    TextView > .text-view--unknown { color: $secondary; text-style: italic; }
    TextView > .text-view--cursor { text-style: reverse; }
    TextView:focus > .text-view--cursor { text-style: bold reverse; }
    TextView > .text-view--dim, TextView > .text-view--even { color: $foreground; text-style: dim; }
    TextView > .text-view--surprising { color: $foreground; background: $accent 20%; text-style: underline; }
    TextView > .text-view--strong { color: $foreground; background: $accent 50%; text-style: bold underline; }
    TextView > .text-view--level-1 { background: $accent 12%; text-style: underline; }
    TextView > .text-view--level-2 { background: $accent 25%; text-style: underline; }
    TextView > .text-view--level-3 { background: $accent 45%; text-style: bold underline; }
    TextView > .text-view--level-4 { background: $accent 65%; text-style: bold italic underline; }
    TextView > .text-view--better { color: $foreground; background: $success 20%; text-style: underline; }
    TextView > .text-view--much-better { color: $foreground; background: $success 45%; text-style: bold underline; }
    TextView > .text-view--worse { color: $foreground; background: $error 20%; }
    TextView > .text-view--much-worse { color: $foreground; background: $error 45%; text-style: bold; }
    /* A percentage of a colour of the terminal is that colour, on which other text is hard to read. */
    TextView:ansi {
        & > .text-view--surprising, & > .text-view--level-3 { color: $accent; background: $background; }
        & > .text-view--strong, & > .text-view--level-4 { color: $block-cursor-foreground; background: $accent; }
        & > .text-view--level-1, & > .text-view--level-2 { background: $background; }
        & > .text-view--better { color: $success; background: $background; }
        & > .text-view--much-better { color: $block-cursor-foreground; background: $success; }
        & > .text-view--worse { color: $error; background: $background; }
        & > .text-view--much-worse { color: $block-cursor-foreground; background: $error; }
    }
    """
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

    class CursorMoved(message.Message):
        """Posted when the cursor has moved to another word or token."""

    class FocusChanged(message.Message):
        """Posted when the view gets or loses the focus, and with it its cursor."""

    def __init__(
        self,
        placeholder: str,
        help_line: str,
        style_of: Callable[[int], Sequence[str]] | None = None,
        gap_style_of: Callable[[int], Sequence[str]] = lambda index: ("gap",),
        *,
        id: str = "text",
    ) -> None:
        """Show `placeholder` until there is a text.

        `style_of` returns the names of the styles of an item, the later ones before the others, and `gap_style_of` the
        ones of the characters before it.
        """
        super().__init__(id=id)
        self.HELP_LINE = help_line
        self._placeholder = placeholder
        self.style_of, self._gap_style_of = style_of or self.default_styles, gap_style_of
        self._style_cache: dict[Sequence[str], Style] = {}
        self.page = Page.plain(placeholder)
        self._line_starts, self._line_ends = break_lines(self.page, 80)
        self.marks: Sequence[int] | None = None  # items to which the next and the previous one leads; None for all
        self.cursor = 0  # index of the item under the cursor

    def show(self, page: Page, cursor: int = 0) -> None:
        """Show a page, with the cursor on the item nearest to `cursor`."""
        is_blank = not len(page.starts) and all(style == "label" for *_, style in page.specials)
        self.page = Page.plain(self._placeholder) if is_blank else page
        self.cursor = max(0, min(cursor, len(page.starts) - 1))
        self._rebreak_lines()

    def default_styles(self, index: int) -> tuple[str, ...]:
        return (*self.base_styles(index), "cursor") if self.is_under_cursor(index) else self.base_styles(index)

    def base_styles(self, index: int) -> tuple[str, ...]:
        return ("unknown",) if self.page.unknown_mask[index] else ("token",)

    def is_under_cursor(self, index: int) -> bool:
        """Return True for the item under the cursor, and for the other bytes of the same character."""
        return bool(self.page.starts[index] == self.page.starts[self.cursor])

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
            segments.append(Segment(text[start:end], self._style(tuple(self.style_of(index)))))
            painted = end
        segments += self._gap_segments(painted, line_end, last)
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _gap_segments(self, start: int, end: int, index: int) -> list[Segment]:
        """Return the characters before item `index`; labels and unreadable characters have styles of their own."""
        text, specials, style = self.page.text, self.page.specials, self._style(tuple(self._gap_style_of(index)))
        first = bisect_right(specials, start, key=itemgetter(1))
        segments = []
        for special_start, special_end, name in specials[first : bisect_left(specials, end, key=itemgetter(0))]:
            segments.append(Segment(text[start : max(start, special_start)], style))
            segments.append(Segment(text[max(start, special_start) : min(end, special_end)], self._style((name,))))
            start = min(end, special_end)
        return [*segments, Segment(text[start:end], style)]

    def _style(self, names: tuple[str, ...]) -> Style:
        if names not in self._style_cache:
            self._style_cache[names] = self.get_component_rich_style(*(f"text-view--{name}" for name in names))
        return self._style_cache[names]

    def legend(self, texts: Sequence[str], styles: Sequence[str]) -> Content:
        """Return texts on a line, each in a style of the view."""
        visual_styles = (self.get_visual_style(f"text-view--{name}") for name in styles)
        return Content("  ").join(map(Content.styled, texts, visual_styles))

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

    def action_step_to_end(self, direction: int) -> None:
        self.action_step(direction * len(self.page.starts))

    def action_step_line(self, direction: int) -> None:
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

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and (line := offset.y + self.scroll_offset.y) < len(self._line_starts):
            self.move_cursor(self.cursor if (index := self._nearest_item(line, offset.x)) is None else index)
