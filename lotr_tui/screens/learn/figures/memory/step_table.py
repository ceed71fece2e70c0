"""Table of one LSTM unit along a line: a column of bars for each token."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from engine.analysis.activations import UnitStep
from lotr_tui.formatting import SELECTED_MARK, truncate
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bars import bar, signed_bar

ROWS = ("forget", "input", "candidate", "cell", "output", "hidden")
GATES = frozenset({"forget", "input", "output"})
"""Rows with values between 0 and 1; the others have a sign."""
LABEL_WIDTH, NUMBER_WIDTH, COLUMN_WIDTH = 10, 8, 8
MIN_WIDTH_WITH_NUMBERS = 60
LIVELIEST = "  f9: changes most here"
RESET_MARK = "┃"
"""Mark before the first token that is read after a reset."""


@dataclass(frozen=True)
class StepColumn:
    """A token and the values of the unit."""

    name: str
    step: UnitStep
    is_forgotten: bool = False
    """True if the state is reset after the token."""


class StepTable(Widget, can_focus=False):
    """Bars of the gates, the candidate, the cell and the hidden value, one column for each token."""

    DEFAULT_CSS = """
    StepTable { height: 7; width: 1fr; }
    """
    ALLOW_SELECT = False
    HELP_LINE = "Gates: 0 to 1, the others around 0; a click selects a word"

    class ColumnSelected(Message):
        """Posted when a column was clicked."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self) -> None:
        super().__init__(id="steps")
        self.columns: Sequence[StepColumn] = ()
        self.cursor = 0
        """Index of the current column."""
        self._first = 0
        """Index of the first visible column."""

    def show(self, columns: Sequence[StepColumn], cursor: int) -> None:
        """Show the values of a unit on each token, with the cursor on one of them."""
        self.columns, self.cursor = columns, cursor
        self.refresh()

    @property
    def cell_scale(self) -> float:
        """Cell value with a bar of full length: the largest one on the line, and at least 1."""
        return max([1.0, *(abs(column.step.cell) for column in self.columns)])

    @property
    def _label_width(self) -> int:
        return LABEL_WIDTH + (NUMBER_WIDTH if self.size.width >= MIN_WIDTH_WITH_NUMBERS else 0)

    def _visible_range(self) -> range:
        """Return the indices of the visible columns; the current one is among them."""
        count = max(1, (self.size.width - self._label_width) // COLUMN_WIDTH)
        self._first = min(self._first, self.cursor, max(0, len(self.columns) - count))
        self._first = max(self._first, self.cursor - count + 1)
        return range(self._first, min(self._first + count, len(self.columns)))

    def render(self) -> Content:
        """Return the names of the tokens and six rows of bars."""
        if not self.columns:
            return Content()
        visible = self._visible_range()
        more = "… " if visible.start else ""
        header = [Content.styled(more.rjust(self._label_width), MUTED), *map(self._heading, visible)]
        return Content("\n").join(
            [Content("").join(header), *(self._row(name, visible) for name in ROWS)],
        )

    def _heading(self, index: int) -> Content:
        column, is_current = self.columns[index], index == self.cursor
        style = "bold $accent" if is_current else MUTED if column.is_forgotten else ""
        mark = SELECTED_MARK if is_current else " "
        name = truncate(column.name, COLUMN_WIDTH - 1)
        return Content.assemble((mark, "bold $accent"), (name, style)).pad_right(COLUMN_WIDTH - 1 - cell_len(name))

    def _row(self, name: str, visible: range) -> Content:
        scale = self.cell_scale if name == "cell" else 1.0
        label = f"cell ±{scale:.1f}" if name == "cell" else name
        parts: list[tuple[str, str]] = [(label.ljust(LABEL_WIDTH), MUTED)]
        if self._label_width > LABEL_WIDTH:
            value = getattr(self.columns[self.cursor].step, name)
            parts.append((f"{value:{'' if name in GATES else '+'}7.3f} ", "bold"))
        for index in visible:
            column = self.columns[index]
            value = getattr(column.step, name)
            width = COLUMN_WIDTH - 1
            drawn = bar(value, width) if name in GATES else signed_bar(value / scale, width // 2)
            is_after_reset = not column.is_forgotten and index > 0 and self.columns[index - 1].is_forgotten
            style = "$accent" if index == self.cursor else MUTED if column.is_forgotten else ""
            parts += [(RESET_MARK if is_after_reset else " ", "$accent"), (drawn.ljust(width), style)]
        return Content.assemble(*parts)

    def on_click(self, event: events.Click) -> None:
        """Select the clicked column."""
        if self.columns and event.x >= self._label_width:
            index = self._visible_range().start + (event.x - self._label_width) // COLUMN_WIDTH
            if index < len(self.columns):
                self.post_message(self.ColumnSelected(index))


def describe_step(step: UnitStep, width: int, *, is_liveliest: bool = False) -> Content:
    """Return the equations of a step with its numbers, on two lines, or on three where they are too long.

    With `is_liveliest`, they say why f9 finds this unit, if there is room.
    """
    cell_break = " " if width >= 78 else "\n" + " " * 13
    equations = Content.assemble(
        ("cell   ", MUTED),
        (f"{step.cell:+.3f}", "bold $accent"),
        (" = forget ", MUTED),
        (f"{step.forget:.3f}", "bold"),
        (" × before ", MUTED),
        (f"{step.cell_before:+.3f}", "bold"),
        (f"{cell_break}+ input ", MUTED),
        (f"{step.input:.3f}", "bold"),
        (" × candidate ", MUTED),
        (f"{step.candidate:+.3f}", "bold"),
        ("\nhidden ", MUTED),
        (f"{step.hidden:+.3f}", "bold $accent"),
        (" = output ", MUTED),
        (f"{step.output:.3f}", "bold"),
        (" × tanh(cell ", MUTED),
        (f"{step.cell:+.3f}", "bold"),
        (")", MUTED),
    )
    last_width = cell_len(equations.plain.rpartition("\n")[2])
    has_room = is_liveliest and last_width + len(LIVELIEST) <= width - 2
    return Content.assemble(equations, (LIVELIEST, MUTED)) if has_room else equations
