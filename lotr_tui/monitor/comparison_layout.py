"""Layout of a comparison of runs as lines of text, for the terminal and for the screen of the runs.

Runs are columns where that fits. Otherwise they are rows, and the settings and figures are columns, in as many tables
as the width needs. The best figures have a mark, so that they are visible without colour.
"""

import math
import textwrap
from collections.abc import Sequence

from rich.cells import cell_len

from engine.errors import printable
from lotr_tui.formatting import MISSING
from lotr_tui.monitor.run_comparison import Difference, MetricRow, RunComparison, SettingRow
from lotr_tui.monitor.text_table import (
    GAP,
    Cell,
    Column,
    Line,
    Role,
    heading_lines,
    row_line,
    share_width,
    table_blocks,
    truncate_middle,
    truncate_start,
)

RESULTS_TITLE = "results"
UNKNOWN = "?"
"""Text for a setting that is unknown."""
BEST_MARK = "*"
DIRECTION_MARKS = {"lower": " ↓", "higher": " ↑", "": ""}
MAX_COLUMN_RUNS = 6
"""Maximum number of runs that are shown as columns."""
VALUE_WIDTHS = (8, 20)
"""Lowest and highest limit in cells for the value of a setting."""
MAX_FIGURE_WIDTH = 16
"""Maximum width in cells of a figure; a longer one, from damaged metrics, is shown in exponent notation."""
NAME_WIDTHS = (8, 16)
"""Minimum width in cells of the name of a run as the heading of a column, and as the start of a row."""
UNLIMITED_WIDTH = 1000
"""Width in cells from which names and values are not shortened."""


def layout_comparison(comparison: RunComparison, names: Sequence[str], width: int) -> list[Line]:
    """Return the lines of a comparison: the settings that differ, the figures, and the notes.

    `names` are the headings of the runs, and `width` is in cells.
    """
    names = [printable(name) for name in names]
    rows = [row for row in comparison.metrics if any(value is not None for value in row.values)]
    lines = (
        _run_columns(comparison, names, rows, width, is_percent_below=False)
        or _run_columns(comparison, names, rows, width, is_percent_below=True)
        or _run_rows(comparison, names, rows, width)
    )
    legend = [f"{BEST_MARK} best"] if any(row.best for row in rows) else []
    legend += ["↓ lower is better", "↑ higher is better", f"baseline {names[comparison.baseline]}"]
    lines.append(())
    for note in [" · ".join(legend), *comparison.notes]:
        lines += [((line, "muted"),) for line in textwrap.wrap(printable(note), max(10, width))]
    return lines


# Runs as columns, and as rows


