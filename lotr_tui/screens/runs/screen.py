"""Screen with the runs: filter, sort, compare, play, rename, delete and export."""

import asyncio
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import Input, OptionList, Rule, Static
from textual.widgets.option_list import Option

from engine.errors import LotrError, printable
from engine.runs.directory import MAX_RUN_NAME_LENGTH, bundled_run_name
from engine.runs.locked_run import delete_run, rename_run
from engine.runs.summary import RunSummary
from engine.storage.files import default_runs_dir
from lotr_tui.background_task import run_in_thread
from lotr_tui.formatting import PRETRAINED_MARK_NOTE, format_bytes
from lotr_tui.monitor.export import export_csv, export_tensorboard
from lotr_tui.monitor.run_list import AGE_COLUMN, RUN_COLUMNS, filter_and_sort_runs, list_selectable_runs
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.confirm import confirm
from lotr_tui.screens.dialogs.line_dialog import RenameDialog
from lotr_tui.screens.dialogs.path_dialog import ask_to_export
from lotr_tui.screens.runs.bindings import RUNS_BINDINGS
from lotr_tui.screens.runs.comparison import ComparisonPane
from lotr_tui.screens.runs.marks import RunMarks
from lotr_tui.screens.runs.row_format import format_header, format_row, name_width
from lotr_tui.session.export import check_export_target
from lotr_tui.textual_fixes.widgets import RobustOptionList
from lotr_tui.theme import MUTED
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.line_input import LineInput
from lotr_tui.widgets.status_bar import StatusBar

ROW_MARGIN = 4
"""Columns beside a row: the mark before it and the scroll bar after it."""
POLL_INTERVAL = 3.0
"""Seconds between two refreshes of the list while a run is training."""


