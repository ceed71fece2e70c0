"""Grid of styled characters on which a chart is drawn."""

import numpy as np
import numpy.typing as npt
from rich.segment import Segment
from rich.style import Style

from lotr_tui.widgets.charts.plotting import BrailleCells


class Canvas:
    """Cells `[rows, columns]`, each a character and the name of its style; later drawing covers earlier drawing."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self._cells = [[(" ", "")] * columns for _ in range(rows)]

    def draw_horizontal_line(self, row: int, label: str, style: str, occupied: npt.NDArray[np.bool_]) -> None:
        """Draw a dotted line, and its label if there is a place without a curve.

        `occupied` is True for each column of the row that a curve crosses, `[columns]`.
        """
        label, columns = f" {label} ", self.columns
        line = "┄" * columns
        for start in (columns - len(label) - 2, 2, columns // 2):
            if start >= 0 and not occupied[start : start + len(label)].any():
                line = ("┄" * start + label).ljust(columns, "┄")
                break
        self._cells[row] = [(character, style) for character in line[:columns]]

    def draw_vertical_line(self, column: int, style: str) -> None:
        """Draw a line from top to bottom."""
        for row in self._cells:
            row[column] = ("│", style)

    def draw_curves(self, cells_by_style: dict[str, BrailleCells]) -> None:
        """Draw curves, the last one on top; a cell that several curves share shows the dots of all of them."""
        combined = np.zeros((self.rows, self.columns), np.uint8)
        for style, cells in cells_by_style.items():
            combined |= cells
            rows, columns = np.nonzero(cells)
            code_points = (combined[rows, columns].astype(int) + 0x2800).tolist()
            for row, column, code_point in zip(rows.tolist(), columns.tolist(), code_points, strict=True):
                self._cells[row][column] = (chr(code_point), style)

    def draw_text(self, row: int, column: int, text: str, style: str) -> None:
        """Draw text from a cell to the right."""
        for x, character in enumerate(text[: self.columns - column], column):
            self._cells[row][x] = (character, style)

    def is_free(self, row: int, column: int, width: int) -> bool:
        """Return True if `width` cells from a cell to the right are on the canvas and empty."""
        is_inside = 0 <= row < self.rows and column >= 0 and column + width <= self.columns
        return is_inside and all(character == " " for character, _ in self._cells[row][column : column + width])

    def render_row(self, row: int, styles: dict[str, Style]) -> list[Segment]:
        """Return a row as segments, one for each run of cells with the same style."""
        segments: list[Segment] = []
        text, current = "", ""
        for character, style in self._cells[row]:
            if style != current and text:
                segments.append(Segment(text, styles[current]))
                text = ""
            current = style
            text += character
        return [*segments, Segment(text, styles[current])]
