"""Tables of aligned cells as lines of text whose parts have roles, for the terminal and for the screens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len, chop_cells, set_cell_size

Role = Literal["plain", "heading", "best", "better", "worse", "muted"]
"""Role of a piece of text, from which terminal and screen choose its style."""
Line = tuple[tuple[str, Role], ...]
"""Line of text in pieces, each with its role."""
GAP = "  "
"""Space between two columns."""


@dataclass(frozen=True)
class Cell:
    """Text of a table, as one line."""

    text: str
    role: Role = "plain"

    @property
    def width(self) -> int:
        """Width in cells of the terminal."""
        return cell_len(self.text)


@dataclass(frozen=True)
class Column:
    """Heading and cells of a column."""

    heading: str
    cells: Sequence[Cell]

    @property
    def width(self) -> int:
        """Width in cells of the terminal."""
        return max(cell_len(self.heading), *(cell.width for cell in self.cells))


def row_line(cells: Sequence[Cell], widths: Sequence[int]) -> Line:
    """Return a row: the first cell is aligned on the left, the others on the right."""
    spans: list[tuple[str, Role]] = [(set_cell_size(cells[0].text, widths[0]), cells[0].role)]
    for cell, width in zip(cells[1:], widths[1:], strict=True):
        spans += [(GAP + " " * (width - cell.width), "plain"), (cell.text, cell.role)]
    return tuple(spans)


def heading_lines(headings: Sequence[str], widths: Sequence[int], end: str = "") -> list[Line]:
    """Return the line of the headings, each followed by `end`.

    A heading that is too long takes several lines, and the others are on the last one.
    """
    parts = [
        [f"{part}{end}" for part in chop_cells(heading, max(1, width - len(end)))]
        for heading, width in zip(headings, widths, strict=True)
    ]
    height = max(map(len, parts))
    padded = [[""] * (height - len(part)) + part for part in parts]
    return [row_line([Cell(text, "heading") for text in line], widths) for line in zip(*padded, strict=True)]


def table_blocks(first: Column, groups: Sequence[Sequence[Column]], width: int) -> list[Line]:
    """Return the tables that show groups of columns: each begins with the column `first`, and has all groups that fit.

    A group is never divided. An empty line separates two tables.
    """
    lines: list[Line] = []
    columns = [first]
    for index, group in enumerate(groups):
        columns += group
        following = groups[index + 1] if index + 1 < len(groups) else None
        if following is None or _table_width([*columns, *following]) > width:
            widths = [column.width for column in columns]
            lines += [()] if lines else []
            lines += heading_lines([column.heading for column in columns], widths)
            lines += [row_line(row, widths) for row in zip(*(column.cells for column in columns), strict=True)]
            columns = [first]
    return lines


def share_width(minimums: Sequence[int], wanted: Sequence[int], room: int) -> list[int]:
    """Return widths between the minimums and the wanted ones that share `room`; `[]` if the minimums do not fit."""
    widths = list(minimums)
    for _ in range(room - sum(widths)):
        missing = [target - width for target, width in zip(wanted, widths, strict=True)]
        if max(missing) <= 0:
            break
        widths[missing.index(max(missing))] += 1
    return widths if sum(widths) <= room else []


def truncate_start(text: str, width: int) -> str:
    """Return the end of a text that has more than `width` cells: the end of a path is its most specific part."""
    return text if cell_len(text) <= width else f"…{_last_cells(text, width - 1)}"


def truncate_middle(text: str, width: int) -> str:
    """Return start and end of a text that has more than `width` cells: names of a series differ at their end."""
    if cell_len(text) <= width:
        return text
    end = _last_cells(text, width // 2)
    return f"{chop_cells(text, width - 1 - cell_len(end))[0]}…{end}"


def _last_cells(text: str, width: int) -> str:
    return chop_cells(text[::-1], width)[0][::-1]


def _table_width(columns: Sequence[Column]) -> int:
    return sum(column.width + len(GAP) for column in columns) - len(GAP)
