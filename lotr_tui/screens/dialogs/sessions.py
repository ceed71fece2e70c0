"""Sessions that were saved: open one again, or write it out for others to read."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import OptionList, Rule, Static
from textual.widgets.option_list import Option

from engine.errors import LotrError, printable
from lotr_tui.session.export import export
from lotr_tui.session.session_file import SessionSummary, load_session, saved_sessions
from lotr_tui.textual_fixes.rows import Rows
from lotr_tui.textual_fixes.screen import Steady
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys_footer import KeysFooter

NARROW = 80
"""Columns below which year and size are left out."""
MOST = 500
"""Sessions that are listed, the latest."""
EMPTY = "There is none yet: a session is saved as it goes, from its first reply on."


class SessionsScreen(Steady, Screen[Path | None]):
    """The sessions, the one changed last first; dismissed with the file of the one to open, or None."""

    DEFAULT_CSS = """
    SessionsScreen {
        Rule.-horizontal { margin: 0; color: $border; height: 1; }
        #title { height: 1; padding: 0 1; }
        #sessions {
            height: 1fr; border: none; padding: 0; overflow-x: hidden;
            background: $background; background-tint: transparent;
            text-wrap: nowrap; text-overflow: ellipsis;
        }
        #said { height: auto; max-height: 4; padding: 0 1; }
    }
    """
    AUTO_FOCUS = "#sessions"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open", id="sessions.open", tooltip="Go on with the chosen session", priority=True),
        Binding("m", "export('md')", "Markdown", id="sessions.markdown", tooltip="Write it to a file as Markdown"),
        Binding("j", "export('json')", "JSON", id="sessions.json", tooltip="Write it to a file with all figures"),
        Binding("s", "export('svg')", "SVG", id="sessions.svg", tooltip="Write it to a file as a picture"),
        Binding("f5", "refresh", "look again", show=False, id="sessions.refresh", tooltip="List the sessions anew"),
        Binding("escape", "dismiss(None)", "back", id="sessions.back", tooltip="Open nothing"),
    ]

    def __init__(self, current: str = "", folder: Path | None = None, exports: Path | None = None) -> None:
        """Sessions of `folder` (None: ours), `current` the one that goes on; files are written to `exports`
        (None: the current directory)."""
        super().__init__()
        self._current = current
        self._folder = folder
        self._exports = exports
        self._sessions: list[SessionSummary] = []

    def compose(self) -> ComposeResult:
        """A title, the list, what was done last, keys."""
        yield Static(id="title", markup=False)
        yield Rule(line_style="solid")
        yield Rows(id="sessions", markup=False)
        yield Static(id="said", markup=False)
        yield KeysFooter()

    def on_mount(self) -> None:
        """Look which there are."""
        self.action_refresh()

    def on_resize(self) -> None:
        """Rows have as much as there is room for."""
        self._fill()

    def action_refresh(self) -> None:
        """List the sessions anew."""
        self._sessions = saved_sessions(self._folder)
        count = len(self._sessions)
        more = f", the latest {MOST}" if count > MOST else ""
        title = Content.assemble(("Sessions", "bold"), (f"  {count:,} saved{more}", MUTED))
        self.query_one("#title", Static).update(title)
        self._fill()

    def action_open(self) -> None:
        """Close with the chosen session."""
        session = self._chosen()
        if session is None:
            self._say(EMPTY)
        elif session.problem:
            self._say(f"✗ {session.name} cannot be opened: {session.problem}")
        elif session.name == self._current:
            self._say(f"{session.name} is the session that goes on")
        else:
            self.dismiss(session.path)

    def action_export(self, kind: str) -> None:
        """Write the chosen session to a file."""
        session = self._chosen()
        if session is None:
            self._say(EMPTY)
        else:
            self._export(session.path, kind)

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        self.action_open()

    @work(exclusive=True)
    async def _export(self, path: Path, kind: str) -> None:
        """In a thread, since a long session takes a while; then say where it is."""
        folder = self._exports or Path.cwd()
        self._say(f"writing {path.stem} …")
        said = await asyncio.to_thread(_write, path, kind, folder)
        if not self.query("#sessions"):  # it was left meanwhile
            return
        self._say(said)
        if not path.exists():  # it was damaged, and has been set aside
            self.action_refresh()

    def _chosen(self) -> SessionSummary | None:
        at = self.query_one("#sessions", OptionList).highlighted
        return self._sessions[at] if at is not None and at < len(self._sessions) else None

    def _fill(self) -> None:
        """The rows, the same one chosen as before."""
        rows = self.query_one("#sessions", OptionList)
        at = rows.highlighted or 0
        shown = self._sessions[:MOST]
        models = min(24, max((cell_len(printable(session.model)) for session in shown), default=0))
        rows.set_options(
            Option(row(session, models, self.size.width, session.name == self._current)) for session in shown
        )
        if shown:
            rows.highlighted = min(at, len(shown) - 1)
        else:
            self._say(EMPTY)

    def _say(self, text: str) -> None:
        self.query_one("#said", Static).update(Content(text))


def row(session: SessionSummary, models: int, width: int, current: bool) -> Content:
    """When it changed, its model in `models` columns, its size, how it begins; or what is wrong with it."""
    changed = datetime.fromtimestamp(session.changed)
    narrow = width < NARROW
    when = f" {changed:%m-%d %H:%M}  " if narrow else f" {changed:%Y-%m-%d %H:%M}  "
    size = "" if narrow else f"{_size(session.bytes):>8}  "
    if session.problem:
        return Content.assemble((f"{when}{size}", "dim"), (f"✗ {printable(session.name)}: {session.problem}", ""))
    model = set_cell_size(printable(session.model), models)
    now = "now · " if current else ""
    return Content.assemble((f"{when}{size}{model}  ", "dim"), (now, "bold"), session.first_prompt or "…")


def _size(count: int) -> str:
    return f"{count:,} B" if count < 1000 else f"{count / 1e3:,.0f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def _write(path: Path, kind: str, folder: Path) -> str:
    """Export a session; the line says where it is, or what went wrong."""
    try:
        return f"written to {printable(str(export(load_session(path), kind, folder)))}"
    except LotrError as error:
        return f"✗ {error}"
