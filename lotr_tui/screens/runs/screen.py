"""Screen with the runs: filter, sort, compare by curves and settings, play, watch, rename, delete and export."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.strip import Strip
from textual.widgets import OptionList, Rule, Static

from engine.errors import printable
from engine.runs import locked_run
from engine.runs.directory import MAX_RUN_NAME_LENGTH, RunSummary, bundled_runs
from engine.runs.loading import LoadedModel
from engine.storage.files import default_runs_dir
from lotr_tui.app_state import WatchRun
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import PRETRAINED_MARK_NOTE, format_bytes
from lotr_tui.monitor import run_list, training_view
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.paths import ask_to_export_csv
from lotr_tui.screens.item_list import ItemList, ListSource
from lotr_tui.widgets import charts
from lotr_tui.widgets.drawing import StripWidget, fit_groups
from lotr_tui.widgets.keys import FooterKey, KeyFooter, binding_table

FOOTER = (
    ("list.open", "play"), ("runs.watch",), ("runs.mark",), ("runs.compare",), ("list.filter",), ("list.sort",),
    ("list.rename",), ("list.delete",), ("list.export",), ("list.back",), ("runs.back",),
)  # fmt: skip
POLL_INTERVAL = 3.0  # seconds between two refreshes of the list while a run is training
CURVE_MARKS = "123456789"  # which also distinguish the curves on terminals without colour
CURVE_STYLES = {mark: f"overlay-chart--{index % 5}" for index, mark in enumerate(CURVE_MARKS)}


class OverlayChart(StripWidget):
    """Validation curves over the epochs on a logarithmic axis, with a mark at the end of each curve."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*CURVE_STYLES.values(), "chart--axis"}
    runs: Sequence[tuple[str, run_list.ComparedRun]] = ()  # with their marks; the first ones are drawn on top

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self.runs:
            return []
        styles = self.component_styles()
        texts = {tuple(run.text.get(part) for part in run_list.PERPLEXITY_PARTS) for _, run in self.runs}
        units = {run.unit for _, run in self.runs}
        unit = units.pop() if len(units) == 1 else training_view.PERPLEXITY
        heading = f"validation {unit.name}" if len(texts) == 1 else f"{unit.name}, not comparable"
        legend, bounds = [[Segment(heading, styles["chart--axis"])]], list[float]()
        curves = {mark: (run.curve[0], np.log10(run.curve[1])) for mark, run in self.runs}
        for mark, run in self.runs:
            bounds += charts.perplexity_bounds(curves[mark])
            valid = run.figures.get("valid_perplexity")  # as in the list: of the saved model, not the lowest point
            figure = "" if valid is None else f" {run.unit.format(valid)}"
            legend.append([Segment(f"{mark} {printable(run.name)}{figure}", styles[CURVE_STYLES[mark]])])
        legend_line = fit_groups(legend, width, styles[""])
        if height < 4 or width < charts.Y_LABEL_WIDTH + 10 or not bounds:
            return [legend_line, Strip([Segment("" if bounds else "no evaluation yet", styles["chart--axis"])])]
        y_range = min(bounds) * 0.97, min(max(bounds), charts.MAX_PERPLEXITY_RATIO * min(bounds)) * 1.03
        last_epoch = max(1.0, *(float(epochs[-1]) for epochs, _ in curves.values() if len(epochs)))
        plot = charts.Plot(width, height - 1, (0.0, last_epoch), y_range, unit)
        for mark in sorted(curves, reverse=True):
            epochs, log_perplexities = curves[mark]
            if len(epochs):
                plot.draw({CURVE_STYLES[mark]: curves[mark]}, ())
                row, column = plot.row_at(10.0 ** float(log_perplexities[-1])), plot.column_at(float(epochs[-1]))
                plot.draw_text(row, column, mark, CURVE_STYLES[mark])
        return [legend_line, *plot.lines(styles)]


@dataclass(frozen=True)
class DifferenceTables:
    """Tables of a comparison, laid out for the width of the widget that shows them."""

    compared: run_list.RunComparison
    names: Sequence[str]
    styles: Mapping[run_list.Role, Style]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from run_list.comparison_tables(self.compared, self.names, options.max_width, self.styles)


