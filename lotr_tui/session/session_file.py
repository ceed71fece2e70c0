"""Files of sessions: writing with a lock, resuming, listing, renaming, deleting, and quarantine of damaged files.

The content of the lines is defined in `saved_session`. An incomplete last line, left by a writer that was killed, is
ignored.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from engine.data.speakers import display_name
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
MAX_COUNTED_BYTES = 16_000_000
"""Bytes of a file that are searched for replies for the list; a full conversation has about 2 million."""
MAX_NAME_LENGTH = 50
"""Characters of a session's name, which take up to four bytes each in a file name of up to 255 bytes."""
_REPLY_ID = re.compile(rb'^\{"reply": \{"id": (\d+)(?!.*"score": \{"rank": (?!1,))', re.MULTILINE)
"""Id of a reply, in the line of a reply that is no worse answer of a turn."""


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
    num_replies: int = 0
    """Replies in the first `MAX_COUNTED_BYTES` of the file, without answers that were not chosen."""
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
        self.problem = ""
        """Reason why a part of the session is not saved; empty if all of it is, or if it was deleted."""
        self._is_deleted = False
        self._failures = FailureReporter()

    @classmethod
    def resume(cls, path: Path) -> "SessionWriter":
        """Open the file of a saved session for writing, and read it into `session`.

        Raises:
            SessionError: If the file is missing, damaged (it has then been set aside), or open in another window.
        """
        with _describe_failure(path, "resumed"):
            lock = _lock_existing(path)
            try:
                session = _read_session_file(path)
                writer = cls(session.model, path.parent)
                writer.session = session
                writer._open_file = lock, _open_appender(path)
            except BaseException:
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

    def save_again(self) -> None:
        """Try to save what could not be saved."""
        if self.problem:
            with suppress(SessionError):
                self._append(header_record(self.session))

    def rename(self, name: str) -> None:
        """Rename the session and its file.

        Raises:
            SessionError: If the name is invalid or taken, or the file cannot be renamed.
        """
        if self._open_file is None:
            rename_session(self._path, name)
        else:
            check_session_name(name)
            path = self._path.with_name(f"{name}.jsonl")
            with _describe_failure(self._path, "renamed"):
                _rename_file(self._path, path)
            for file in self._open_file:
                file.path = path
        self.session = replace(self.session, name=name)

    def delete(self) -> None:
        """Delete the file; replies are not saved any more.

        Raises:
            SessionError: If the file cannot be deleted.
        """
        with _describe_failure(self._path, "deleted"):
            self._path.unlink()
        self._is_deleted, self.problem = True, ""
        self.close()

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
        """Write a line; if there is no file, or another program deleted it, write the whole session to a new file."""
        if self._is_deleted:
            return
        try:
            if self._open_file is not None and self._open_file[1].is_deleted:
                self.close()
            if self._open_file is None:
                self._create_file()
                self.problem = ""
            else:
                appender = self._open_file[1]
                appender.append(record)
                self.problem = appender.problem
        except OSError as error:
            self.problem = f"{self._path if self.session.name else self._folder}: {os_error_reason(error)}"
        if not self.problem:
            self._failures.reset()
        elif message := self._failures.report(f"the session is not saved: {self.problem}; the conversation continues"):
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


def session_path(name: str) -> Path:
    """Return the file of a saved session."""
    return sessions_folder() / f"{name}.jsonl"


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
    """List the saved sessions, the latest first. Only the first two lines of each file are parsed."""
    summaries = []
    for path in (folder or sessions_folder()).glob("*.jsonl"):
        try:
            status = path.stat()
            with os.fdopen(open_regular_file(path), "rb") as file:
                lines = [file.readline(MAX_PREVIEW_LINE_BYTES), file.readline(MAX_PREVIEW_LINE_BYTES)]
                file.seek(0)
                reply_ids = set(_REPLY_ID.findall(file.read(MAX_COUNTED_BYTES)))
        except OSError:
            continue  # deleted meanwhile, or not a regular file
        summary = SessionSummary(path, status.st_mtime, status.st_size, num_replies=len(reply_ids))
        try:
            summary.model = decode_header(parse_line(lines[0])[1]).model
        except InvalidInputError as error:
            summary.error = str(error)
        with suppress(InvalidInputError):  # no reply yet, or a line longer than the preview
            summary.first_prompt = _first_prompt(parse_line(lines[1])[1])
        summaries.append(summary)
    return sorted(summaries, key=lambda summary: (summary.modified, summary.name), reverse=True)


