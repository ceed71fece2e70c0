"""Output of the plain commands: tables, wrapped text and JSON."""

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

MIN_TERMINAL_WIDTH = 60
"""Narrowest layout in cells; a narrower terminal wraps the lines itself."""
UNLIMITED_WIDTH = 1_000_000
"""Width in cells where there is no terminal: rows are neither wrapped nor cut off."""
MIN_TEXT_WIDTH = 16
"""Width in cells that a column of text keeps, or the width of its longest text, where a table leaves numbers out."""
COLUMN_GAP = 2
"""Cells between two columns of a table."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def terminal_width() -> int:
    """Return the width of the terminal in cells, or of COLUMNS where it is set; 80 if neither is known."""
    return max(MIN_TERMINAL_WIDTH, shutil.get_terminal_size().columns or 80)


def discard_output() -> None:
    """Send standard output to the null device from now on, including the text that is still buffered."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, sys.stdout.fileno())
    os.close(null_device)


def make_console() -> Console:
    """Return a console for standard output that is as wide as the terminal, and unlimited where there is none."""
    width = terminal_width() if sys.stdout.isatty() else UNLIMITED_WIDTH
    # With a width alone, Rich assumes 80 columns in a dumb terminal.
    return Console(highlight=False, markup=False, emoji=False, width=width, height=24)


def make_table(text_headings: Sequence[str], number_headings: Sequence[str]) -> Table:
    """Return a table without borders: columns of text, then columns of numbers, which are aligned on the right.

    A text that is too long for a terminal continues on the next line; a number is never split.
    """
    table = Table(box=None, pad_edge=False)
    for heading in text_headings:
        table.add_column(heading, overflow="fold")
    for heading in number_headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def make_fitting_table(
    width: int, text_headings: Sequence[str], number_headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> Table:
    """Return a table of `rows`, without the last columns of numbers where `width` is too narrow for all of them.

    The first column of numbers is always there. A text that has more than `MIN_TEXT_WIDTH` cells may continue on the
    next line to make room for numbers.
    """
    headings = [*text_headings, *number_headings]
    widths = [max(map(cell_len, cells)) for cells in zip(headings, *rows, strict=True)]
    widths = [min(size, MIN_TEXT_WIDTH) if index < len(text_headings) else size for index, size in enumerate(widths)]
    count = len(headings)
    while count > len(text_headings) + 1 and sum(widths[:count]) + COLUMN_GAP * (count - 1) > width:
        count -= 1
    table = make_table(text_headings, number_headings[: count - len(text_headings)])
    for row in rows:
        table.add_row(*map(Text, row[:count]))
    return table


def to_json(value: object, indent: int | None = None) -> str:
    """Return `value` as ASCII JSON that every parser reads.

    A byte of an argument or a file name that is not UTF-8 becomes U+FFFD, and a number that is not finite null.
    """
    return json.dumps(_replace_invalid(value), indent=indent, allow_nan=False)


def print_json(value: object, indent: int | None = None) -> None:
    """Print `value` as JSON, at once."""
    print(to_json(value, indent), flush=True)


def _replace_invalid(value: object) -> object:
    match value:
        case str():
            return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {_replace_invalid(key): _replace_invalid(item) for key, item in value.items()}
        case list() | tuple():
            return [_replace_invalid(item) for item in value]
    return value
