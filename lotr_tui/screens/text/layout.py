"""Layout of a tokenized text for display: marks for unknown words and line ends, and line breaks."""

from dataclasses import dataclass, field

import numpy as np
from rich.cells import cell_len

from engine.analysis.token_scores import LINE_END, TokenizedText
from engine.data.arrays import Int32Array, Int64Array
from engine.data.vocabulary import EOS_ID

UNKNOWN_MARKS, LINE_END_MARK = ("‹", "›"), "¶"


def sanitize_text(text: str) -> str:
    """Return `text` with every line end as a line feed and other unprintable characters as spaces.

    A tokenizer finds the same tokens in both texts.
    """
    text = LINE_END.sub("\n", text)
    return text.translate({ord(c): " " for c in set(text) if c != "\n" and not c.isprintable()})


@dataclass
class Page:
    """A sanitized text ready for display, with marks around unknown words and before line ends read as `<eos>`."""

    tokens: TokenizedText
    text: str
    """The text of `tokens` with the marks inserted."""
    starts: Int32Array
    """Position in `text` of each token's first character, its mark included: `[tokens]`."""
    ends: Int32Array
    """Position in `text` after each token's last character, its mark included: `[tokens]`."""
    cell_offsets: Int64Array | None = field(init=False)
    """Terminal cells before each character: `[characters + 1]`. None if every character is one cell wide."""

    def __post_init__(self) -> None:
        self.cell_offsets = _cell_offsets(self.text)

    @classmethod
    def from_tokens(cls, tokens: TokenizedText) -> "Page":
        """Lay out a text that `sanitize_text` has cleaned."""
        text, parts, copied = tokens.text, [], 0
        is_line_end = np.zeros(len(tokens), bool)
        mark_widths = np.where(tokens.unknown_mask, 2, 0)
        for index in np.flatnonzero(tokens.unknown_mask | (tokens.ids == EOS_ID)).tolist():
            start, end = int(tokens.start_offsets[index]), int(tokens.end_offsets[index])
            if tokens.unknown_mask[index]:
                parts += [text[copied:start], UNKNOWN_MARKS[0], text[start:end], UNKNOWN_MARKS[1]]
                copied = end
            elif text[start] == "\n":
                is_line_end[index] = True
                mark_widths[index] = 1
                parts += [text[copied:start], LINE_END_MARK]
                copied = start
        shifts = np.cumsum(mark_widths) - mark_widths
        starts = (tokens.start_offsets + shifts).astype(np.int32)
        # The token of a line end is its mark alone, without the line feed.
        ends = (tokens.end_offsets + shifts + mark_widths - is_line_end).astype(np.int32)
        return cls(tokens, "".join([*parts, text[copied:]]), starts, ends)

    @classmethod
    def placeholder(cls, text: str) -> "Page":
        """Return a page that shows a hint and has no tokens."""
        empty = np.empty(0, np.int32)
        return cls(TokenizedText(text, empty, empty, empty, empty), text, empty, empty)


def _cell_offsets(text: str) -> Int64Array | None:
    """Return the terminal cells before each character `[characters + 1]`, or None if all are one cell wide."""
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
