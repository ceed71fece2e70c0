"""The file of a session: written as it goes, locked by its one writer, resumed, listed, set aside where damaged.

What stands in it is told by `saved_session`. A last line without its end is not there: whoever wrote it died.
"""

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO

from engine.errors import LotrError, UnusableInput, printable
from engine.storage.files import home, open_file, read_file, replacing, write_all
from lotr_tui.session.json_store import reason, set_aside
from lotr_tui.session.saved_session import (
    Node,
    SavedSession,
    check_header,
    header_line,
    node_line,
    read_line,
    read_session,
)

MOST_OF_A_LINE = 1_000_000
"""Bytes of a line that are read for a list of sessions."""
MOST_BYTES = 256_000_000
"""Of a file that is resumed; a word takes about 80."""


class SessionError(LotrError):
    """A session cannot be saved, or not be read."""


@dataclass(frozen=True)
class SessionSummary:
    """A line of the list of sessions."""

    name: str
    path: Path
    model: str
    started: float
    """Seconds since 1970, as `changed`."""
    changed: float
    first_prompt: str
    bytes: int
    problem: str = ""
    """Why it cannot be resumed; then nothing is known but its name, its size and when it changed."""


class SessionWriter:
    """Saves a session while it goes on. The file is made with the first node, and locked until `close`."""

    def __init__(self, model: str, folder: Path | None = None) -> None:
        """A new session, begun with the run `model`."""
        self._folder = folder or sessions_folder()
        self._file: IO[bytes] | None = None
        self._size = 0
        self._waiting: list[bytes] = []
        self._said = False
        self.session = SavedSession("", model, time.time())

    @classmethod
    def resume(cls, path: Path) -> "SessionWriter":
        """Go on with a saved session, which is in `session`.

        Raises:
            SessionError: it is gone, damaged (then it has been set aside), or open in another window.
        """
        try:
            file = os.fdopen(open_file(path, os.O_RDWR), "rb+", buffering=0)
        except OSError as error:
            raise SessionError(f"session {path.stem!r} cannot be resumed: {reason(error)}") from error
        try:
            _lock(file, path.stem)
            content, session = _load(path)
            file.truncate(len(content))  # a part of a line has no meaning, and would spoil the next one
        except OSError as error:
            file.close()
            raise SessionError(f"session {path.stem!r} cannot be resumed: {reason(error)}") from error
        except SessionError:
            file.close()
            raise
        writer = cls(session.model, path.parent)
        writer.session, writer._file, writer._size = session, file, len(content)
        return writer

    def keep(self, node: Node) -> None:
        """Save a node, in place of the one with its id where there is one.

        Raises:
            SessionError: it cannot be written. The session goes on, and what waits is written with the next
                node; raised the first time, not for each node.
        """
        nodes = {**self.session.by_id, node.id: node}
        self.session = replace(self.session, nodes=tuple(nodes.values()), current=node.id)
        self._write(node_line(node))

    def look_at(self, id: int) -> None:
        """Note which node is looked at, so that it is looked at when the session is resumed.

        Raises:
            SessionError: as `keep`.
        """
        if id != self.session.current:
            self.session = replace(self.session, current=id)
            self._write(header_line(self.session))

    def close(self) -> None:
        """Let others have the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _path(self) -> Path:
        return self._folder / f"{self.session.name}.jsonl"

    def _write(self, line: bytes) -> None:
        """Append the line, behind those that could not be written before."""
        self._waiting.append(line)
        try:
            if self._file is not None and not os.fstat(self._file.fileno()).st_nlink:  # somebody deleted it
                self._file.close()
                self._file = None
                self._waiting = [node_line(node) for node in self.session.nodes]
            content = b"".join(self._waiting)
            if self._file is None:
                content = self._create(content)
            else:
                write_all(self._file, content, self._size)
        except OSError as error:
            if not self._said:
                self._said = True
                where = self._path if self.session.name else self._folder
                raise SessionError(f"the session is not saved: {where}: {reason(error)}; it goes on") from error
            return
        self._size += len(content)
        self._waiting.clear()
        self._said = False

    def _create(self, content: bytes) -> bytes:
        """Make a file, named after the time, that holds the session's line and then `content`; returns both."""
        self._folder.mkdir(parents=True, exist_ok=True)
        stem = f"{datetime.fromtimestamp(self.session.started):%Y%m%d-%H%M%S}"
        for number in count(1):
            self.session = replace(self.session, name=stem if number == 1 else f"{stem}-{number}")
            whole = header_line(self.session) + content
            try:
                with replacing(self._path, new=True) as file:
                    file.write(whole)
            except FileExistsError:
                continue
            self._file, self._size = self._path.open("rb+", buffering=0), 0
            _lock(self._file, self.session.name)
            return whole
        raise AssertionError("numbers do not end")


def sessions_folder() -> Path:
    """Where sessions are kept."""
    return home() / "sessions"


def load_session(path: Path) -> SavedSession:
    """Read a session, also one that is being written.

    Raises:
        SessionError: it is gone, or damaged; then it has been set aside.
    """
    try:
        return _load(path)[1]
    except OSError as error:
        raise SessionError(f"session {path.stem!r} cannot be read: {reason(error)}") from error


def saved_sessions(folder: Path | None = None) -> list[SessionSummary]:
    """The sessions there are, the one changed last first; of each file the first lines alone are read."""
    found = []
    for path in (folder or sessions_folder()).glob("*.jsonl"):
        try:
            status = path.stat()
            with os.fdopen(open_file(path), "rb") as file:
                lines = [file.readline(MOST_OF_A_LINE), file.readline(MOST_OF_A_LINE)]
        except OSError:
            continue  # gone in the meantime, or no file of ours
        model, started, prompt, problem = "", status.st_mtime, "", ""
        try:
            header = check_header(read_line(lines[0])[1])
            model, started = header["model"], header["started"]
        except UnusableInput as error:
            problem = str(error)
        with suppress(UnusableInput):  # no node yet, or one too long to be read here
            prompt = printable(str(read_line(lines[1])[1].get("prompt") or ""))
        found.append(SessionSummary(path.stem, path, model, started, status.st_mtime, prompt, status.st_size, problem))
    return sorted(found, key=lambda summary: (summary.changed, summary.name), reverse=True)


def _load(path: Path) -> tuple[bytes, SavedSession]:
    """The whole lines of a file, and the session they tell of."""
    content = read_file(path, MOST_BYTES)
    content = content[: content.rfind(b"\n") + 1]
    try:
        return content, read_session(path.stem, content)
    except UnusableInput as error:
        raise SessionError(set_aside(path, error)) from error


def _lock(file: IO[bytes], name: str) -> None:
    """Take the file for this process; the kernel frees it, however the process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SessionError(f"session {name!r} is open in another window; close it there first") from error
