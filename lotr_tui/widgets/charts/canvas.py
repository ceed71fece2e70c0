"""A picture of cells: characters with the names of their styles."""

import numpy as np
import numpy.typing as npt
from rich.segment import Segment
from rich.style import Style

from lotr_tui.widgets.charts.plotting import Cells


class Canvas:
    """Rows of cells to be painted on; what is painted later lies on top."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self._cells = [[(" ", "")] * columns for _ in range(rows)]

    def level(self, row: int, name: str, style: str, taken: npt.NDArray[np.bool_]) -> None:
        """A dotted line with its name where no curve runs through it (`taken`: `[column]`); else without."""
        label, columns = f" {name} ", self.columns
        line = "┄" * columns
        for place in (columns - len(label) - 2, 2, columns // 2):
            if place >= 0 and not taken[place : place + len(label)].any():
                line = ("┄" * place + label).ljust(columns, "┄")
                break
        self._cells[row] = [(character, style) for character in line[:columns]]

    def upright(self, column: int, style: str) -> None:
        """A line from top to bottom, under everything that comes later."""
        for row in self._cells:
            row[column] = ("│", style)

    def curves(self, patterns: dict[str, Cells]) -> None:
        """Curves by their styles, the last one on top; where two share a cell, their dots do too."""
        together = np.zeros((self.rows, self.columns), np.uint8)
        for style, pattern in patterns.items():
            together |= pattern
            rows, columns = np.nonzero(pattern)
            dots = (together[rows, columns].astype(int) + 0x2800).tolist()
            for row, column, character in zip(rows.tolist(), columns.tolist(), dots, strict=True):
                self._cells[row][column] = (chr(character), style)

    def put(self, row: int, column: int, text: str, style: str) -> None:
        """A word, from this cell on."""
        for place, character in enumerate(text[: self.columns - column], column):
            self._cells[row][place] = (character, style)

    def is_free(self, row: int, column: int, width: int) -> bool:
        """Whether there is room for a word so long and nothing is painted there."""
        inside = 0 <= row < self.rows and column >= 0 and column + width <= self.columns
        return inside and all(character == " " for character, _ in self._cells[row][column : column + width])

    def row(self, row: int, styles: dict[str, Style]) -> list[Segment]:
        """A row as segments, neighbours of one style as one."""
        segments: list[Segment] = []
        text, current = "", ""
        for character, style in self._cells[row]:
            if style != current and text:
                segments.append(Segment(text, styles[current]))
                text = ""
            current = style
            text += character
        return [*segments, Segment(text, styles[current])]