def _run_columns(
    comparison: RunComparison, names: Sequence[str], rows: Sequence[MetricRow], width: int, *, is_percent_below: bool
) -> list[Line]:
    """Return a table with one column per run; `[]` if it does not fit.

    With `is_percent_below`, a difference in percent is below the absolute one, instead of beside it.
    """
    labels = [*(row.name for row in comparison.settings), *map(_metric_label, rows)]
    settings_title = _settings_title(comparison)
    label_width = max(map(cell_len, [*labels, settings_title])) + 1
    room = width - label_width - len(GAP) * len(names)
    value_width = max(VALUE_WIDTHS[0], min(_max_value_width(width), room // len(names) - 1))
    settings = [
        [Cell(row.name), *(Cell(f"{text} ") for text in _setting_texts(row, value_width))]
        for row in comparison.settings
    ]
    results = []
    for row in rows:
        results.append([Cell(_metric_label(row)), *_value_cells(row)])
        if row.has_differences:
            cells = _difference_cells(row)
            lines = zip(*cells, strict=True) if is_percent_below else [[_join_parts(parts) for parts in cells]]
            results += [[Cell(""), *(Cell(f"{cell.text} ", cell.role) for cell in line)] for line in lines]
    minimums = [max(cell.width for cell in column) for column in zip(*settings, *results, strict=True)][1:]
    wanted = [cell_len(name) + 1 for name in names]
    widths = share_width([max(minimum, NAME_WIDTHS[0]) for minimum in minimums], wanted, room)
    if not widths or len(names) > MAX_COLUMN_RUNS:
        return []
    widths = [label_width, *widths]
    return [
        *heading_lines([settings_title, *names], widths, end=" "),
        *(row_line(cells, widths) for cells in settings),
        (),
        *heading_lines([RESULTS_TITLE, *names], widths, end=" "),
        *(row_line(cells, widths) for cells in results),
    ]


def _run_rows(comparison: RunComparison, names: Sequence[str], rows: Sequence[MetricRow], width: int) -> list[Line]:
    """Return tables with one row per run, and the settings and figures as columns."""
    name_width = width if width >= UNLIMITED_WIDTH else max(NAME_WIDTHS[1], width // 3)
    first = Column("", [Cell(truncate_middle(name, name_width)) for name in names])
    settings = [
        [Column(row.name, [Cell(text) for text in _setting_texts(row, _max_value_width(width))])]
        for row in comparison.settings
    ]
    figures = []
    for row in rows:
        group = [Column(f"{_metric_label(row)} ", _value_cells(row))]
        if row.has_differences:
            group.append(Column("difference", [_join_parts(parts) for parts in _difference_cells(row)]))
        figures.append(group)
    return [
        ((_settings_title(comparison), "heading"),),
        *table_blocks(first, settings, width),
        (),
        ((RESULTS_TITLE, "heading"),),
        *table_blocks(first, figures, width),
    ]


# Texts


def _settings_title(comparison: RunComparison) -> str:
    return "different settings" if comparison.settings else "no setting differs"


def _metric_label(row: MetricRow) -> str:
    return row.metric.label + DIRECTION_MARKS[row.metric.better]


def _figure_text(row: MetricRow, value: float) -> str:
    text = row.metric.format(value)
    return text if len(text) <= MAX_FIGURE_WIDTH else f"{value:.1e}"


def _value_cells(row: MetricRow) -> list[Cell]:
    """Return a figure for each run, followed by a mark or a space."""
    cells = []
    for index, value in enumerate(row.values):
        if value is None:
            cells.append(Cell(f"{MISSING} ", "muted"))
        elif index in row.best:
            cells.append(Cell(f"{_figure_text(row, value)}{BEST_MARK}", "best"))
        else:
            cells.append(Cell(f"{_figure_text(row, value)} "))
    return cells


def _difference_cells(row: MetricRow) -> list[tuple[Cell, Cell]]:
    """Return for each run the absolute difference and the difference in percent, both empty for the baseline."""
    cells = []
    for index, difference in enumerate(row.differences):
        if difference is None or index == row.baseline:
            cells.append((Cell(""), Cell("")))
        else:
            (absolute, percent), role = _difference_texts(row, difference), _difference_role(row, difference)
            cells.append((Cell(absolute, role), Cell(percent, role)))
    return cells


def _difference_texts(row: MetricRow, difference: Difference) -> tuple[str, str]:
    if not difference.absolute:
        return "=", ""
    sign = "+" if difference.absolute > 0 else "-"
    return f"{sign}{_figure_text(row, abs(difference.absolute))}", _signed_percent(difference.percent)


def _signed_percent(percent: float) -> str:
    """Return a difference as "+4.2 %", "-31 %" or "+1,200 %"; "" if it is not finite."""
    if not math.isfinite(percent):
        return ""
    decimals = 1 if abs(percent) < 9.95 else 0
    return f"{percent:+,.{decimals}f} %" if abs(percent) < 1e5 else f"{percent:+.0e} %"


def _difference_role(row: MetricRow, difference: Difference) -> Role:
    if not difference.absolute or not row.metric.better:
        return "muted"
    return "better" if (difference.absolute < 0) == (row.metric.better == "lower") else "worse"


def _join_parts(parts: Sequence[Cell]) -> Cell:
    return Cell(" ".join(part.text for part in parts if part.text), parts[0].role)


def _max_value_width(width: int) -> int:
    return width if width >= UNLIMITED_WIDTH else VALUE_WIDTHS[1]


def _setting_texts(row: SettingRow, width: int) -> list[str]:
    """Return the values of a setting as texts of at most `width` cells."""
    texts = [_format_setting(value) for value in row.values]
    if len(set(texts)) < len(set(map(str, row.values))):  # rounding hides a difference
        texts = [UNKNOWN if value is None else str(value) for value in row.values]
    return [truncate_start(printable(text) or '""', width) for text in texts]


def _format_setting(value: object) -> str:
    """Return a value as `--set` takes it, with at most six significant digits; "?" if it is unknown."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
