"""The runs: look through them, compare them, play with one, rename, delete, export."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from rich.cells import set_cell_size
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, OptionList, Rule, Static
from textual.widgets.option_list import Option

from engine.config import BUNDLED
from engine.errors import LotrError, printable
from engine.runs.manage import remove, rename
from engine.runs.store import RunSummary
from engine.storage.files import runs_folder
from lotr_tui.background_task import aside
from lotr_tui.monitor.run_list import BY_AGE, COLUMNS, Curve, all_runs, choose, differences, read_curve
from lotr_tui.screens.dialogs.confirm import Confirm
from lotr_tui.screens.dialogs.name import AskName
from lotr_tui.screens.runs.overlay_chart import MARKS, OverlayChart
from lotr_tui.textual_fixes.line_box import LineBox
from lotr_tui.textual_fixes.rows import Rows
from lotr_tui.textual_fixes.screen import Steady
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys_footer import KeysFooter

LEAST_NAME = 16
"""Columns that a name has at least; what then finds no room on the right is left out."""
MARGIN = 4
"""Columns beside those: the mark before, the scroll bar behind."""
LOOK_SECONDS = 3.0
"""Between two looks at the runs while one of them is being trained."""


class RunsScreen(Steady, Screen[str | None]):
    """The runs of a folder; dismissed with the path of the one to play with, or None."""

    DEFAULT_CSS = """
    RunsScreen {
        Rule.-horizontal { margin: 0; color: $border; height: 1; }
        #title { height: 1; padding: 0 1; }
        #columns { height: 1; padding-left: 3; text-wrap: nowrap; }
        #filter { background: $background; padding: 0 1; display: none; }
        #filter.-typed, #filter:focus { display: block; }
        #runs {
            height: 1fr; min-height: 3; border: none; padding: 0; overflow-x: hidden;
            scrollbar-size-vertical: 1; scrollbar-gutter: stable;
            background: $background; background-tint: transparent;
            text-wrap: nowrap; text-overflow: ellipsis;
        }
        #compared { height: 1fr; }
        #curves { width: 1fr; }
        #differences { width: 1fr; display: none; padding: 0 1; scrollbar-size-vertical: 1; }
        #said { height: auto; max-height: 3; padding: 0 1; }
        &.-differences #differences { display: block; }
        &.-differences.-narrow #curves { display: none; }
    }
    """
    AUTO_FOCUS = "#runs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "play", "play", id="runs.play", tooltip="Play with the chosen run's model", priority=True),
        Binding("space", "mark", "mark", id="runs.mark", tooltip="Compare its curve and settings with others marked"),
        Binding("slash", "filter", "filter", key_display="/", id="runs.filter", tooltip="Only runs with these words"),
        Binding("s", "sort(1)", "sort", id="runs.sort", tooltip="By the next column"),
        Binding("S", "reverse", "reverse", show=False, id="runs.reverse", tooltip="The other way round"),
        Binding("d", "differences", "differences", id="runs.differences", tooltip="The settings that differ"),
        Binding("r", "rename", "rename", id="runs.rename", tooltip="Give the chosen run another name"),
        Binding("delete,x", "delete", "delete", key_display="x", id="runs.delete", tooltip="Delete it, after asking"),
        Binding("c", "export('csv')", "CSV", id="runs.csv", tooltip="Write its record as CSV files"),
        Binding("t", "export('tensorboard')", "TensorBoard", id="runs.tensorboard", tooltip="Write it as its logs"),
        Binding("f5", "refresh", "look again", show=False, id="runs.refresh", tooltip="List the runs anew"),
        Binding("escape", "back", "back", id="runs.back", tooltip="Out of the filter, or back", priority=True),
    ]

    def __init__(self, folder: Path | None = None, exports: Path | None = None) -> None:
        """Runs of `folder` (None: ours); files are written to `exports` (None: the current directory)."""
        super().__init__()
        self._folder = folder or runs_folder()
        self._exports = exports
        self._all: list[RunSummary] = []
        self._shown: list[RunSummary] = []
        self._marked: list[Path] = []
        self._column, self._backwards = BY_AGE, False  # the latest first
        self._curves: dict[Path, tuple[int, Curve]] = {}  # with the size of the run then

    def compose(self) -> ComposeResult:
        """A title, the filter, the list, curves and differences, what was done last, keys."""
        yield Static(id="title", markup=False)
        yield LineBox(placeholder="words of name, state, preset, corpus", id="filter", compact=True)
        yield Rule(line_style="solid")
        yield Static(id="columns", markup=False)
        yield Rows(id="runs", markup=False)
        yield Rule(line_style="solid")
        with Horizontal(id="compared"):
            yield OverlayChart(id="curves")
            with VerticalScroll(id="differences", can_focus=False):
                yield Static(id="settings", markup=False)
        yield Static(id="said", markup=False)
        yield KeysFooter()

    def on_mount(self) -> None:
        """Look which there are, and now and then again while one is being trained."""
        self._say("reading the runs …")
        self.action_refresh()
        self.set_interval(LOOK_SECONDS, self._look_again)

    def on_resize(self) -> None:
        """Rows have as much as there is room for."""
        self._fill()

    # The list

    @work(exclusive=True, group="list")
    async def action_refresh(self) -> None:
        """List the runs anew."""
        self._all = await aside(all_runs, self._folder)
        if self._is_left:
            return
        self._marked = [path for path in self._marked if any(run.path == path for run in self._all)]
        self._say("" if len(self._all) > 1 else "There is no run of yours yet; a training makes one.")
        self._fill()

    def _look_again(self) -> None:
        if any(run.state == "running" for run in self._all) and self.is_current:
            self.action_refresh()

    @on(Input.Changed, "#filter")
    def _typed(self) -> None:
        box = self.query_one("#filter", Input)
        box.set_class(bool(box.value), "-typed")
        self._fill()

    def _fill(self, renamed: Path | None = None) -> None:
        """The rows that are to be seen, the same run chosen as before, or the one that was renamed."""
        rows = self.query_one("#runs", OptionList)
        chosen, at = self._chosen(), rows.highlighted or 0
        path = renamed or (chosen.path if chosen else None)
        self._shown = choose(self._all, self.query_one("#filter", Input).value, self._column, self._backwards)
        room = max(20, self.size.width - MARGIN)
        self.query_one("#columns", Static).update(Content.styled(self._header(room), MUTED))
        rows.set_options(Option(self._row(run, room)) for run in self._shown)
        if self._shown:
            places = [place for place, run in enumerate(self._shown) if run.path == path]
            rows.highlighted = places[0] if places else min(at, len(self._shown) - 1)
        count = f"  {len(self._shown):,} of {len(self._all):,}" if len(self._shown) < len(self._all) else ""
        self.query_one("#title", Static).update(Content.assemble(("Runs", "bold"), (count, MUTED)))
        self._compare()

    def _header(self, room: int) -> str:
        arrow = "↑" if self._backwards else "↓"
        names = [f"{column.name}{arrow if number == self._column else ''}" for number, column in enumerate(COLUMNS)]
        return self._cells(names, room)

    def _row(self, run: RunSummary, room: int) -> Content:
        mark = MARKS[self._marked.index(run.path)] if run.path in self._marked[: len(MARKS)] else " "
        cells = self._cells([column.show(run) for column in COLUMNS], room)
        return Content.assemble((f" {mark} ", "bold $accent"), cells)

    def _cells(self, texts: list[str], room: int) -> str:
        """A text a column; where there is no room those on the right are left out, but never what is sorted by."""
        columns = list(zip(COLUMNS, texts, strict=True))
        sorted_by = columns[self._column]
        while len(columns) > 2 and LEAST_NAME + sum(column.width + 1 for column, _ in columns[1:]) > room:
            columns.pop(-2 if columns[-1] is sorted_by else -1)
        rest = [printable(text)[: column.width].rjust(column.width) for column, text in columns[1:]]
        name = room - sum(len(text) + 1 for text in rest)
        return " ".join([set_cell_size(printable(texts[0]), max(1, name)), *rest])

    @property
    def _is_left(self) -> bool:
        """Whether it was left, or is being left: then its widgets go before it does."""
        return not all(self.query(name) for name in ("#runs", "#curves", "#settings"))

    def _chosen(self) -> RunSummary | None:
        at = self.query_one("#runs", OptionList).highlighted
        return self._shown[at] if at is not None and at < len(self._shown) else None

    # What is compared

    @on(OptionList.OptionHighlighted)
    def _moved(self) -> None:
        self._compare()

    @work(exclusive=True, group="compare")
    async def _compare(self) -> None:
        """Curves and differences of the runs that are marked; the chosen one's curve where none is."""
        if self._is_left:  # between the asking and the beginning, too
            return
        chosen = self._chosen()
        runs = [run for path in self._marked for run in self._all if run.path == path] or ([chosen] if chosen else [])
        curves = [await self._curve(run) for run in runs]
        if self._is_left:
            return
        self.query_one(OverlayChart).show(curves)
        if len(runs) < 2:
            text = "Mark two runs or more with space; here is then which of their settings differ."
        else:
            text = _table(await aside(differences, runs)) or "Their settings are the same."
            if self._is_left:
                return
        self.query_one("#settings", Static).update(Content(text))

    async def _curve(self, run: RunSummary) -> Curve:
        known = self._curves.get(run.path)
        if known is None or known[0] != run.bytes:
            known = self._curves[run.path] = (run.bytes, await aside(read_curve, run))
        return known[1]

    # Actions

    def action_play(self) -> None:
        """Out of the filter to the list; there, close with the chosen run."""
        if self.focused is not None and self.focused.id == "filter":
            self.set_focus(self.query_one("#runs"))
            return
        run = self._chosen()
        if run is None:
            self._say("There is no such run.")
        elif run.valid_perplexity is None and run.name != BUNDLED:
            self._say(f"{run.name} has no model yet; it comes with the first evaluation.")
        else:
            self.dismiss(BUNDLED if run.name == BUNDLED else str(run.path))

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        self.action_play()

    def action_back(self) -> None:
        """Out of the filter, which is emptied; or back to where the list was opened."""
        box = self.query_one("#filter", Input)
        if box.has_focus or box.value:
            box.value = ""
            self.set_focus(self.query_one("#runs"))
        else:
            self.dismiss(None)

    def action_filter(self) -> None:
        """Type words; the list follows."""
        box = self.query_one("#filter", Input)
        box.add_class("-typed")
        self.set_focus(box)

    def action_mark(self) -> None:
        """Mark the chosen run, or take its mark away."""
        run = self._chosen()
        if run is None:
            return
        if run.path in self._marked:
            self._marked.remove(run.path)
        elif len(self._marked) < len(MARKS):
            self._marked.append(run.path)
        else:
            self._say(f"{len(MARKS)} runs are marked, the most that can be compared.")
        self._fill()

    def action_sort(self, columns: int) -> None:
        """Sort by another column."""
        self._column = (self._column + columns) % len(COLUMNS)
        self._backwards = False
        self._fill()

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._backwards = not self._backwards
        self._fill()

    def action_differences(self) -> None:
        """Show or hide the settings that differ."""
        self.toggle_class("-differences")

    def action_rename(self) -> None:
        """Ask for another name."""
        run = self._chosen()
        if run is None:
            return

        def named(name: str | None) -> None:
            if name and name != run.name:
                self._try(lambda: rename(str(run.path), name, self._folder), self._folder / name)

        self.app.push_screen(AskName(run.name, f"What is {printable(run.name)} to be called?", 100), named)

    def action_delete(self) -> None:
        """Delete the chosen run, after asking."""
        run = self._chosen()
        if run is None:
            return
        if run.state == "running":
            self._say(f"✗ {run.name} is being trained; stop it first")
            return

        def delete() -> str:
            remove(run.path, self._folder)
            return f"{run.name} is deleted"

        def answered(yes: bool | None) -> None:
            if yes:
                self._try(delete)

        self.app.push_screen(
            Confirm(f"Delete {printable(run.name)}, {run.bytes / 1e6:,.1f} MB? It is gone then."), answered
        )

    @work(exclusive=True, group="try")
    async def _try(self, action: Callable[[], str], renamed: Path | None = None) -> None:
        """Do something with a run in a thread, say how it went, and list the runs anew."""
        try:
            said = await asyncio.to_thread(action)
        except LotrError as error:
            said, renamed = f"✗ {error}", None
        self._all = await aside(all_runs, self._folder)
        if self._is_left:
            return
        self._fill(renamed)
        self._say(said)

    def action_export(self, kind: str) -> None:
        """Write the chosen run's record to a new folder."""
        run = self._chosen()
        if run is None:
            return
        folder = _free(self._exports or Path.cwd(), f"{run.name}-{kind}")

        def write() -> str:
            from lotr_tui.monitor.export import export_csv, export_tensorboard

            (export_csv if kind == "csv" else export_tensorboard)(run.path, folder)
            return f"written to {printable(str(folder))}"

        self._say(f"writing {folder.name} …")
        self._try(write)

    def _say(self, text: str) -> None:
        self.query_one("#said", Static).update(Content(printable(text)))


def _table(rows: list[tuple[str, list[str]]]) -> str:
    """Names and values under the marks of the runs, a line each."""
    if not rows:
        return ""
    count = len(rows[0][1])
    table = [
        ("", list(MARKS[:count])),
        *((name, [_end_of(printable(value)) for value in values]) for name, values in rows),
    ]
    widths = [max(len(values[number]) for _, values in table) for number in range(count)]
    first = max(len(name) for name, _ in table)
    return "\n".join(
        "  ".join([name.ljust(first), *(value.rjust(width) for value, width in zip(values, widths, strict=True))])
        for name, values in table
    )


def _end_of(value: str, most: int = 20) -> str:
    """Of a long value the end, which of a path tells most."""
    return value if len(value) <= most else f"…{value[1 - most :]}"


def _free(folder: Path, name: str) -> Path:
    """A name in the folder that nothing has yet."""
    names = [name, *(f"{name}-{number}" for number in range(2, 1000))]
    return next((folder / free for free in names if not (folder / free).exists()), folder / name)
