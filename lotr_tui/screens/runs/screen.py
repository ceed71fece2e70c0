"""Screen with the runs: filter, sort, compare, play, watch, rename, delete and export."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import OptionList, Rule

from engine.runs import locked_run
from engine.runs.directory import MAX_RUN_NAME_LENGTH, RunSummary, bundled_runs
from engine.runs.loading import LoadedModel
from engine.storage.files import default_runs_dir
from lotr_tui.app_state import WatchRun
from lotr_tui.formatting import PRETRAINED_MARK_NOTE, format_bytes
from lotr_tui.monitor.run_list import RUN_COLUMNS, list_selectable_runs
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.paths import ask_to_export_csv
from lotr_tui.screens.item_list import ItemList, ListSource
from lotr_tui.screens.runs.comparison import CURVE_MARKS, ComparisonPane
from lotr_tui.widgets.keys import FooterKey, KeyFooter, binding_table

FOOTER = (
    ("list.open", "play"), ("runs.watch",), ("runs.mark",), ("runs.compare",), ("list.filter",), ("list.sort",),
    ("list.rename",), ("list.delete",), ("list.export",), ("list.back",),
)  # fmt: skip
POLL_INTERVAL = 3.0  # seconds between two refreshes of the list while a run is training


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
                RUN_COLUMNS,
                read=lambda: list_selectable_runs(self._runs_dir),
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
    hints = [] if has_own else ["No runs yet. Press esc, then ctrl+t to train one."]
    hints += [PRETRAINED_MARK_NOTE] if any(run.pretrained_on_other_text for run in runs) else []
    return "   ".join(hints)
