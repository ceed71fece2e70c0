"""Layout of a tokenized text for display: marks for unknown parts and line ends, and line breaks."""

from dataclasses import dataclass, field

import numpy as np
from rich.cells import cell_len

from engine.analysis.token_scores import LINE_END, TokenizedText
from engine.data.arrays import Int32Array, Int64Array
from engine.data.vocabulary import EOS_ID
from lotr_tui.formatting import LINE_END_MARK

UNKNOWN_MARKS = ("‹", "›")


def sanitize_text(text: str) -> str:
    """Return `text` with every line end as a line feed and other unprintable characters as spaces.

    A tokenizer finds the same tokens in both texts.
    """
    text = LINE_END.sub("\n", text)
    return text.translate({ord(c): " " for c in set(text) if c != "\n" and not c.isprintable()})


@dataclass
class Page:
    """A sanitized text ready for display, with marks around unknown parts and before line ends read as `<eos>`."""

    tokens: TokenizedText
    text: str
    """The text of `tokens` with the marks inserted."""
    starts: Int32Array
    """Position in `text` of each token's first character, its mark included: `[tokens]`."""
    ends: Int32Array
    """Position in `text` after each token's last character, its mark included: `[tokens]`."""
    skipped_spans: Int32Array = field(default_factory=lambda: np.empty((0, 2), np.int32))
    """Start and end in `text`, marks included, of the characters that the tokenizer cannot read: `[runs, 2]`."""
    cell_offsets: Int64Array | None = field(init=False)
    """Terminal cells before each character: `[characters + 1]`. None if every character is one cell wide."""

    def __post_init__(self) -> None:
        self.cell_offsets = _cell_offsets(self.text)

    @classmethod
    def from_tokens(cls, tokens: TokenizedText) -> "Page":
        """Lay out a text that `sanitize_text` has cleaned."""
        text, num_tokens = tokens.text, len(tokens)
        skipped_starts, skipped_ends = tokens.skipped_spans.T
        starts = np.concatenate([tokens.start_offsets, skipped_starts])
        ends = np.concatenate([tokens.end_offsets, skipped_ends])
        is_unknown = np.concatenate([tokens.unknown_mask, np.ones(len(skipped_starts), bool)])
        # In the `whitespace` tokenizer, an <eos> may be written out.
        is_line_end = np.zeros(len(starts), bool)
        for index in np.flatnonzero(tokens.ids == EOS_ID).tolist():
            is_line_end[index] = text[int(starts[index])] == "\n"
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
        # The token of a line end is its mark alone, without the line feed.
        page_ends = (ends + shifts + mark_widths - is_line_end).astype(np.int32)
        return cls(
            tokens,
            "".join([*parts, text[copied:]]),
            page_starts[:num_tokens],
            page_ends[:num_tokens],
            np.stack([page_starts[num_tokens:], page_ends[num_tokens:]], axis=1),
        )

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
