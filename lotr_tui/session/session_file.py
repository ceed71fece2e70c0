"""Files of sessions: writing with a lock, resuming, listing, and quarantine of damaged files.

The content of the lines is defined in `saved_session`. An incomplete last line, left by a writer that was killed, is
ignored.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path

from engine.errors import InvalidInputError, LotrError, printable
from engine.storage.files import app_home, atomic_replace, open_regular_file, read_limited
from engine.storage.json_lines import JsonLinesAppender
from engine.storage.lock import FileLock
from lotr_tui.session.json_store import FailureReporter, os_error_reason, quarantine_file
from lotr_tui.session.saved_session import (
    SavedReply,
    SavedSession,
    decode_header,
    encode_session,
    header_record,
    parse_line,
    parse_session,
    reply_record,
)

MAX_PREVIEW_LINE_BYTES = 1_000_000
"""Bytes of a line that are read for the list of sessions."""
MAX_SESSION_BYTES = 256_000_000
"""Size limit of a file that is read; a token takes about 80 bytes."""


class SessionError(LotrError):
    """Failure to save or read a session."""


@dataclass
class SessionSummary:
    """Entry of the list of sessions."""

    path: Path
    modified: float
    """Unix time in seconds."""
    size_bytes: int
    model: str = ""
    first_prompt: str = ""
    error: str = ""
    """Reason why the session cannot be resumed; `model` and `first_prompt` are then empty."""

    @property
    def name(self) -> str:
        """Stem of the file name."""
        return self.path.stem


class SessionWriter:
    """Writer of one session's file, which is created with the first reply and locked until `close`."""

    def __init__(self, model: str, folder: Path | None = None) -> None:
        """Prepare a new session that begins with the run `model`."""
        self.session = SavedSession("", model, time.time())
        self._folder = folder or sessions_folder()
        self._open_file: tuple[FileLock, JsonLinesAppender] | None = None
        self._failures = FailureReporter()

    @classmethod
    def resume(cls, path: Path) -> "SessionWriter":
        """Open the file of a saved session for writing, and read it into `session`.

        Raises:
            SessionError: If the file is missing, damaged (it has then been set aside), or open in another window.
        """
        lock = FileLock(path)
        try:
            path.stat()  # the lock would create a missing file
            _acquire(lock)
            session = _read_session_file(path)
            writer = cls(session.model, path.parent)
            writer.session = session
            writer._open_file = lock, _open_appender(path)
        except OSError as error:
            lock.release()
            raise SessionError(f"session {path.stem!r} cannot be resumed: {os_error_reason(error)}") from error
        except SessionError:
            lock.release()
            raise
        return writer

    def save(self, reply: SavedReply) -> None:
        """Save a reply, replacing an earlier version with the same id.

        Raises:
            SessionError: If the reply cannot be written. The reply is kept in memory and written together with the
                next one. Consecutive failures raise once.
        """
        replies = {**self.session.replies_by_id, reply.id: reply}
        self.session = replace(self.session, replies=tuple(replies.values()), current_id=reply.id)
        self._append(reply_record(reply))

    def set_current(self, reply_id: int) -> None:
        """Save which reply is selected, for when the session is resumed.

        Raises:
            SessionError: If the file cannot be written, as in `save`.
        """
        if reply_id != self.session.current_id:
            self.session = replace(self.session, current_id=reply_id)
            self._append(header_record(self.session))

    def close(self) -> None:
        """Close the file and release its lock."""
        if self._open_file is not None:
            lock, appender = self._open_file
            appender.close()
            lock.release()
            self._open_file = None

    @property
    def _path(self) -> Path:
        return self._folder / f"{self.session.name}.jsonl"

    def _append(self, record: dict[str, object]) -> None:
        """Write a line; if there is no file yet, or the user deleted it, write the whole session to a new file."""
        try:
            if self._open_file is not None and self._open_file[1].is_deleted:
                self.close()
            if self._open_file is None:
                self._create_file()
                problem = ""
            else:
                appender = self._open_file[1]
                appender.append(record)
                problem = appender.problem
        except OSError as error:
            problem = f"{self._path if self.session.name else self._folder}: {os_error_reason(error)}"
        if not problem:
            self._failures.reset()
        elif message := self._failures.report(f"the session is not saved: {problem}; the conversation continues"):
            raise SessionError(message)

    def _create_file(self) -> None:
        """Create a file with the whole session, named after the time when the session started."""
        self._folder.mkdir(parents=True, exist_ok=True)
        stem = f"{datetime.fromtimestamp(self.session.started):%Y%m%d-%H%M%S}"
        for number in count(1):
            self.session = replace(self.session, name=stem if number == 1 else f"{stem}-{number}")
            try:
                with atomic_replace(self._path, exclusive=True) as file:
                    file.write(encode_session(self.session))
            except FileExistsError:
                continue
            lock = FileLock(self._path)
            _acquire(lock)
            self._open_file = lock, _open_appender(self._path)
            return


def sessions_folder() -> Path:
    """Return the folder of the saved sessions."""
    return app_home() / "sessions"


def load_session(path: Path) -> SavedSession:
    """Read a session, also while another process writes it.

    Raises:
        SessionError: If the file is missing, or damaged; a damaged file has then been set aside.
    """
    try:
        return _read_session_file(path)
    except OSError as error:
        raise SessionError(f"session {path.stem!r} cannot be read: {os_error_reason(error)}") from error


def list_sessions(folder: Path | None = None) -> list[SessionSummary]:
    """List the saved sessions, the latest first. Only the first two lines of each file are read."""
    summaries = []
    for path in (folder or sessions_folder()).glob("*.jsonl"):
        try:
            status = path.stat()
            with os.fdopen(open_regular_file(path), "rb") as file:
                lines = [file.readline(MAX_PREVIEW_LINE_BYTES), file.readline(MAX_PREVIEW_LINE_BYTES)]
        except OSError:
            continue  # deleted meanwhile, or not a regular file
        summary = SessionSummary(path, status.st_mtime, status.st_size)
        try:
            summary.model = decode_header(parse_line(lines[0])[1]).model
        except InvalidInputError as error:
            summary.error = str(error)
        with suppress(InvalidInputError):  # no reply yet, or a line longer than the preview
            summary.first_prompt = printable(str(parse_line(lines[1])[1].get("prompt") or ""))
        summaries.append(summary)
    return sorted(summaries, key=lambda summary: (summary.modified, summary.name), reverse=True)


def _read_session_file(path: Path) -> SavedSession:
    """Read the complete lines of a session file; a damaged file is set aside.

    Raises:
        OSError: If the file cannot be read.
        SessionError: If the file is damaged.
    """
    content = read_limited(path, MAX_SESSION_BYTES)
    content = content[: content.rfind(b"\n") + 1]
    try:
        return parse_session(path.stem, content)
    except InvalidInputError as error:
        raise SessionError(quarantine_file(path, error)) from error


def _acquire(lock: FileLock) -> None:
    if not lock.acquire():
        raise SessionError(f"session {lock.path.stem!r} is open in another window; close it there first")


def _open_appender(path: Path) -> JsonLinesAppender:
    return JsonLinesAppender(path, max_buffered_bytes=MAX_SESSION_BYTES)