def _first_prompt(reply: dict[str, Any]) -> str:
    """Return the prompt of a saved reply, or for a scene without one the speaker who begins it, on one line."""
    prompt, speaker = str(reply.get("prompt") or ""), str(reply.get("speaker") or "")
    return printable(prompt or (f"(scene: {display_name(speaker)} begins)" if speaker else ""))


def check_session_name(name: str) -> None:
    """Raise a SessionError that names the rule if a session cannot have this name."""
    forbidden = next((char for char in name if char == "/" or not char.isprintable()), "")
    if not name:
        rule = "type at least one character"
    elif len(name) > MAX_NAME_LENGTH:
        rule = f"use at most {MAX_NAME_LENGTH} characters instead of {len(name):,}"
    elif forbidden:
        rule = f"{forbidden!a} is not allowed in it; use '-' instead"
    elif name.startswith("."):
        rule = "it cannot begin with a full stop"
    else:
        return
    raise SessionError(f"not a session name: {rule}")


def rename_session(path: Path, name: str) -> Path:
    """Rename a saved session that no window has open, and return its new path.

    Raises:
        SessionError: If the name is invalid or taken, the session is open in another window, or the file is missing or
            cannot be renamed.
    """
    check_session_name(name)
    new_path = path.with_name(f"{name}.jsonl")
    with _describe_failure(path, "renamed"), _hold_lock(path):
        _rename_file(path, new_path)
    return new_path


def delete_session(path: Path) -> None:
    """Delete a saved session that no window has open.

    Raises:
        SessionError: If the session is open in another window, or the file is missing or cannot be deleted.
    """
    with _describe_failure(path, "deleted"), _hold_lock(path):
        path.unlink()


def _rename_file(path: Path, new_path: Path) -> None:
    """Rename a session's file; a taken name raises a SessionError, also if two windows choose it at once."""
    try:
        new_path.hardlink_to(path)
    except OSError as error:  # FAT and some network file systems have no hard links
        # A file system that ignores case, as on macOS, has the file under its new name already.
        if new_path.exists() and (new_path.name == path.name or not new_path.samefile(path)):
            raise SessionError(f"a session {new_path.stem!r} exists already; choose another name") from error
        path.rename(new_path)
    else:
        path.unlink()


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


@contextmanager
def _describe_failure(path: Path, action: str) -> Iterator[None]:
    """Raise an OSError of the block as a SessionError that says what cannot be done to the session."""
    try:
        yield
    except FileNotFoundError as error:
        raise SessionError(f"session {path.stem!r} is gone; another window has renamed or deleted it") from error
    except OSError as error:
        raise SessionError(f"session {path.stem!r} cannot be {action}: {os_error_reason(error)}") from error


def _lock_existing(path: Path) -> FileLock:
    """Lock the file of a session; a missing file raises FileNotFoundError and is not created."""
    before = path.stat()
    lock = FileLock(path)
    _acquire(lock)
    if not os.path.samestat(before, path.stat()):  # renamed by another window meanwhile, and created again by the lock
        path.unlink()
        lock.release()
        raise FileNotFoundError(path)
    return lock


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    lock = _lock_existing(path)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock) -> None:
    if not lock.acquire():
        raise SessionError(f"session {lock.path.stem!r} is open in another window; close it there first")


def _open_appender(path: Path) -> JsonLinesAppender:
    return JsonLinesAppender(path, max_buffered_bytes=MAX_SESSION_BYTES)