class RunsScreen(AppScreen[str | None]):
    """List of the runs in a directory, dismissed with the path of the selected run, "bundled" or None."""

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
    BINDINGS: ClassVar[list[BindingType]] = RUNS_BINDINGS

    def __init__(self, runs_dir: Path | None = None) -> None:
        """List the runs of a directory, or of the default one."""
        super().__init__()
        self._runs_dir = (runs_dir or default_runs_dir()).absolute()
        self._runs: list[RunSummary] = []
        self._visible_runs: list[RunSummary] = []
        self._message, self._hints = "", "reading the runs …"  # the hints are shown while there is no message
        self._marks = RunMarks()
        self._sort_column, self._sort_reversed = AGE_COLUMN, False  # latest first

    def compose(self) -> ComposeResult:
        """Create the title bar, the filter, the list, the comparison, a line for messages and the footer."""
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
        """Read the runs, and start to refresh the list while a run is training."""
        if baseline := self.app.settings_store.current.baseline_run:
            self._marks.baseline = Path(baseline)
        self._show_message("")
        self.action_refresh()
        self.set_interval(POLL_INTERVAL, self._refresh_if_training)

    def on_resize(self) -> None:
        """Format the rows for the new width."""
        self._update_rows()

    # List

    @work(exclusive=True, group="list")
    async def action_refresh(self) -> None:
        """Read the runs again."""
        self._runs = await run_in_thread(list_selectable_runs, self._runs_dir)
        if self._is_closing:
            return
        self._marks.keep({run.path for run in self._runs})
        has_own_runs = any(bundled_run_name(run.path) is None for run in self._runs)
        hints = [] if has_own_runs else ["No runs yet. Press esc, then ctrl+t to train one."]
        hints += [PRETRAINED_MARK_NOTE] if any(run.pretrained_on_other_text for run in self._runs) else []
        self._hints = "   ".join(hints)
        self._show_message(self._message)
        self._update_rows()

    def _refresh_if_training(self) -> None:
        if any(run.state == "running" for run in self._runs) and self.is_current:
            self.action_refresh()

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
        self._visible_runs = filter_and_sort_runs(
            self._runs, self.query_one("#filter", Input).value, self._sort_column, self._sort_reversed
        )
        width = max(20, self.size.width - ROW_MARGIN)
        min_name_width = name_width(self._visible_runs)
        header = format_header(width, min_name_width, self._sort_column, self._sort_reversed)
        self.query_one("#columns", Static).update(Content.styled(header, MUTED))
        options.set_options(Option(self._format_row(run, width, min_name_width)) for run in self._visible_runs)
        if self._visible_runs:
            indices = [index for index, run in enumerate(self._visible_runs) if run.path == path]
            options.highlighted = indices[0] if indices else min(highlighted, len(self._visible_runs) - 1)
        count, visible_count = len(self._runs), len(self._visible_runs)
        shown = f"{visible_count:,} of {count:,}" if visible_count < count else f"{count:,}"
        title = Content.assemble(("lotr-tui", "bold $accent"), "  ", ("runs", "bold"), (f" · {shown}", MUTED))
        self.query_one("#status", StatusBar).show(title)
        self._update_comparison()

    def _format_row(self, run: RunSummary, width: int, min_name_width: int) -> Content:
        row = format_row(run, width, min_name_width, self._sort_column)
        return Content.assemble((f" {self._marks.mark_of(run.path)} ", "bold $accent"), row)

    @property
    def _is_closing(self) -> bool:
        """True when the screen is being closed, which removes its widgets first."""
        return not (self.query("#runs") and self.query("#comparison"))

    def _selected_run(self) -> RunSummary | None:
        index = self.query_one("#runs", OptionList).highlighted
        return self._visible_runs[index] if index is not None and index < len(self._visible_runs) else None

    @on(OptionList.OptionHighlighted)
    def _update_comparison(self) -> None:
        """Compare the marked runs, or the selected run if no run is marked, with the baseline."""
        if not self._is_closing:
            self.query_one(ComparisonPane).compare(self._marks.compared_runs(self._runs, self._selected_run()))

    # Actions

    @on(OptionList.OptionSelected)
    def action_select_run(self) -> None:
        """Leave the filter; in the list, close the screen with the selected run."""
        if self.focused is not None and self.focused.id == "filter":
            self.set_focus(self.query_one("#runs"))
            return
        run = self._selected_run()
        if run is None:
            self._show_message("No run matches the filter.")
        elif run.valid_perplexity is None and bundled_run_name(run.path) is None:
            self._show_message(f"{run.name} has no model yet; the first evaluation saves one.")
        else:
            self.dismiss(bundled_run_name(run.path) or str(run.path))

    def action_back(self) -> None:
        """Clear and leave the filter; without a filter, close the screen."""
        filter_input = self.query_one("#filter", Input)
        if filter_input.has_focus or filter_input.value:
            filter_input.value = ""
            self.set_focus(self.query_one("#runs"))
        else:
            self.dismiss(None)

    def action_focus_filter(self) -> None:
        """Show and focus the filter; the list follows as the user types."""
        filter_input = self.query_one("#filter", Input)
        filter_input.add_class("-active")
        self.set_focus(filter_input)

    def action_toggle_mark(self) -> None:
        """Mark the selected run for the comparison, or remove its mark."""
        run = self._selected_run()
        if run is None:
            return
        self._show_message(self._marks.toggle(run))
        self._update_rows()

    def action_toggle_baseline(self) -> None:
        """Pin the selected run as the baseline and show the differences to it; unpin it if it is the baseline."""
        run = self._selected_run()
        if run is None:
            return
        if self._marks.toggle_baseline(run):
            self.add_class("-differences")
            self.refresh_bindings()
            self._show_message(f"{run.name} is the baseline; other runs are compared with it.")
        else:
            self._show_message(f"{run.name} is no longer the baseline.")
        self._keep_baseline()
        self._update_rows()

    def _keep_baseline(self) -> None:
        """Keep the baseline for the next session."""
        path = str(self._marks.baseline.absolute()) if self._marks.baseline else ""
        self.app.update_settings(baseline_run=path if path.isprintable() else "")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable the keys that scroll the comparison while it is hidden."""
        if action == "scroll_differences" and not self.has_class("-differences"):
            return False
        return super().check_action(action, parameters)

    def action_scroll_differences(self, pages: int) -> None:
        """Scroll the comparison by pages."""
        self.query_one(ComparisonPane).scroll_differences(pages)

    def action_sort(self, offset: int) -> None:
        """Sort by the column `offset` columns further."""
        self._sort_column = (self._sort_column + offset) % len(RUN_COLUMNS)
        self._sort_reversed = False
        self._update_rows()

    def action_reverse_sort(self) -> None:
        """Reverse the order."""
        self._sort_reversed = not self._sort_reversed
        self._update_rows()

    def action_toggle_differences(self) -> None:
        """Show or hide the settings and results that differ."""
        self.toggle_class("-differences")
        self.refresh_bindings()

    def action_rename(self) -> None:
        """Ask for a new name of the selected run."""
        run = self._selected_run()
        if run is None:
            return

        def rename(name: str) -> None:
            rename_run(str(run.path), name, self._runs_dir)

        def renamed(name: str | None) -> None:
            if name is not None and name != run.name:
                self._marks.rename(run.path, self._runs_dir / name)
                self._keep_baseline()
                self._reload(f"{run.name} is now {name}", self._runs_dir / name)

        title = f"New name of {printable(run.name)}"
        self.app.push_screen(RenameDialog(run.name, title, MAX_RUN_NAME_LENGTH, rename), renamed)

    def action_delete(self) -> None:
        """Delete the selected run after a confirmation."""
        run = self._selected_run()
        if run is None:
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
        else:
            self._marks.forget(run.path)
            self._keep_baseline()
            self._reload(f"deleted {run.name}")

    @work(exclusive=True, group="list")
    async def _reload(self, message: str, selected_path: Path | None = None) -> None:
        """Read the changed runs, and show a message."""
        self._runs = await run_in_thread(list_selectable_runs, self._runs_dir)
        if not self._is_closing:
            self._update_rows(selected_path)
            self._show_message(message)

    def action_export(self, kind: str) -> None:
        """Ask for a new folder, and export the metrics of the selected run there as "csv" or "tensorboard"."""
        run = self._selected_run()
        if run is None:
            return
        export = export_csv if kind == "csv" else export_tensorboard
        ask_to_export(
            self,
            f"Export {printable(run.name)} to a new folder",
            f"{run.name}-{kind}",
            partial(check_export_target, is_folder=True),
            lambda target: export(run.path, target.path),
            self._show_message,
        )

    def _show_message(self, text: str) -> None:
        self._message = text
        self.query_one("#message", Static).update(Content(printable(text or self._hints)))
