"""Screen with the runs: filter, sort, compare, play, watch, rename, delete and export."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input, OptionList, Rule, Static

from engine.errors import LotrError, printable
from engine.runs.directory import MAX_RUN_NAME_LENGTH, RunSummary, bundled_runs
from engine.runs.loading import LoadedModel
from engine.runs.locked_run import delete_run, rename_run
from engine.storage.files import default_runs_dir
from lotr_tui.app_state import WatchRun
from lotr_tui.background_task import run_in_thread
from lotr_tui.formatting import PRETRAINED_MARK_NOTE, fit_cells, format_bytes, truncate
from lotr_tui.monitor.run_list import AGE_COLUMN, RUN_COLUMNS, filter_and_sort_runs, list_selectable_runs
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.paths import ask_to_export_csv
from lotr_tui.screens.dialogs.questions import NameDialog, confirm
from lotr_tui.screens.runs.comparison import BASELINE_MARK, CURVE_MARKS, ComparisonPane
from lotr_tui.textual_fixes.app import RobustOptionList
from lotr_tui.theme import MUTED
from lotr_tui.widgets.inputs import LineInput
from lotr_tui.widgets.keys import KeyFooter, binding_table
from lotr_tui.widgets.screen_lines import StatusBar

ROW_MARGIN = 4  # columns beside a row: the mark before it and the scroll bar after it
POLL_INTERVAL = 3.0  # seconds between two refreshes of the list while a run is training
NAME_WIDTHS = (16, 24)  # limits of the room for names, which fits the longest name; default names have up to 24 cells
MAX_NAME_WIDTH = 48  # of the column of names on a wide terminal


class RunsScreen(AppScreen[str | None]):
    """List of the runs in a directory, dismissed with the path of a run, the name of a bundled model, or None."""

    DEFAULT_CSS = """
    RunsScreen {
        Rule.-horizontal { margin: 0; color: $border; height: 1; }
        #columns { height: 1; padding-left: 3; text-wrap: nowrap; }
        #filter { background: $background; padding: 0 1; display: none; }
        #filter.-active, #filter:focus { display: block; }
        #runs {
            height: 1fr; min-height: 3; border: none; padding: 0; overflow-x: hidden;
            scrollbar-size-vertical: 1; scrollbar-gutter: stable;
            background: $background; background-tint: transparent;
            text-wrap: nowrap; text-overflow: ellipsis;
        }
        #message { height: auto; max-height: 3; padding: 0 1; }
        &.-differences #differences { display: block; }
        &.-differences #comparison { height: 2fr; }
        &.-differences.-narrow #curves { display: none; }
    }
    """
    AUTO_FOCUS = "#runs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_run", "play", id="runs.select", tooltip="Play with the selected run", priority=True),
        *binding_table(
            "runs",
            """
            watch    | ctrl+t | watch           | watch    | Watch the training of the selected run
            mark     | space  | toggle_mark     | mark     | Mark the run for the comparison
            baseline | b      | toggle_baseline | baseline | Compare other runs with this one; again: unpin it
            compare  | c      | toggle_compare  | compare  | Settings that differ, and results; tab scrolls them
            filter   | slash  | focus_filter    | filter   | Filter the runs | /
            sort     | s      | sort            | sort     | Sort by the next column
            rename   | e      | rename          | rename   | Rename the selected run
            delete   | x      | delete          | delete   | Delete the selected run
            export   | ctrl+s | export          | export   | Export the metrics as CSV files
            """,
            show=True,
        ),
        Binding("escape", "back", "back", id="runs.back", tooltip="Clear the filter, or go back", priority=True),
    ]

    def __init__(self, runs_dir: Path | None = None) -> None:
        super().__init__()
        self._runs_dir = (runs_dir or default_runs_dir()).absolute()
        self._runs: list[RunSummary] = []
        self._visible_runs: list[RunSummary] = []
        self._message, self._hints = "", "reading the runs …"  # the hints are shown while there is no message
        self._marked: list[Path] = []
        self._baseline: Path | None = None  # may be in another folder
        self._sort_column = AGE_COLUMN  # latest first

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield LineInput(placeholder="words in name, state, preset, corpus", id="filter", compact=True)
        yield Rule(line_style="solid")
        yield Static(id="columns", markup=False)
        yield RobustOptionList(id="runs", markup=False)
        yield Rule(line_style="solid")
        yield ComparisonPane(id="comparison")
        yield Static(id="message", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        if baseline := self.state.settings.current.baseline_run:
            self._baseline = Path(baseline)
        self._reload("")
        self.set_interval(POLL_INTERVAL, self._refresh_if_training)

    def on_resize(self) -> None:
        self._update_rows()

    # List

    def _refresh_if_training(self) -> None:
        if any(run.state == "running" for run in self._runs) and self.is_active:
            self._reload(self._message)

    @work(exclusive=True, group="list")
    async def _reload(self, message: str, selected_path: Path | None = None) -> None:
        """Read the runs, and show a message."""
        self._show_message(message)
        self._runs = await run_in_thread(list_selectable_runs, self._runs_dir)
        if self._is_closing:
            return
        paths = {run.path for run in self._runs}
        self._marked = [path for path in self._marked if path in paths]
        has_own_runs = any(run.path not in bundled_runs() for run in self._runs)
        hints = [] if has_own_runs else ["No runs yet. Press esc, then ctrl+t to train one."]
        hints += [PRETRAINED_MARK_NOTE] if any(run.pretrained_on_other_text for run in self._runs) else []
        self._hints = "   ".join(hints)
        self._show_message(message)
        self._update_rows(selected_path)

    @property
    def _is_closing(self) -> bool:
        """True when the screen is being closed, which removes its widgets first."""
        return not (self.query("#runs") and self.query("#comparison"))

    @on(Input.Changed, "#filter")
    def _apply_filter(self) -> None:
        filter_input = self.query_one("#filter", Input)
        filter_input.set_class(bool(filter_input.value), "-active")
        self._update_rows()

    def _update_rows(self, selected_path: Path | None = None) -> None:
        """Fill the list, and select the run of `selected_path`, or the same run as before."""
        options = self.query_one("#runs", OptionList)
        selected, highlighted = self._selected_run(), options.highlighted or 0
        path = selected_path or (selected.path if selected else None)
        query = self.query_one("#filter", Input).value
        self._visible_runs = filter_and_sort_runs(self._runs, query, self._sort_column)
        width = max(20, self.size.width - ROW_MARGIN)
        longest = max((cell_len(printable(run.name)) for run in self._visible_runs), default=0)
        name_width = max(NAME_WIDTHS[0], min(NAME_WIDTHS[1], longest))
        names = [f"{each.name}{'↓' * (index == self._sort_column)}" for index, each in enumerate(RUN_COLUMNS)]
        header = _format_cells(names, width, name_width, self._sort_column)
        self.query_one("#columns", Static).update(Content.styled(header, MUTED))
        rows = []
        for run in self._visible_runs:
            row = _format_cells([each.format(run) for each in RUN_COLUMNS], width, name_width, self._sort_column)
            rows.append(Content.assemble((f" {self._mark_of(run.path)} ", "bold $accent"), row))
        options.set_options(rows)
        if rows:
            indices = [index for index, run in enumerate(self._visible_runs) if run.path == path]
            options.highlighted = indices[0] if indices else min(highlighted, len(rows) - 1)
        count = len(self._runs)
        shown = f"{len(rows):,} of {count:,}" if len(rows) < count else f"{count:,}"
        title = Content.assemble(("lotr-tui", "bold $accent"), "  ", ("runs", "bold"), (f" · {shown}", MUTED))
        self.query_one("#status", StatusBar).show(title)
        self._update_comparison()

    def _mark_of(self, path: Path) -> str:
        if path == self._baseline:
            return BASELINE_MARK
        return CURVE_MARKS[self._marked.index(path)] if path in self._marked else " "

    def _selected_run(self) -> RunSummary | None:
        index = self.query_one("#runs", OptionList).highlighted
        return self._visible_runs[index] if index is not None and index < len(self._visible_runs) else None

    @on(OptionList.OptionHighlighted)
    def _update_comparison(self) -> None:
        """Compare the baseline, if one is pinned, with the marked runs, or with the selected run if none is marked."""
        if self._is_closing:
            return
        by_path = {run.path: run for run in self._runs}
        compared = [(self._mark_of(path), by_path[path]) for path in self._marked if path in by_path]
        selected = self._selected_run()
        if not compared and selected is not None and selected.path != self._baseline:
            compared = [(CURVE_MARKS[0], selected)]
        if self._baseline in by_path:
            compared.insert(0, (BASELINE_MARK, by_path[self._baseline]))
        self.query_one(ComparisonPane).compare(compared)

    def _show_message(self, text: str) -> None:
        self._message = text
        self.query_one("#message", Static).update(Content(printable(text or self._hints)))

    # Actions

    @on(OptionList.OptionSelected)
    def action_select_run(self) -> None:
        run = self._selected_run()
        if self.focused is not None and self.focused.id == "filter":
            self.set_focus(self.query_one("#runs"))
        elif run is None:
            self._show_message("No run matches the filter.")
        elif run.valid_perplexity is None and run.path not in bundled_runs():
            self._show_message(f"{run.name} has no model yet; the first evaluation saves one.")
        else:
            self.dismiss(bundled_runs().get(run.path) or str(run.path))

    def action_watch(self) -> None:
        def closed(loaded: LoadedModel | None) -> None:
            if loaded is not None:
                self.dismiss(bundled_runs().get(loaded.path) or str(loaded.path))

        if run := self._selected_run():
            self.post_message(WatchRun(run.path, closed))

    def action_back(self) -> None:
        filter_input = self.query_one("#filter", Input)
        if filter_input.has_focus or filter_input.value:
            filter_input.value = ""
            self.set_focus(self.query_one("#runs"))
        else:
            self.dismiss(None)

    def action_focus_filter(self) -> None:
        filter_input = self.query_one("#filter", Input)
        filter_input.add_class("-active")
        self.set_focus(filter_input)

    def action_toggle_mark(self) -> None:
        if not (run := self._selected_run()):
            return
        message = ""
        if run.path == self._baseline:
            message = f"{run.name} is the baseline; press b to unpin it."
        elif run.path in self._marked:
            self._marked.remove(run.path)
        elif len(self._marked) < len(CURVE_MARKS):
            self._marked.append(run.path)
        else:
            message = f"At most {len(CURVE_MARKS)} runs can be marked; remove a mark first."
        self._show_message(message)
        self._update_rows()

    def action_toggle_baseline(self) -> None:
        if not (run := self._selected_run()):
            return
        if run.path == self._baseline:
            self._keep_baseline(None)
            self._show_message(f"{run.name} is no longer the baseline.")
        else:
            self._keep_baseline(run.path)
            self._marked = [path for path in self._marked if path != run.path]
            self.add_class("-differences")
            self._show_message(f"{run.name} is the baseline; other runs are compared with it.")
        self._update_rows()

    def _keep_baseline(self, path: Path | None) -> None:
        """Keep the baseline for the next session."""
        self._baseline = path
        text = str(path.absolute()) if path else ""
        self.state.update_settings(baseline_run=text if text.isprintable() else "")

    def action_sort(self) -> None:
        self._sort_column = (self._sort_column + 1) % len(RUN_COLUMNS)
        self._update_rows()

    def action_toggle_compare(self) -> None:
        self.toggle_class("-differences")

    def action_rename(self) -> None:
        if not (run := self._selected_run()):
            return

        def renamed(name: str | None) -> None:
            if name is not None and name != run.name:
                path = self._runs_dir / name
                self._marked = [path if marked == run.path else marked for marked in self._marked]
                if run.path == self._baseline:
                    self._keep_baseline(path)
                self._reload(f"{run.name} is now {name}", path)

        title = f"New name of {printable(run.name)}"
        rename = partial(rename_run, str(run.path), runs_dir=self._runs_dir)
        self.app.push_screen(NameDialog(run.name, title, MAX_RUN_NAME_LENGTH, rename), renamed)

    def action_delete(self) -> None:
        if not (run := self._selected_run()):
            return
        if run.state == "running":
            self._show_message(f"✗ {run.name} is being trained; stop it first")
            return
        question = f"Delete {printable(run.name)} ({format_bytes(run.size_bytes)})? This cannot be undone."
        confirm(self.app, question, lambda: self._delete(run))

    @work(exclusive=True, group="change")
    async def _delete(self, run: RunSummary) -> None:
        try:
            await asyncio.to_thread(delete_run, run.path, self._runs_dir)
        except LotrError as error:
            self._reload(f"✗ {error}")
            return
        if run.path == self._baseline:
            self._keep_baseline(None)
        self._reload(f"deleted {run.name}")

    def action_export(self) -> None:
        if run := self._selected_run():
            ask_to_export_csv(self, run.path, run.name, self._show_message)


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
    return " ".join([fit_cells(printable(texts[0]), room), *values])