class ComparisonPane(Horizontal):
    """Chart with the validation curves, and a table of differences beside it, which tab focuses to scroll it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"differences--{role}" for role in get_args(run_list.Role)}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._cache: dict[Path, tuple[RunSummary, run_list.ComparedRun]] = {}  # with the summary at that time

    def compose(self) -> ComposeResult:
        yield OverlayChart(id="curves")
        with VerticalScroll(id="differences"):
            yield Static(id="settings", markup=False)

    @work(exclusive=True)
    async def compare(self, marked_runs: Sequence[tuple[str, RunSummary]]) -> None:
        """Show the curves of runs and, for two or more, their differences to the first one.

        Each run comes with its mark, which is shown at its curve and in the heading of its column.
        """
        for _, run in marked_runs:
            if run.path not in self._cache or self._cache[run.path][0] != run:
                self._cache[run.path] = run, await run_in_thread(run_list.read_compared_run, run.path, run.name)
        if is_closed(self):
            return
        chart, table = self.query_one(OverlayChart), self.query_one("#settings", Static)
        chart.runs = [(mark, self._cache[run.path][1]) for mark, run in marked_runs]
        chart.redraw()
        if len(marked_runs) > 1:
            roles: tuple[run_list.Role, ...] = get_args(run_list.Role)
            styles = {role: self.get_component_rich_style(f"differences--{role}", partial=True) for role in roles}
            names = [f"{mark} {run.name}" for mark, run in marked_runs]
            table.update(DifferenceTables(run_list.compare_runs([run for _, run in chart.runs]), names, styles))
        else:
            table.update("Mark a run with space: the selected run, or other marked ones, are compared with it.")


def choose_run(screen: AppScreen[Any], on_chosen: Callable[[str], object]) -> None:
    """Show the runs, and pass the name or the path of the selected one to `on_chosen`."""

    def choose(name: str | None) -> None:
        if name is not None:
            on_chosen(name)

    screen.app.push_screen(RunsScreen(screen.state.runs_dir), choose)


class RunsScreen(AppScreen[str | None]):
    """List of the runs in a directory, dismissed with the path of a run, the name of a bundled model, or None."""

    CSS_PATH = "runs.tcss"
    AUTO_FOCUS = "#rows"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "runs",
        """
        watch   | ctrl+t | watch          | watch   | Watch the training of the selected run
        mark    | space  | toggle_mark    | mark    | Mark the run: the others are compared with the first marked one
        compare | c      | toggle_compare | compare | Settings that differ, and results; tab scrolls them
        back    | escape | focus_list     | list    | Back from the comparison to the list
        """,
        show=True,
    )

    def __init__(self, runs_dir: Path | None = None) -> None:
        super().__init__()
        self._runs_dir = (runs_dir or default_runs_dir()).absolute()
        self._marked: list[Path] = []
        self._list = ItemList(
            ListSource(
                "runs",
                run_list.RUN_COLUMNS,
                read=lambda: run_list.list_selectable_runs(self._runs_dir),
                hint=_hint,
                searched=lambda run: f"{run.name} {run.state} {run.preset} {run.corpus} {run.mode}",
                mark=lambda run: CURVE_MARKS[self._marked.index(run.path)] if run.path in self._marked else "",
                open=self._open,
                rename=self._rename,
                describe=lambda run: f"{run.name} ({format_bytes(run.size_bytes)})",
                delete=self._delete,
                export=lambda run: ask_to_export_csv(self, run.path, run.name, self._list.show_message),
                max_name_length=MAX_RUN_NAME_LENGTH,
            )
        )

    def compose(self) -> ComposeResult:
        yield self._list
        yield Rule(line_style="solid")
        yield ComparisonPane(id="comparison")
        yield KeyFooter(lambda: [FooterKey(*key) for key in FOOTER])

    def on_mount(self) -> None:
        self.set_interval(POLL_INTERVAL, self._refresh_if_training)

    def _refresh_if_training(self) -> None:
        if any(run.state == "running" for run in self._list.items) and self.is_active:
            self._list.reload()

    def _open(self, run: RunSummary) -> None:
        if run.valid_perplexity is None and run.path not in bundled_runs():
            self._list.show_message(f"{run.name} has no model yet; the first evaluation saves one.")
        else:
            self.dismiss(bundled_runs().get(run.path) or str(run.path))

    def action_watch(self) -> None:
        def closed(loaded: LoadedModel | None) -> None:
            if loaded is not None:
                self.dismiss(bundled_runs().get(loaded.path) or str(loaded.path))

        if run := self._list.selected:
            self.post_message(WatchRun(run.path, closed))

    # Comparison

    def action_focus_list(self) -> None:
        self.query_one("#rows").focus()

    @on(OptionList.OptionHighlighted)
    def _compare(self) -> None:
        """Compare the marked runs, or the selected one with the only marked one."""
        by_path, selected = {run.path: run for run in self._list.items}, self._list.selected
        compared = [by_path[path] for path in self._marked if path in by_path]
        if len(compared) < 2 and selected is not None and selected not in compared:
            compared.append(selected)
        self.query_one(ComparisonPane).compare(list(zip(CURVE_MARKS, compared, strict=False)))

    def action_toggle_mark(self) -> None:
        if not (run := self._list.selected):
            return
        message = ""
        if run.path in self._marked:
            self._marked.remove(run.path)
        elif len(self._marked) < len(CURVE_MARKS):
            self._marked.append(run.path)
        else:
            message = f"At most {len(CURVE_MARKS)} runs can be marked; remove a mark first."
        self._list.show_message(message)
        self._list.update_rows()
        self._compare()

    def action_toggle_compare(self) -> None:
        self.toggle_class("-differences")

    # Changes

    def _rename(self, run: RunSummary, name: str) -> None:
        locked_run.rename_run(str(run.path), name, self._runs_dir)
        self._marked = [self._runs_dir / name if path == run.path else path for path in self._marked]

    async def _delete(self, run: RunSummary) -> None:
        await asyncio.to_thread(locked_run.delete_run, run.path, self._runs_dir)
        self._marked = [path for path in self._marked if path != run.path]


def _hint(runs: Sequence[RunSummary]) -> str:
    has_own = any(run.path not in bundled_runs() for run in runs)
    hints = ["valid, test: of the best epoch" if has_own else "No runs yet. Press esc, then ctrl+t to train one."]
    hints += [PRETRAINED_MARK_NOTE] if any(run.pretrained_on_other_text for run in runs) else []
    return "   ".join(hints)
