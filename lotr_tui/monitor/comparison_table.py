"""Tables of a comparison of runs, for the terminal and for the screen of the runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from rich.cells import cell_len, chop_cells
from rich.console import RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from engine.errors import printable
from lotr_tui.formatting import MISSING
from lotr_tui.monitor.comparison import Difference, MetricRow, RunComparison

Role = Literal["heading", "best", "better", "worse", "muted"]
"""Role of a piece of text, from which terminal and screen choose its style."""
DIRECTION_MARKS = {"lower": " ↓", "higher": " ↑", "": ""}
MIN_RUN_WIDTH = 12
MAX_VALUE_WIDTH = 20
UNLIMITED_WIDTH = 1000  # from which names and values are not shortened
GAP = 2


def comparison_tables(
    comparison: RunComparison, names: Sequence[str], width: int, styles: Mapping[Role, str | Style]
) -> list[RenderableType]:
    """Return tables with one column per run, and the notes.

    Each table has as many runs as fit `width` cells, first the baseline. `names` are the headings of the runs.
    """
    rows = [row for row in comparison.metrics if any(value is not None for value in row.values)]
    settings_title = "different settings" if comparison.settings else "no setting differs"
    labels = [
        settings_title,
        *comparison.settings,
        "",
        "results",
        *(f"{row.metric.label}{DIRECTION_MARKS[row.metric.better]}" for row in rows),
    ]
    label_width = min(max(map(cell_len, labels)), max(1, width // 2))
    share = (width - label_width) // min(len(names), 6) - GAP
    limit = width if width >= UNLIMITED_WIDTH else max(MIN_RUN_WIDTH, min(MAX_VALUE_WIDTH, share))
    settings = [_setting_texts(values, limit) for values in comparison.settings.values()]
    columns: list[list[Text]] = []
    for run, name in enumerate(map(printable, names)):
        heading = Text(_truncate_middle(name, limit), styles["heading"])
        figures = [_figure_cell(row, run, run == comparison.baseline, styles) for row in rows]
        columns.append([heading, *(Text(texts[run]) for texts in settings), Text(""), heading, *figures])
    widths = [max(cell_len(line) for cell in column for line in cell.plain.split("\n")) for column in columns]
    baseline = comparison.baseline
    blocks: list[list[int]] = [[baseline]]
    for run in (run for run in range(len(names)) if run != baseline):
        used = label_width + sum(widths[each] + GAP for each in blocks[-1])
        if len(blocks[-1]) > 1 and used + widths[run] + GAP > width:
            blocks.append([baseline])
        blocks[-1].append(run)
    parts: list[RenderableType] = []
    for block in blocks:
        table = Table.grid(padding=(0, 0, 0, GAP))
        table.add_column(width=label_width, no_wrap=True)
        for run in block:
            table.add_column(justify="right", min_width=min(widths[run], MIN_RUN_WIDTH), no_wrap=True)
        for index, label in enumerate(labels):
            is_heading = label in (settings_title, "results")
            cell = Text(label, styles["heading"] if is_heading else "")
            table.add_row(cell, *(columns[run][index] for run in block))
        parts += [table, Text("")]
    legend = ["* best"] if any(row.best for row in rows) else []
    legend += ["↓ lower is better", "↑ higher is better", f"baseline {names[baseline]}"]
    notes = [" · ".join(legend), *comparison.notes]
    return [*parts, Text("\n".join(map(printable, notes)), styles["muted"])]


def _figure_cell(row: MetricRow, run: int, is_baseline: bool, styles: Mapping[Role, str | Style]) -> Text:
    """Return a figure, marked if it is the best, and below it the difference to the baseline."""
    value, difference = row.values[run], row.differences[run]
    if value is None:
        return Text(MISSING, styles["muted"])
    is_best = run in row.best
    cell = Text(f"{'*' if is_best else ''}{_figure(row, value)}", styles["best"] if is_best else "")
    if difference is None or is_baseline:
        return cell
    role: Role = "muted"
    if difference.absolute and row.metric.better:
        role = "better" if (difference.absolute < 0) == (row.metric.better == "lower") else "worse"
    return Text("\n").join([cell, Text(_difference_text(row, difference), styles[role])])


def _figure(row: MetricRow, value: float) -> str:
    text = row.metric.format(value)
    return text if len(text) <= 16 else f"{value:.1e}"  # of damaged metrics


def _difference_text(row: MetricRow, difference: Difference) -> str:
    """Return a difference as "+3.1 +4.2 %", "-31 s -31 %", or "=" for none."""
    if not difference.absolute:
        return "="
    text = f"{'+' if difference.absolute > 0 else '-'}{_figure(row, abs(difference.absolute))}"
    percent = difference.percent
    if not math.isfinite(percent):
        return text
    decimals = 1 if abs(percent) < 9.95 else 0
    return f"{text} {percent:+,.{decimals}f} %" if abs(percent) < 1e5 else f"{text} {percent:+.0e} %"


def _setting_texts(values: Sequence[object], width: int) -> list[str]:
    """Return the values of a setting as `--set` takes them, with at most six significant digits, in `width` cells."""
    texts = ["?" if value is None else str(value) for value in values]
    rounded = [f"{value:.6g}" if isinstance(value, float) else text for value, text in zip(values, texts, strict=True)]
    if len(set(rounded)) == len(set(texts)):  # rounding hides no difference
        texts = rounded
    texts = [text.lower() if isinstance(value, bool) else text for value, text in zip(values, texts, strict=True)]
    return [_truncate_start(printable(text) or '""', width) for text in texts]


def _truncate_start(text: str, width: int) -> str:
    """Return the end of a text that is too long: the end of a path is its most specific part."""
    return text if cell_len(text) <= width else f"…{_last_cells(text, width - 1)}"


def _truncate_middle(text: str, width: int) -> str:
    """Return start and end of a text that is too long: names of a series differ at their end."""
    if cell_len(text) <= width:
        return text
    end = _last_cells(text, width // 2)
    return f"{chop_cells(text, width - 1 - cell_len(end))[0]}…{end}"


def _last_cells(text: str, width: int) -> str:
    return chop_cells(text[::-1], width)[0][::-1]
