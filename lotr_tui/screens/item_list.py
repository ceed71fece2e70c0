"""List of runs or of saved sessions: columns, filter and order, and questions before an item is renamed or deleted."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from rich.cells import cell_len
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Label, OptionList, Rule, Static

from engine.errors import LotrError, printable
from engine.runs.directory import RunSummary
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import fit_cells, truncate
from lotr_tui.monitor.run_list import ListColumn
from lotr_tui.screens.dialogs.dialog import Dialog, Field, confirm
from lotr_tui.session.session_file import SessionSummary
from lotr_tui.textual_fixes.app import RobustOptionList
from lotr_tui.theme import MUTED
from lotr_tui.widgets.inputs import LineInput
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.screen_lines import StatusBar

ItemT = TypeVar("ItemT", bound=RunSummary | SessionSummary)
ROW_MARGIN = 4  # columns beside a row: the mark before it and the scroll bar after it
NAME_WIDTHS = (16, 24, 48)  # of the names: least, kept before further columns, greatest
TEXTS_AT_ONCE = 20  # whose texts are read before the rows that have the words are shown
MAX_ROWS = 500  # in the list; the filter finds the others


@dataclass(frozen=True)
class ListSource(Generic[ItemT]):
    """Content of a list, and the functions behind its keys; `rename` and `delete` may raise a LotrError."""

    heading: str
    columns: Sequence[ListColumn]  # one of them is the age, by which the list is sorted at first
    read: Callable[[], Sequence[ItemT]]  # in a thread
    hint: Callable[[Sequence[ItemT]], str]  # shown while there is no message
    searched: Callable[[ItemT], str]  # where the words of the filter are looked for
    mark: Callable[[ItemT], str]
    open: Callable[[ItemT], object]
    rename: Callable[[ItemT, str], object]
    describe: Callable[[ItemT], str]  # for the question before it is deleted
    delete: Callable[[ItemT], Awaitable[None]]
    export: Callable[[ItemT], object]
    max_name_length: int
    read_text: Callable[[Path], str] | None = None  # of an item, for the filter, in a thread once words are typed
    placeholder: str = "words that a row has"  # of the filter


class ItemList(Vertical, Generic[ItemT]):
    """Items of a folder, with names and paths, and a message below them; `selected` is the highlighted one."""

    BINDING_GROUP_TITLE = "The list"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "open", "open", id="list.open", tooltip="Play with the run, or open the session", priority=True
        ),
        *binding_table(
            "list",
            """
            filter | slash  | focus_filter | filter | Show only the rows with some words | /
            sort   | s      | sort         | sort   | Sort by the next column
            rename | e      | rename       | rename | Rename the selected row
            delete | x      | delete       | delete | Delete the selected row
            export | ctrl+s | export       | export | Export the session, or the metrics of the run as CSV files
            back   | escape | back         | back   | Clear the filter, or go back
            """,
            show=True,
        ),
    ]

    def __init__(self, source: ListSource[ItemT]) -> None:
        super().__init__()
        self.source = source
        self.items: list[ItemT] = []
        self._shown: list[ItemT] = []
        self._sort_column = [column.name for column in source.columns].index("age")
        self._message = ""
        self._texts: dict[Path, str] = {}  # in lower case

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        with Horizontal(id="filter-row"):
            yield Label("filter")
            yield LineInput(placeholder=self.source.placeholder, id="filter", compact=True)
        yield Rule(line_style="solid")
        yield Static(id="columns", markup=False)
        yield RobustOptionList(id="rows", markup=False)
        yield Static(f"reading the {self.source.heading} …", id="message", markup=False)

    def on_mount(self) -> None:
        self.reload()

    def on_resize(self) -> None:
        self.update_rows()

    @property
    def selected(self) -> ItemT | None:
        index = self.query_one("#rows", OptionList).highlighted
        return self._shown[index] if index is not None and index < len(self._shown) else None

    @work(exclusive=True, group="list")
    async def reload(self, message: str | None = None, path: Path | None = None) -> None:
        """Read the items again, show a message (None: the same as before), and select the item of a path."""
        items = await run_in_thread(self.source.read)
        if not is_closed(self):
            self.items = list(items)
            self.show_message(self._message if message is None else message)
            self.update_rows(path)

    def show_message(self, text: str) -> None:
        self._message = text
        self.query_one("#message", Static).update(Content(printable(text or self.source.hint(self.items))))

    @on(Input.Changed, "#filter")
    def _apply_filter(self, event: Input.Changed) -> None:
        self.query_one("#filter-row").set_class(bool(event.value), "-active")
        self.show_message("")  # an older one is not about these rows
        self.update_rows()
        if event.value and not self._texts and self.source.read_text is not None:
            self._read_texts(self.source.read_text)

    @work(exclusive=True, group="texts")
    async def _read_texts(self, read: Callable[[Path], str]) -> None:
        for start in range(0, len(self.items), TEXTS_AT_ONCE):
            paths = [item.path for item in self.items[start : start + TEXTS_AT_ONCE]]
            self.show_message(f"reading the {self.source.heading}: {start:,} of {len(self.items):,} …")
            texts = await run_in_thread(lambda paths=paths: {path: read(path).lower() for path in paths})
            if is_closed(self):
                return
            self._texts.update(texts)
            self.update_rows()
        self.show_message("")

    def update_rows(self, path: Path | None = None) -> None:
        """Show the rows that match the filter, and select the item of a path, or the same one as before."""
        source, options, selected = self.source, self.query_one("#rows", OptionList), self.selected
        path = path or (selected.path if selected else None)
        words = self.query_one("#filter", Input).value.lower().split()
        texts = [f"{source.searched(item).lower()} {self._texts.get(item.path, '')}" for item in self.items]
        matching = [item for item, text in zip(self.items, texts, strict=True) if all(word in text for word in words)]
        matching.sort(key=lambda item: item.name.lower())
        matching.sort(key=source.columns[self._sort_column].sort_key)
        self._shown = matching[:MAX_ROWS]
        longest = max((cell_len(printable(item.name)) for item in self._shown), default=0)
        name_width = max(NAME_WIDTHS[0], min(NAME_WIDTHS[2], longest))
        names = [f"{each.name}{'↓' * (number == self._sort_column)}" for number, each in enumerate(source.columns)]
        self.query_one("#columns", Static).update(Content.styled(self._format_row(names, name_width), MUTED))
        rows = []
        for item in self._shown:
            row = self._format_row([column.format(item) for column in source.columns], name_width)
            rows.append(Content.assemble((f" {source.mark(item) or ' '} ", "bold $accent"), row))
        before = options.highlighted or 0
        options.set_options(rows)
        if rows:
            indices = [index for index, item in enumerate(self._shown) if item.path == path]
            options.highlighted = indices[0] if indices else min(before, len(rows) - 1)
        shown = f"{len(rows):,} of " if len(rows) < len(self.items) else ""
        heading = (source.heading, "bold"), (f" · {shown}{len(self.items):,}", MUTED)
        self.query_one("#status", StatusBar).show(Content.assemble(("lotr-tui", "bold $accent"), "  ", *heading))

    def _format_row(self, texts: Sequence[str], name_width: int) -> str:
        """Return one text per column; columns that do not fit are left out from the right, except the sort column."""
        width = max(20, self.size.width - ROW_MARGIN)
        cells = list(zip(self.source.columns, map(printable, texts), strict=True))
        sort_cell = cells[self._sort_column]
        kept_width = min(name_width, NAME_WIDTHS[1])
        while len(cells) > 2 and kept_width + sum(column.width + 1 for column, _ in cells[1:]) > width:
            cells.pop(-2 if cells[-1] is sort_cell else -1)
        values = [
            fit_cells(text, column.width) if column.is_text else truncate(text, column.width).rjust(column.width)
            for column, text in cells[1:]
        ]
        room = max(1, min(width - sum(column.width + 1 for column, _ in cells[1:]), name_width))
        return " ".join([fit_cells(cells[0][1], room), *values])

    @on(OptionList.OptionSelected)
    def action_open(self) -> None:
        if self.query_one("#filter").has_focus:
            self.query_one("#rows").focus()
        elif (item := self.selected) is not None:
            self.source.open(item)

    def action_focus_filter(self) -> None:
        self.query_one("#filter-row").add_class("-active")
        self.query_one("#filter").focus()

    def action_sort(self) -> None:
        self._sort_column = (self._sort_column + 1) % len(self.source.columns)
        self.update_rows()

    def action_back(self) -> None:
        filter_input = self.query_one("#filter", Input)
        if filter_input.has_focus or filter_input.value:
            filter_input.value = ""
            self.query_one("#rows").focus()
        else:
            self.screen.dismiss(None)

    def action_rename(self) -> None:
        if (item := self.selected) is None:
            return

        def submit(texts: Mapping[str, str]) -> str:
            if (name := texts["name"].strip()) != item.name:
                self.source.rename(item, name)
            return name

        def renamed(name: str | None) -> None:
            if name is not None and name != item.name:
                suffix = item.path.name.removeprefix(item.name)
                self.reload(f"{item.name} is now {name}", item.path.with_name(f"{name}{suffix}"))

        field = Field("name", item.name, "a name", max_length=self.source.max_name_length)
        title = f"New name of {printable(item.name)}"
        self.app.push_screen(Dialog(title, fields=[field], submit=submit, verb="rename"), renamed)

    def action_delete(self) -> None:
        if (item := self.selected) is not None:
            question = f"Delete {printable(self.source.describe(item))}? This cannot be undone."
            confirm(self.app, question, partial(self._delete, item), enter_confirms=False)

    @work(exclusive=True, group="change")
    async def _delete(self, item: ItemT) -> None:
        try:
            await self.source.delete(item)
        except LotrError as error:
            self.reload(f"✗ {error}")
        else:
            self.reload(f"deleted {item.name}")

    def action_export(self) -> None:
        if (item := self.selected) is not None:
            self.source.export(item)
