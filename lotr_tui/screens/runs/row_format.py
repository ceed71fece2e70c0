"""Rows of the list of runs, in aligned columns."""

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from engine.errors import printable
from engine.runs.summary import RunSummary
from lotr_tui.formatting import truncate
from lotr_tui.monitor.run_list import RUN_COLUMNS

NAME_WIDTHS = (16, 24)
"""Limits of the room for names, which fits the longest name; default names have up to 24 cells."""

MAX_NAME_WIDTH = 48
"""Maximum width of the column of names on a wide terminal."""


def name_width(runs: Sequence[RunSummary]) -> int:
    """Return the width of the column of names; columns on the right are left out to make room for it."""
    lowest, highest = NAME_WIDTHS
    return max(lowest, min(highest, max((cell_len(printable(run.name)) for run in runs), default=0)))


def format_header(width: int, min_name_width: int, sort_column: int, is_reversed: bool) -> str:
    """Return the names of the columns, with an arrow at the column that the list is sorted by."""
    arrow = "↑" if is_reversed else "↓"
    names = [f"{column.name}{arrow if index == sort_column else ''}" for index, column in enumerate(RUN_COLUMNS)]
    return _format_cells(names, width, min_name_width, sort_column)


def format_row(run: RunSummary, width: int, min_name_width: int, sort_column: int) -> str:
    """Return the row of a run."""
    return _format_cells([column.format(run) for column in RUN_COLUMNS], width, min_name_width, sort_column)


def _format_cells(texts: Sequence[str], width: int, min_name_width: int, sort_column: int) -> str:
    """Return one text per column; columns that do not fit are left out from the right, except the sort column.

    On a wide terminal the columns stay next to the names.
    """
    cells = list(zip(RUN_COLUMNS, texts, strict=True))
    sort_cell = cells[sort_column]
    while len(cells) > 2 and min_name_width + sum(column.width + 1 for column, _ in cells[1:]) > width:
        cells.pop(-2 if cells[-1] is sort_cell else -1)
    values = [truncate(printable(text), column.width).rjust(column.width) for column, text in cells[1:]]
    room = max(1, min(width - sum(len(value) + 1 for value in values), MAX_NAME_WIDTH))
    return " ".join([set_cell_size(truncate(printable(texts[0]), room), room), *values])
