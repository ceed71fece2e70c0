"""Charts of perplexities over epochs in braille dots, in 3 ms: plotting widgets take 50 to 90, which delays keys."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from engine.data.arrays import Float64Array
from lotr_tui.monitor import training_view
from lotr_tui.widgets.drawing import StripWidget, fit_groups

BrailleCells = npt.NDArray[np.uint8]  # bits of the braille dots that are set, `[rows, columns]`; 0 is an empty cell
LogCurve = tuple[Float64Array, Float64Array]  # epochs and base-10 logarithms of perplexities, `[points]` each
Y_LABEL_WIDTH = 6  # columns to the left of the cells: labels of the y axis and its line
MIN_TICKS = 3  # that an axis needs to show its scale
MAX_DOT_DISTANCE = 1e6  # from the picture, in dots; larger distances are clipped, which draws the same lines
VIEW_STEPS = 8  # in which the visible part moves by its width; between them it stays still
MAX_PERPLEXITY_RATIO = 8.0  # of the top of the y axis to the lowest perplexity: the start of a training is cut off
SMOOTHING = 0.85  # decay of the moving average over the training perplexity
_DOT_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], np.uint8)  # of a cell, `[4, 2]`


class Plot:
    """Cells, each a character and the name of its style, with a logarithmic axis of perplexities, and one of epochs."""

    def __init__(
        self,
        width: int,
        height: int,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        unit: training_view.LossUnit = training_view.PERPLEXITY,  # of the labels; bits are even on a logarithmic scale
        margin: int = 0,  # columns for text to the right of the curves
    ) -> None:
        self.rows, self.columns = height - 1, width - Y_LABEL_WIDTH
        self.x_range, self.y_range = x_range, y_range
        self._log_range = math.log10(y_range[0]), math.log10(y_range[1])
        self._unit, self._plot_columns = unit, self.columns - margin
        self._cells = [[(" ", "")] * self.columns for _ in range(self.rows)]

    def row_at(self, perplexity: float) -> int:
        low, high = self._log_range
        return round((high - math.log10(perplexity)) / (high - low) * (4 * self.rows - 1)) // 4

    def column_at(self, epoch: float) -> int:
        left, right = self.x_range
        return round((epoch - left) / (right - left) * (self._plot_columns - 1))

    def draw(self, curves: Mapping[str, LogCurve], baselines: Sequence[tuple[str, float]]) -> dict[str, BrailleCells]:
        """Draw horizontal lines with labels where no curve is, and curves by style, the last on top; return cells."""
        combined, drawn = np.zeros((self.rows, self.columns), np.uint8), {}
        for style, (x, y) in curves.items():
            cells = braille_curve(x, y, self.x_range, self._log_range, self.rows, self._plot_columns)
            drawn[style] = np.pad(cells, ((0, 0), (0, self.columns - self._plot_columns)))
            combined |= drawn[style]
        for label, perplexity in baselines:
            if self.y_range[0] <= perplexity <= self.y_range[1]:
                row, label = self.row_at(perplexity), f" {label} "
                line = "┄" * self.columns
                for start in (self.columns - len(label) - 2, 2, self.columns // 2):
                    if start >= 0 and not combined[row, start : start + len(label)].any():
                        line = ("┄" * start + label).ljust(self.columns, "┄")[: self.columns]
                        break
                self._cells[row] = [(character, "chart--baseline") for character in line]
        combined[:] = 0
        for style, cells in drawn.items():
            combined |= cells
            rows, columns = np.nonzero(cells)
            code_points = (combined[rows, columns].astype(int) + 0x2800).tolist()
            for row, column, code_point in zip(rows.tolist(), columns.tolist(), code_points, strict=True):
                self._cells[row][column] = (chr(code_point), style)
        return drawn

    def draw_vertical_line(self, epoch: float, style: str) -> None:
        if self.x_range[0] <= epoch <= self.x_range[1]:
            for row in self._cells:
                row[self.column_at(epoch)] = ("│", style)

    def draw_text(self, row: int, column: int, text: str, style: str) -> None:
        if 0 <= row < self.rows and column >= 0:
            for x, character in enumerate(text[: self.columns - column], column):
                self._cells[row][x] = (character, style)

    def is_free(self, row: int, column: int, width: int) -> bool:
        is_inside = 0 <= row < self.rows and column >= 0 and column + width <= self.columns
        return is_inside and all(character == " " for character, _ in self._cells[row][column : column + width])

    def lines(self, styles: Mapping[str, Style]) -> list[Strip]:
        choose_ticks = log_ticks if self._unit.is_perplexity else linear_ticks
        low, high = map(self._unit.value, self.y_range)
        ticks = choose_ticks(low, high, max(MIN_TICKS, self.rows // 3))
        labels = {self.row_at(self._unit.perplexity(tick)): _format_y_tick(tick) for tick in ticks}
        lines = []
        for row, cells in enumerate(self._cells):
            axis = f"{labels.get(row, ''):>{Y_LABEL_WIDTH - 2}} {'┤' if row in labels else '│'}"
            segments, text, current = [Segment(axis, styles["chart--axis"])], "", ""
            for character, style in cells:  # one segment for each run of cells with the same style
                if style != current and text:
                    segments.append(Segment(text, styles[current]))
                    text = ""
                current = style
                text += character
            lines.append(Strip([*segments, Segment(text, styles[current])]))
        return [*lines, Strip([Segment(self._x_axis(), styles["chart--axis"])])]

    def _x_axis(self) -> str:
        """Return labels, or every other one, under their positions, and the name of the axis where there is room."""
        ticks = linear_ticks(*self.x_range, max(MIN_TICKS, self._plot_columns // 10))
        line: list[str] = []
        for shown in (ticks, ticks[::2]):
            line = [" "] * (self._plot_columns + 1)
            for tick in shown:
                label = f"{tick:,.6g}"
                start = min(max(0, self.column_at(tick) + 1 - len(label) // 2), len(line) - len(label))
                line[start : start + len(label)] = label
            free = (start for start in range(len(line) - 13, -1, -1) if not "".join(line[start : start + 8]).strip())
            if (start := next(free, -1)) >= 0:
                line[start + 1 : start + 7] = "epochs"
                break
        return " " * (Y_LABEL_WIDTH - 1) + "".join(line)


def perplexity_bounds(curve: LogCurve) -> list[float]:
    finite = curve[1][np.isfinite(curve[1])]
    return [10.0 ** float(finite.min()), 10.0 ** float(finite.max())] if len(finite) else []


def _format_y_tick(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:.0f}k" if value < 1e6 else f"{value:.0e}".replace("e+0", "e")
    return f"{value:.0f}" if value == round(value) or value >= 100 else f"{value:.4g}"


def braille_curve(
    x: Float64Array,
    y: Float64Array,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    rows: int,
    columns: int,
) -> BrailleCells:
    """Return the cells `[rows, columns]` of straight lines between points, whose `x` `[points]` ascend.

    Equal positions make a vertical line, and values `y` `[points]` that are not finite a gap.
    """
    # Each dot column of the curve is a vertical run; +1 at its top and -1 below its bottom, summed over the rows.
    ends = np.zeros((4 * rows + 1, 2 * columns))
    with np.errstate(over="ignore"):  # an overflow is far outside the picture
        dot_x = (x - x_range[0]) / (x_range[1] - x_range[0]) * (2 * columns - 1)
    dot_y = np.clip((y_range[1] - y) / (y_range[1] - y_range[0]) * (4 * rows - 1), -MAX_DOT_DISTANCE, MAX_DOT_DISTANCE)
    finite = np.flatnonzero(np.isfinite(dot_x) & np.isfinite(dot_y))
    for points in np.split(finite, np.flatnonzero(np.diff(finite) > 1) + 1) if len(finite) else ():
        line_x, line_y = dot_x[points], dot_y[points]
        crossed = np.arange(max(0, math.ceil(line_x[0])), min(2 * columns, math.floor(line_x[-1]) + 1))
        line_x, line_y = np.concatenate([line_x, crossed]), np.concatenate([line_y, np.interp(crossed, line_x, line_y)])
        order = np.argsort(line_x, kind="stable")  # a column of dots that the line crosses follows a point in it
        dot_columns = np.rint(np.clip(line_x[order], -1, 2 * columns)).astype(int)
        dot_rows = np.rint(line_y[order]).astype(int)
        previous = np.concatenate([dot_rows[:1], dot_rows[:-1]])
        # Each run starts next to the previous dot, which is part of the previous run.
        top = np.maximum(np.where(dot_rows > previous, previous + 1, dot_rows), 0)
        bottom = np.where(dot_rows > previous, dot_rows, np.maximum(dot_rows, previous - 1))
        bottom = np.minimum(bottom, 4 * rows - 1)
        visible = (dot_columns >= 0) & (dot_columns < 2 * columns) & (top <= bottom)
        np.add.at(ends, (top[visible], dot_columns[visible]), 1)
        np.add.at(ends, (bottom[visible] + 1, dot_columns[visible]), -1)
    dots = np.cumsum(ends, axis=0)[:-1] > 0
    blocks = dots.reshape(rows, 4, columns, 2).transpose(0, 2, 1, 3)
    cells: BrailleCells = (blocks * _DOT_BITS).sum(axis=(2, 3)).astype(np.uint8)
    return cells


def around(x: Float64Array, y: Float64Array, x_range: tuple[float, float]) -> LogCurve:
    part = slice(max(0, np.searchsorted(x, x_range[0]) - 1), np.searchsorted(x, x_range[1], "right") + 1)
    return x[part], y[part]


def column_means(x: Float64Array, y: Float64Array, x_range: tuple[float, float], columns: int) -> LogCurve:
    """Return the mean of the finite points in each column: a line instead of a band."""
    x, y = around(x, y, x_range)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) <= columns:
        return x, y
    cells = np.floor((x - x_range[0]) / (x_range[1] - x_range[0]) * columns).astype(int)
    starts = np.flatnonzero(np.diff(cells, prepend=cells[0] - 1))
    counts = np.diff(starts, append=len(x))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def linear_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """Return evenly spaced round values: at most `max_ticks`, but three to seven where fewer would be left."""
    if not high > low:
        return []
    power = 10.0 ** math.floor(math.log10(high - low))
    steps = [power * multiple for multiple in (10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)]
    ends = [(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9), step) for step in steps]
    choices = [[number * step for number in range(first, last + 1)] for first, last, step in ends]
    return _choose_ticks(choices, max_ticks)


def log_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """Return 1, 2 and 5 times powers of ten, or fewer multiples; over a narrow range, evenly spaced values."""
    powers = [10.0**exponent for exponent in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    choices = [
        [tick for power in powers for multiple in multiples if low <= (tick := power * multiple) <= high]
        for multiples in ((1,), (1, 3), (1, 2, 5))
    ]
    if len(choices[-1]) < 4 and high / low <= 10:
        return linear_ticks(low, high, max_ticks)
    return _choose_ticks(choices, max_ticks)


def _choose_ticks(choices: Sequence[list[float]], max_ticks: int) -> list[float]:
    fitting = [ticks for ticks in choices if len(ticks) <= max_ticks]
    if fitting and len(fitting[-1]) >= MIN_TICKS:
        return fitting[-1]
    return next((ticks for ticks in choices if len(ticks) >= MIN_TICKS), choices[-1])


class PerplexityChart(StripWidget):
    """Training and validation perplexity with the baselines: legend with the latest figures, curves and axes."""

    DEFAULT_CSS = """
    PerplexityChart { height: 1fr; min-height: 5; padding: 0 1; }
    PerplexityChart > .chart--valid { color: $accent; }
    PerplexityChart > .chart--train { color: $foreground 70%; }
    PerplexityChart > .chart--baseline { color: $secondary; }
    PerplexityChart > .chart--axis { color: $muted; text-style: $muted-style; }
    PerplexityChart > .chart--cursor { color: $accent 60%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"chart--{name}" for name in ("valid", "train", "baseline", "axis", "cursor")
    }

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.visible_epochs: float | None = None  # that hold the cursor or the latest value; None shows everything
        self.cursor: float | None = None  # epoch; None follows the latest value without a line
        self._view = training_view.TrainingView()
        self._smoothed_train = training_view.SmoothedPerplexity(SMOOTHING)

    def update_smoothing(self, view: training_view.TrainingView) -> None:
        self._smoothed_train.compute(view.steps)

    def show(self, view: training_view.TrainingView) -> None:
        self._view = view
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        view, unit, styles = self._view, self._view.unit, self.component_styles()
        entries = [
            [Segment(f"{name} ", styles[style]), Segment(text, styles[""])] for style, name, text in self._legend()
        ]
        legend = [fit_groups(entries, width, styles[""])]
        if not unit.is_perplexity:  # the name of the unit has its own line, which leaves the figures their room
            legend.insert(0, Strip([Segment(unit.title, styles["chart--axis"])]))
        height -= len(legend)
        if height < 3 or width < Y_LABEL_WIDTH + 10 or not view.evaluations:
            return [*legend, *self._empty_lines()]
        x_range, columns = self.x_range, width - Y_LABEL_WIDTH
        epochs = np.array([event.epoch for event in view.evaluations], float)
        valid = training_view.log10_or_nan(np.array([event.valid_perplexity for event in view.evaluations], float))
        train = self._smoothed_train.compute(view.steps)
        curves = {
            "chart--train": column_means(view.steps.column("epoch"), train, x_range, columns),
            "chart--valid": around(epochs, valid, x_range),
        }
        plot = Plot(width, height, x_range, self._y_range(curves), unit)
        if self.cursor is not None:
            plot.draw_vertical_line(self.cursor, "chart--cursor")
        cells = plot.draw(curves, self._baselines())
        best, (low, high) = view.best, plot.y_range
        if best is not None and low <= best.valid_perplexity <= high and x_range[0] <= best.epoch <= x_range[1]:
            plot.draw_text(plot.row_at(best.valid_perplexity), plot.column_at(best.epoch), "●", "chart--valid")
        self._label_curves(plot, cells)
        return [*legend, *plot.lines(styles)]

    @property
    def x_end(self) -> float:
        return float(max(1, self._view.epochs if self._view.is_active else math.ceil(self._view.epoch)))

    @property
    def x_range(self) -> tuple[float, float]:
        """Visible epochs, which end near the latest one, or have the cursor in the middle."""
        width, cursor = self.visible_epochs, self.cursor
        if width is None or width >= self.x_end:
            return 0.0, self.x_end
        right = self._view.epoch if cursor is None else cursor + width / 2
        step = width / VIEW_STEPS
        right = min(max(math.ceil(right / step) * step, width), self.x_end)
        return right - width, right

    def _y_range(self, curves: Mapping[str, LogCurve]) -> tuple[float, float]:
        baselines = [perplexity for _, perplexity in self._baselines()]
        valid, train = perplexity_bounds(curves["chart--valid"]), perplexity_bounds(curves["chart--train"])
        lowest = min([*baselines, *valid, *train], default=1.0)
        highest = max([*baselines, min(max(valid, default=lowest), MAX_PERPLEXITY_RATIO * lowest)])
        return lowest * 0.94, highest * 1.06

    def _baselines(self) -> list[tuple[str, float]]:
        if (started := self._view.started) is None:
            return []
        both = ("unigram", started.unigram_perplexity), ("Kneser-Ney", started.kneser_ney_perplexity)
        return [(name, perplexity) for name, perplexity in both if 0 < perplexity < training_view.MAX_PERPLEXITY]

    def _legend(self) -> list[tuple[str, str, str]]:
        view, unit, started = self._view, self._view.unit, self._view.started
        figures = [  # the most important first
            ("chart--valid", "━ valid", view.evaluations[-1].valid_perplexity if view.evaluations else None),
            ("chart--valid", "● best", view.best.valid_perplexity if view.best else None),
            ("chart--baseline", "┄ Kneser-Ney", started.kneser_ney_perplexity if started else None),
            ("chart--train", "━ train", view.steps.last.train_perplexity if view.steps.last else None),
            ("chart--baseline", "┄ unigram", started.unigram_perplexity if started else None),
        ]
        shown = [(style, name, unit.format(value)) for style, name, value in figures if value is not None]
        return [("chart--axis", unit.name, ""), *shown] if unit.is_perplexity else shown

    # The chart of the dashboard adds to these

    def _empty_lines(self) -> list[Strip]:
        return []

    def _label_curves(self, plot: Plot, cells_by_style: Mapping[str, BrailleCells]) -> None: ...
