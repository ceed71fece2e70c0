"""Screen with the saved sessions, to continue or export one."""

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
from lotr_tui.formatting import format_bytes
from lotr_tui.session.export import export_session
from lotr_tui.session.session_file import SessionSummary, list_sessions, load_session
from lotr_tui.textual_fixes.option_list import RobustOptionList
from lotr_tui.textual_fixes.screen import TextualFixesScreen
from lotr_tui.theme import MUTED
from lotr_tui.widgets.key_footer import KeyFooter

NARROW_WIDTH = 80
"""Width in columns below which year and size are left out."""
MAX_MODEL_WIDTH = 24
"""Maximum width of the column of model names."""
MAX_SESSIONS = 500
"""Maximum number of sessions in the list, the latest ones."""
EMPTY_MESSAGE = "No saved sessions yet. A session is saved from its first reply on."


class SessionsScreen(TextualFixesScreen, Screen[Path | None]):
    """List of saved sessions, the latest first, dismissed with the file of the session to open, or with None."""

    DEFAULT_CSS = """
    SessionsScreen {
        Rule.-horizontal { margin: 0; color: $border; height: 1; }
        #title { height: 1; padding: 0 1; }
        #sessions {
            height: 1fr; border: none; padding: 0; overflow-x: hidden;
            background: $background; background-tint: transparent;
            text-wrap: nowrap; text-overflow: ellipsis;
        }
        #message { height: auto; max-height: 4; padding: 0 1; }
    }
    """
    AUTO_FOCUS = "#sessions"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open", id="sessions.open", tooltip="Continue the selected session", priority=True),
        Binding("m", "export('md')", "Markdown", id="sessions.markdown", tooltip="Export the session as Markdown"),
        Binding("j", "export('json')", "JSON", id="sessions.json", tooltip="Export the session with all figures"),
        Binding("s", "export('svg')", "SVG", id="sessions.svg", tooltip="Export the session as a picture"),
        Binding("f5", "refresh", "refresh", show=False, id="sessions.refresh", tooltip="Read the sessions again"),
        Binding("escape", "dismiss(None)", "back", id="sessions.back", tooltip="Close without opening a session"),
    ]

    def __init__(
        self, current_name: str = "", sessions_dir: Path | None = None, export_dir: Path | None = None
    ) -> None:
        """List the sessions of a directory (None: the default one), and export to `export_dir` (None: the current one).

        `current_name` is the name of the session that is open.
        """
        super().__init__()
        self._current_name = current_name
        self._sessions_dir = sessions_dir
        self._export_dir = export_dir
        self._sessions: list[SessionSummary] = []

    def compose(self) -> ComposeResult:
        """Create the title, the list, a line for messages and the footer."""
        yield Static(id="title", markup=False)
        yield Rule(line_style="solid")
        yield RobustOptionList(id="sessions", markup=False)
        yield Static(id="message", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        """Read the sessions."""
        self.action_refresh()

    def on_resize(self) -> None:
        """Format the rows for the new width."""
        self._update_rows()

    def action_refresh(self) -> None:
        """Read the sessions again."""
        self._sessions = list_sessions(self._sessions_dir)
        count = len(self._sessions)
        limit = f", the latest {MAX_SESSIONS} shown" if count > MAX_SESSIONS else ""
        title = Content.assemble(("Sessions", "bold"), (f"  {count:,} saved{limit}", MUTED))
        self.query_one("#title", Static).update(title)
        self._update_rows()

    @on(OptionList.OptionSelected)
    def action_open(self) -> None:
        """Close the screen with the selected session."""
        session = self._selected_session()
        if session is None:
            self._show_message(EMPTY_MESSAGE)
        elif session.error:
            self._show_message(f"✗ cannot open {session.name}: {session.error}")
        elif session.name == self._current_name:
            self._show_message(f"{session.name} is the current session")
        else:
            self.dismiss(session.path)

    def action_export(self, kind: str) -> None:
        """Write the selected session to a file of a kind: "md", "json" or "svg"."""
        session = self._selected_session()
        if session is None:
            self._show_message(EMPTY_MESSAGE)
        else:
            self._export_session(session.path, kind)

    @work(exclusive=True)
    async def _export_session(self, path: Path, kind: str) -> None:
        """Export a session in a thread, because a long session takes a while, and show where it was written."""
        self._show_message(f"writing {path.stem} …")
        message = await asyncio.to_thread(_export_to_file, path, kind, self._export_dir or Path.cwd())
        if not self.query("#sessions"):  # the screen was closed
            return
        self._show_message(message)
        if not path.exists():  # the file was damaged and has been renamed
            self.action_refresh()

    def _selected_session(self) -> SessionSummary | None:
        index = self.query_one("#sessions", OptionList).highlighted
        return self._sessions[index] if index is not None and index < len(self._sessions) else None

    def _update_rows(self) -> None:
        """Fill the list, and keep the highlighted row."""
        options = self.query_one("#sessions", OptionList)
        highlighted = options.highlighted or 0
        sessions = self._sessions[:MAX_SESSIONS]
        model_width = max((cell_len(printable(session.model)) for session in sessions), default=0)
        layout = (min(MAX_MODEL_WIDTH, model_width), self.size.width < NARROW_WIDTH)
        options.set_options(Option(_format_row(each, *layout, each.name == self._current_name)) for each in sessions)
        if sessions:
            options.highlighted = min(highlighted, len(sessions) - 1)
        else:
            self._show_message(EMPTY_MESSAGE)

    def _show_message(self, text: str) -> None:
        self.query_one("#message", Static).update(Content(text))


def _format_row(session: SessionSummary, model_width: int, is_narrow: bool, is_current: bool) -> Content:
    """Return the row of a session: time of the last change, size, model and first prompt, or its error."""
    changed = datetime.fromtimestamp(session.modified)
    date = f" {changed:%m-%d %H:%M}  " if is_narrow else f" {changed:%Y-%m-%d %H:%M}  "
    size = "" if is_narrow else f"{format_bytes(session.size_bytes):>8}  "
    if session.error:
        return Content.assemble((f"{date}{size}", "dim"), (f"✗ {printable(session.name)}: {session.error}", ""))
    model = set_cell_size(printable(session.model), model_width)
    marker = "current · " if is_current else ""
    return Content.assemble((f"{date}{size}{model}  ", "dim"), (marker, "bold"), session.first_prompt or "…")


def _export_to_file(path: Path, kind: str, folder: Path) -> str:
    """Export a session and return a message with the path of the file, or with the error."""
    try:
        return f"written to {printable(str(export_session(load_session(path), kind, folder)))}"
    except LotrError as error:
        return f"✗ {error}"
