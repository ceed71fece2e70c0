"""Screen with the saved sessions, to open, rename, delete or export one, or to begin a new one."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from rich.cells import cell_len
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList, Rule, Static
from textual.widgets.option_list import Option

from engine.errors import LotrError, printable
from lotr_tui.background_task import run_in_thread
from lotr_tui.formatting import fit_cells, format_age, plural
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.paths import ask_to_export
from lotr_tui.screens.dialogs.questions import NameDialog, confirm
from lotr_tui.session import export, session_file
from lotr_tui.session.conversation import Conversation
from lotr_tui.session.session_file import SessionSummary
from lotr_tui.textual_fixes.app import RobustOptionList
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import KeyFooter, binding_table
from lotr_tui.widgets.screen_lines import StatusBar

SessionChoice = Path | Literal["new"]
"""File of the session to open, or "new" for a session without replies."""
MAX_SESSIONS = 500  # in the list, the latest ones
EMPTY_MESSAGE = "No saved sessions yet. A session is saved from its first reply on."


class SessionsScreen(AppScreen[SessionChoice | None]):
    """List of saved sessions, the latest first, dismissed with the session to open, or with None."""

    DEFAULT_CSS = """
    SessionsScreen {
        Rule.-horizontal { margin: 0; color: $border; height: 1; }
        #columns { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
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
        *binding_table(
            "sessions",
            """
            new    | n      | new           | new    | Begin a new session
            rename | e      | rename        | rename | Rename the session
            delete | x      | delete        | delete | Delete the session
            export | ctrl+s | export        | export | Export the session as Markdown, text or JSON
            back   | escape | dismiss(None) | back   | Close without opening a session
            """,
            show=True,
        ),
    ]

    def __init__(self, open_session: Conversation | None = None, sessions_dir: Path | None = None) -> None:
        """List the sessions of a directory (None: the default one), with the one that is open in this window."""
        super().__init__()
        self._open_session = open_session
        self._sessions_dir = sessions_dir
        self._sessions: list[SessionSummary] = []

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield Rule(line_style="solid")
        yield Static(id="columns", markup=False)
        yield RobustOptionList(id="sessions", markup=False)
        yield Static(id="message", markup=False)
        yield KeyFooter()

    def on_resize(self) -> None:
        self._update_rows()

    @work(exclusive=True, group="list")
    async def on_screen_resume(self) -> None:
        """Read the sessions, also after a dialog that may have changed them."""
        self._sessions = await run_in_thread(session_file.list_sessions, self._sessions_dir)
        if not self.query("#sessions"):  # the screen was closed
            return
        count = len(self._sessions)
        limit = f", the latest {MAX_SESSIONS} shown" if count > MAX_SESSIONS else ""
        summary = (f" · {count:,} saved{limit}", MUTED)
        title = Content.assemble(("lotr-tui", "bold $accent"), "  ", ("sessions", "bold"), summary)
        self.query_one("#status", StatusBar).show(title)
        self._update_rows()
        if not self._sessions:
            self._show_message(EMPTY_MESSAGE)

    def _update_rows(self) -> None:
        """Fill the list, and keep the highlighted session, or else the row; first highlight the current session."""
        options, sessions = self.query_one("#sessions", OptionList), self._sessions[:MAX_SESSIONS]
        width = self.size.width
        open_name = self._open_session.session.name if self._open_session is not None else ""
        index = options.highlighted or 0
        selected_id = options.get_option_at_index(index).id if index < options.option_count else open_name
        longest_name = max((cell_len(printable(each.name)) for each in sessions), default=0)
        longest_model = max((cell_len(printable(each.model)) for each in sessions), default=0)
        name_width = min(30 if width >= 100 else 22 if width >= 80 else 16, longest_name)
        model_width = min(24, longest_model) if width >= 100 else 0
        model = f"{'model':{model_width}}  " if model_width else ""
        header = f"{'name':{name_width}}  {'age':>6}  {'replies':>7}  {model}first prompt" if sessions else ""
        self.query_one("#columns", Static).update(Content.styled(header, MUTED))
        rows = []
        for session in sessions:
            name, age = fit_cells(printable(session.name), name_width), format_age(time.time() - session.modified)
            if session.error:
                row = Content.assemble(" ", name, (f"  {age:>6}  ", "dim"), f"✗ {session.error}")
            else:
                model = f"{fit_cells(printable(session.model), model_width)}  " if model_width else ""
                figures = f"  {age:>6}  {session.num_replies:>7,}  {model}"
                marker = ("current · " if session.name == open_name else "", "bold")
                row = Content.assemble(" ", name, (figures, "dim"), marker, session.first_prompt or "…")
            rows.append(Option(row, id=session.name))
        options.set_options(rows)
        if sessions:
            indices = [index for index, session in enumerate(sessions) if session.name == selected_id]
            options.highlighted = indices[0] if indices else min(index, len(sessions) - 1)

    def _selected_session(self) -> SessionSummary | None:
        """Return the highlighted session, or None with a message if there is none."""
        index = self.query_one("#sessions", OptionList).highlighted
        if index is None or index >= len(self._sessions):
            self._show_message(EMPTY_MESSAGE)
            return None
        return self._sessions[index]

    def _open_here(self, session: SessionSummary) -> session_file.Session | None:
        is_open = self._open_session is not None and session.name == self._open_session.session.name
        return self._open_session.session if is_open and self._open_session is not None else None

    def _show_message(self, text: str) -> None:
        self.query_one("#message", Static).update(Content(text))

    @on(OptionList.OptionSelected)
    def action_open(self) -> None:
        if (session := self._selected_session()) is None:
            return
        if session.error:
            self._show_message(f"✗ cannot open {printable(session.name)}: {session.error}")
        elif self._open_here(session):
            self._show_message(f"{printable(session.name)} is the current session")
        else:
            self.dismiss(session.path)

    def action_new(self) -> None:
        self.dismiss("new")

    def action_rename(self) -> None:
        if (session := self._selected_session()) is None:
            return

        def rename(name: str) -> None:
            if open_session := self._open_here(session):
                open_session.rename(name)
            else:
                session_file.rename_session(session.path, name)

        def renamed(name: str | None) -> None:
            if name is not None and name != session.name:
                self._show_message(f"{printable(session.name)} is now {name}")

        title = f"New name of {printable(session.name)}"
        self.app.push_screen(NameDialog(session.name, title, session_file.MAX_NAME_LENGTH, rename), renamed)

    def action_delete(self) -> None:
        if (session := self._selected_session()) is None:
            return
        open_session = self._open_here(session)

        def delete() -> None:
            try:
                if open_session is not None:
                    open_session.delete()
                else:
                    session_file.delete_session(session.path)
            except LotrError as error:
                self._show_message(f"✗ {error}")
                return
            message = f"deleted {printable(session.name)}"
            if open_session is not None:
                self.dismiss("new")
                self.notify(f"{message}; this is a new session", markup=False)
            else:
                self._show_message(message)

        which = "the current session" if open_session is not None else "session"
        replies = plural(session.num_replies, "reply", "replies")
        confirm(self.app, f"Delete {which} {printable(session.name)} ({replies})? This cannot be undone.", delete)

    def action_export(self) -> None:
        if (session := self._selected_session()) is None:
            return
        if session.error:
            self._show_message(f"✗ cannot export {printable(session.name)}: {session.error}")
        else:
            ask_to_export_session(self, session.path, "md", self._show_message)


def ask_to_export_session(screen: AppScreen[Any], path: Path, kind: str, on_exported: Callable[[str], None]) -> None:
    """Ask for a path, and export the session in the file `path` there; `kind` is the suggested ending."""

    def write(target: export.ExportTarget) -> None:
        export.export_session(session_file.load_session(path), target.path, replace=target.exists)

    title = f"Export {printable(path.stem)} as .md, .txt or .json"
    ask_to_export(screen, title, f"{path.stem}.{kind}", export.check_session_target, write, on_exported)
