"""Screen with the saved sessions, to open, rename, delete or export one, or to begin a new one."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import BindingType

from engine.errors import printable
from lotr_tui.formatting import format_age, plural
from lotr_tui.monitor.run_list import ListColumn
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.paths import ExportDialog
from lotr_tui.screens.item_list import ItemList, ListSource
from lotr_tui.session import export, session_file
from lotr_tui.session.session_file import Session, SessionError, SessionSummary
from lotr_tui.widgets.keys import FooterKey, KeyFooter, binding_table

SessionChoice = Path | Literal["new"]
"""File of the session to open, or "new" for a session without replies."""
COLUMNS = (
    ListColumn("session", 0, lambda session: session.name, lambda session: session.name.lower()),
    ListColumn("age", 6, lambda session: format_age(time.time() - session.modified), lambda session: -session.modified),
    ListColumn("replies", 7, lambda session: f"{session.num_replies:,}", lambda session: -session.num_replies),
    ListColumn(
        "model",
        20,
        lambda session: "✗ damaged" if session.error else session.model,
        lambda session: session.model,
        is_text=True,
    ),
    ListColumn(
        "first prompt",
        30,
        lambda session: f"✗ {session.error}" if session.error else session.first_prompt,
        lambda session: session.first_prompt.lower(),
        is_text=True,
    ),
)
NEW = "new | n | new | new | Begin a new session"
FOOTER = (
    "list.open",
    "sessions.new",
    *(f"list.{key}" for key in ("rename", "delete", "export", "filter", "sort", "back")),
)
EMPTY_MESSAGE = "No saved sessions yet. A session is saved from its first reply on."


class SessionsScreen(AppScreen[SessionChoice | None]):
    """List of saved sessions, the latest first, dismissed with the session to open, or with None."""

    AUTO_FOCUS = "#rows"
    BINDINGS: ClassVar[list[BindingType]] = binding_table("sessions", NEW, show=True)

    def __init__(self, open_session: Session | None = None, sessions_dir: Path | None = None) -> None:
        """List the sessions of a directory (None: the default one), with the one that is open in this window."""
        super().__init__()
        self._open_session = open_session
        self._list = ItemList(
            ListSource(
                "sessions",
                COLUMNS,
                read=lambda: session_file.list_sessions(sessions_dir),
                hint=lambda sessions: "" if sessions else EMPTY_MESSAGE,
                searched=lambda session: f"{session.name} {session.model} {session.first_prompt}",
                mark=lambda session: "●" if self._open_here(session) else "",
                open=self._open,
                rename=self._rename,
                describe=self._describe,
                delete=self._delete,
                export=self._export,
                max_name_length=session_file.MAX_NAME_LENGTH,
                read_text=session_file.read_text,
                placeholder="words of a row or its conversation",
            )
        )

    def compose(self) -> ComposeResult:
        yield self._list
        yield KeyFooter(lambda: [FooterKey(binding_id) for binding_id in FOOTER])

    def _open_here(self, session: SessionSummary) -> Session | None:
        is_open = self._open_session is not None and session.name == self._open_session.name
        return self._open_session if is_open else None

    def _open(self, session: SessionSummary) -> None:
        if self._open_here(session):
            self._list.show_message(f"{session.name} is the current session")
        else:
            self.dismiss(session.path)

    def action_new(self) -> None:
        self.dismiss("new")

    def _rename(self, session: SessionSummary, name: str) -> None:
        if current := self._open_here(session):
            current.rename(name)
        else:
            session_file.rename_session(session.path, name)

    def _describe(self, session: SessionSummary) -> str:
        which = "the current session" if self._open_here(session) else "session"
        return f"{which} {session.name} ({plural(session.num_replies, 'reply', 'replies')})"

    async def _delete(self, session: SessionSummary) -> None:
        if current := self._open_here(session):
            current.delete()
            self.dismiss("new")
            self.notify(f"deleted {printable(session.name)}; this is a new session", markup=False)
        else:
            session_file.delete_session(session.path)

    def _export(self, session: SessionSummary) -> None:
        ask_to_export_session(self, session.path, self._list.show_message)


def ask_to_export_session(screen: AppScreen[Any], path: Path, on_exported: Callable[[str], None]) -> None:
    """Ask for a path, and export the session in the file `path` there."""

    def write(target: export.ExportTarget) -> None:
        session = session_file.load_session(path)
        if session.damage:
            raise SessionError(f"{session.damage}; open the session first, which keeps the damaged file")
        export.export_session(session, target.path, replace=target.exists)

    title = f"Export {printable(path.stem)} as .md, .txt or .json"
    dialog = ExportDialog(screen, title, f"{path.stem}.md", export.check_session_target, write, on_exported)
    screen.app.push_screen(dialog)
