"""Line breaking of the paragraphs of a transcript."""

import re

from rich.cells import cell_len

_NOT_SPACE = re.compile(r"[^ ]+")


def wrap(text: str, width: int) -> list[tuple[int, int]]:
    """Break a paragraph between words into lines of at most `width` cells. Return the start and end of each line.

    A word wider than `width` is broken. The spaces between two lines belong to neither.
    """
    width = max(1, width)
    if text.isascii() and "  " not in text:
        return _wrap_ascii(text, width)
    cells = len if text.isascii() else cell_len
    lines: list[tuple[int, int]] = []
    offset = 0
    for line in text.split("\n"):
        start = end = offset
        for match in _NOT_SPACE.finditer(line):
            word_start, word_end = offset + match.start(), offset + match.end()
            if end > start and cells(text[start:word_end]) > width:
                lines.append((start, end))
                start = word_start
            while cells(text[start:word_end]) > width:
                cut = _fitting_length(text[start:word_end], width)
                lines.append((start, start + cut))
                start += cut
            end = word_end
        lines.append((start, max(start, end)))
        offset += len(line) + 1
    return lines


def _wrap_ascii(text: str, width: int) -> list[tuple[int, int]]:
    """Wrap ASCII text without double spaces, as `wrap` does, but fast enough for thousands of replies."""
    lines: list[tuple[int, int]] = []
    start = 0
    for line in text.split("\n"):
        next_start = start + len(line) + 1
        end = start + len(line.rstrip(" "))
        while end - start > width:
            space = text.rfind(" ", start + 1, start + width + 1)
            cut = space if space > 0 else start + width
            lines.append((start, cut))
            start = cut + 1 if space > 0 else cut
        lines.append((start, end if end > start else start))
        start = next_start
    return lines


def _fitting_length(text: str, width: int) -> int:
    """Return how many characters fit into `width` cells; at least one, even if it is wider."""
    cells = 0
    for index, character in enumerate(text):
        cells += cell_len(character)
        if cells > width:
            return max(1, index)
    return len(text)
