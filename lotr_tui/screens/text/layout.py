"""A text set out to be shown: what is marked in it, and where its lines break. Pure functions, no colours."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len

from engine.analysis.token_scores import LINE_END, Integers, Words
from engine.data.vocabulary import EOS_ID

UNKNOWN_MARKS, LINE_END_MARK = ("‹", "›"), "¶"


def clean(text: str) -> str:
    """`text` fit to be shown: line ends become line feeds, what else cannot be printed becomes white space.

    For a tokenizer both are what they were before.
    """
    text = LINE_END.sub("\n", text)
    return text.translate({ord(c): " " for c in set(text) if c != "\n" and not c.isprintable()})


@dataclass(frozen=True)
class Page:
    """A clean text as it is shown: marks around unknown words, and on line ends that are read."""

    words: Words
    text: str
    starts: Integers
    """`[words]`: where each word starts in this text, its marks included."""
    ends: Integers
    cells: npt.NDArray[np.int64] | None
    """`[characters + 1]`: terminal cells before each character; None where every character takes one."""

    @classmethod
    def of(cls, words: Words) -> "Page":
        """Set out `words`, whose text is clean."""
        text, pieces, behind = words.text, [], 0
        line_end = np.zeros(len(words), bool)
        marks = np.where(words.unknown, 2, 0)
        for index in np.flatnonzero(words.unknown | (words.ids == EOS_ID)).tolist():
            start, end = int(words.starts[index]), int(words.ends[index])
            if words.unknown[index]:
                pieces += [text[behind:start], UNKNOWN_MARKS[0], text[start:end], UNKNOWN_MARKS[1]]
                behind = end
            elif text[start] == "\n":
                line_end[index] = True
                marks[index] = 1
                pieces += [text[behind:start], LINE_END_MARK]
                behind = start
        shown = "".join([*pieces, text[behind:]])
        before = np.cumsum(marks) - marks
        ends = words.ends + before + marks - line_end  # the line end itself is no part of its mark
        return cls(words, shown, (words.starts + before).astype(np.int32), ends.astype(np.int32), _cells(shown))

    @classmethod
    def without_words(cls, text: str) -> "Page":
        """Something to say where there is no text."""
        none = np.empty(0, np.int32)
        return cls(Words(text, none, none, none, none), text, none, none, _cells(text))


def _cells(text: str) -> npt.NDArray[np.int64] | None:
    unusual = {ord(c): width for c in set(text) if (width := cell_len(c)) != 1 and c != "\n"}
    if not unusual:
        return None
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    widths = np.ones(int(codes.max()) + 1, np.int64)
    for code, width in unusual.items():
        widths[code] = width
    return np.concatenate([[0], np.cumsum(widths[codes])])


def break_lines(page: Page, width: int) -> tuple[Integers, Integers]:
    """First character of each line, and the one behind its last; broken at spaces where there are any."""
    text, cells = page.text, page.cells
    starts, ends = [], []
    begin = 0
    while begin <= len(text):
        stop = text.find("\n", begin)
        stop = len(text) if stop < 0 else stop
        while True:
            starts.append(begin)
            if cells is None:
                reach = begin + width
            else:
                reach = int(np.searchsorted(cells, cells[begin] + width, side="right")) - 1
            if reach >= stop:
                ends.append(stop)
                break
            space = text.rfind(" ", begin, reach + 1)
            # A line of nothing but its indentation is no place to break.
            end = space if space > begin and not text[begin:space].isspace() else max(reach, begin + 1)
            ends.append(end)
            begin = end
            while begin < stop and text[begin] == " ":
                begin += 1
            if begin == stop and end < stop:
                break
        begin = stop + 1
    return np.array(starts, np.int32), np.array(ends, np.int32)
