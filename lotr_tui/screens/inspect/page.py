"""Text laid out for display: its words or tokens with their names, marks for unknown parts and line ends, lines."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len

from engine.analysis.tokenized_text import LINE_END, TokenizedText
from engine.data.arrays import Int32Array, Int64Array
from engine.data.tokenizers import UNK, Tokenizer
from lotr_tui.formatting import LINE_END_MARK, SPACE_MARK, format_lone_token

UNKNOWN_MARKS = ("‹", "›")
_WORD = re.compile(r"\S+")


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
    unknown_mask: npt.NDArray[np.bool_]
    skipped_spans: Int32Array = field(default_factory=lambda: np.empty((0, 2), np.int32))
    label_spans: Int32Array = field(default_factory=lambda: np.empty((0, 2), np.int32))
    cell_offsets: Int64Array | None = field(init=False)

    def __post_init__(self) -> None:
        self.cell_offsets = _cell_offsets(self.text)

    @classmethod
    def from_words(cls, tokens: TokenizedText) -> "Page":
        return cls._lay_out(tokens, *tokens.word_spans, tokens.unknown_words)

    @classmethod
    def from_tokens(cls, tokens: TokenizedText) -> "Page":
        """Lay out the tokens of a text that `sanitize_text` has cleaned.

        The bytes of a character are at the same place, since a part of a character cannot be shown.
        """
        is_later_byte = tokens.start_offsets == tokens.end_offsets
        first_bytes = np.maximum.accumulate(np.where(is_later_byte, 0, np.arange(len(tokens))))
        starts, ends = tokens.start_offsets[first_bytes], tokens.end_offsets[first_bytes]
        return cls._lay_out(tokens, starts, ends, tokens.unknown_mask)

    @classmethod
    def _lay_out(
        cls, tokens: TokenizedText, starts: Int32Array, ends: Int32Array, unknown_mask: npt.NDArray[np.bool_]
    ) -> "Page":
        text, num_items = tokens.text, len(starts)
        # The tokens of a line end: <eos>, or in an open vocabulary the character, maybe after trailing spaces.
        is_line_end = np.array([text[end - 1] == "\n" for end in ends.tolist()], np.bool_)
        starts = np.where(is_line_end, ends - 1, starts)
        num_skipped, num_labels = len(tokens.skipped_spans), len(tokens.label_spans)
        starts = np.concatenate([starts, tokens.skipped_spans[:, 0], tokens.label_spans[:, 0]])
        ends = np.concatenate([ends, tokens.skipped_spans[:, 1], tokens.label_spans[:, 1]])
        is_line_end = np.append(is_line_end, np.zeros(num_skipped + num_labels, np.bool_))
        is_unknown = np.concatenate([unknown_mask, np.ones(num_skipped, np.bool_), np.zeros(num_labels, np.bool_)])
        order = np.argsort(starts, kind="stable")
        mark_widths = np.where(is_unknown, 2, is_line_end.astype(int))
        shifts = np.empty(len(starts), np.int64)
        shifts[order] = np.cumsum(mark_widths[order]) - mark_widths[order]
        parts, copied = [], 0
        for index in order[mark_widths[order] > 0].tolist():
            start, end = int(starts[index]), int(ends[index])
            if is_line_end[index]:
                parts += [text[copied:start], LINE_END_MARK]
                copied = start
            else:
                parts += [text[copied:start], UNKNOWN_MARKS[0], text[start:end], UNKNOWN_MARKS[1]]
                copied = end
        page_starts = (starts + shifts).astype(np.int32)
        # The item of a line end is its mark alone, without the line feed.
        page_ends = (ends + shifts + mark_widths - is_line_end).astype(np.int32)
        other_spans = np.stack([page_starts[num_items:], page_ends[num_items:]], axis=1)
        return cls(
            tokens,
            "".join([*parts, text[copied:]]),
            page_starts[:num_items],
            page_ends[:num_items],
            unknown_mask,
            other_spans[:num_skipped],
            other_spans[num_skipped:],
        )

    def with_marks(self, before: Sequence[str], after: Sequence[str]) -> "Page":
        """Return the page with texts `[items]` inserted before and after its items."""
        num_items = len(self.starts)
        parts, copied, shift = [], 0, 0
        starts, ends = np.empty_like(self.starts), np.empty_like(self.ends)
        gap_shifts = np.zeros(num_items + 1, np.int32)  # of the characters after each item; the first is before any
        for index in range(num_items):
            start, end = int(self.starts[index]), int(self.ends[index])
            parts += [self.text[copied:start], before[index], self.text[start:end], after[index]]
            shift += len(before[index])
            starts[index], ends[index] = start + shift, end + shift
            shift += len(after[index])
            gap_shifts[index + 1] = shift
            copied = end
        return replace(
            self,
            text="".join([*parts, self.text[copied:]]),
            starts=starts,
            ends=ends,
            skipped_spans=self._shift_gaps(self.skipped_spans, gap_shifts),
            label_spans=self._shift_gaps(self.label_spans, gap_shifts),
        )

    def _shift_gaps(self, spans: Int32Array, gap_shifts: Int32Array) -> Int32Array:
        shifted: Int32Array = spans + gap_shifts[np.searchsorted(self.ends, spans[:, :1], side="right")]
        return shifted

    @classmethod
    def from_written_words(cls, text: str) -> "Page":
        page = cls.placeholder(text)
        spans = np.array([match.span() for match in _WORD.finditer(text)], np.int32).reshape(-1, 2)
        return replace(page, starts=spans[:, 0], ends=spans[:, 1], unknown_mask=np.zeros(len(spans), np.bool_))

    @classmethod
    def placeholder(cls, text: str) -> "Page":
        empty = np.empty(0, np.int32)
        tokens = TokenizedText(text, empty, empty, empty, empty, empty)
        return cls(tokens, text, empty, empty, np.empty(0, np.bool_))


def _cell_offsets(text: str) -> Int64Array | None:
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
            if cells is None:
                limit = start + width
            else:
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


PART_SEPARATOR = "|"


def visible_part(text: str) -> str:
    """Return a token of a text without the space before a word; spaces alone and line ends as marks."""
    if text.endswith("\n"):
        return LINE_END_MARK
    return text.strip(" ") or SPACE_MARK * len(text)


def part_names(tokens: TokenizedText, tokenizer: Tokenizer) -> list[str]:
    """Return the name of each token of a text: "·wiz" and "ard" for " wizard", "😀" and "<0x9F>" for two bytes.

    The space between the name of a speaker and the text is no part of the text, but of its first token.
    """
    names = []
    for index, id in enumerate(tokens.ids.tolist()):
        text, token = tokens[index] or tokenizer.tokens[id], tokenizer.tokens[id]
        space = " " if index in tokens.heads and token.startswith(" ") and not text.startswith(" ") else ""
        names.append(LINE_END_MARK if text.endswith("\n") else format_lone_token(space + text))
    return names


def token_names(page: Page, tokenizer: Tokenizer) -> list[str]:
    if page.tokens.unk_id is None:
        return part_names(page.tokens, tokenizer)
    return [page.text[start:end] for start, end in zip(page.starts, page.ends, strict=True)]


def next_token_name(tokenizer: Tokenizer, id: int) -> str:
    """Return the name of a possible next token, which is `<unk>` for all words outside the vocabulary."""
    if id == tokenizer.unk_id:
        return UNK
    return format_lone_token(tokenizer.tokens[id], ends_text=tokenizer.reads_line_ends)
