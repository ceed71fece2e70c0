"""Saved sessions: a tree of replies, one JSON line per reply, in a file that one window writes.

A file begins with `{"session": {...}}`, followed by one `{"reply": {...}}` per reply. A later line replaces an
earlier one: of the session, or of the reply with the same id. A token is a list `[id, text, logprob, prob, rank,
entropy, piece]`, in which a figure that is not finite is null. An incomplete last line, left by a writer that was
killed, is ignored, and a damaged line is left out.
"""

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO, Annotated, Any

from msgspec import Meta

from engine.data.speakers import display_name
from engine.errors import InvalidInputError, LotrError, printable
from engine.storage import files
from lotr_tui.formatting import plural
from lotr_tui.session import settings
from lotr_tui.session.reply import Reply

VERSION = 5  # of the format; in earlier ones, speakers were tokens
MAX_LINE_BYTES = 16_000_000  # which take up to 27 times as much memory once parsed; 100,000 tokens take 8 MB
MAX_REPLIES, MAX_TOKENS = 200_000, 1_500_000  # of a session that is read
MAX_SESSION_BYTES = 256_000_000  # of a file that is read; a token takes about 80 bytes
MAX_PREVIEW_LINE_BYTES = 1_000_000  # of a line that is read for the list of sessions
MAX_COUNTED_BYTES = 16_000_000  # of a file that are searched for replies for the list
MAX_TIME = 32_503_680_000.0  # the year 3000, in seconds since 1970
MAX_NAME_LENGTH = 50  # characters of a name, up to four bytes each in a file name of up to 255 bytes
MAX_NAME_WORDS, MAX_FIRST_WORDS_LENGTH = 6, 40  # of the first prompt, after which a session is named
SHOWN_FIELDS = ("unknown_tokens", "speaking_as", "speaker", "system_prompt")  # of a reply, as they are
# Id of a reply in its line, unless it was drawn together with a better answer and never shown.
_REPLY_ID = re.compile(rb'^\{"reply": \{"id": (\d+)(?!.*"score": \{"rank": (?!1,))', re.MULTILINE)


class SessionError(LotrError):
    """Failure to save or read a session."""


def sessions_folder() -> Path:
    return files.app_home() / "sessions"


@dataclass(frozen=True)
class SessionHeader:
    """Line of a file that describes the session itself."""

    version: int
    model: str
    started: Annotated[float, Meta(ge=0, le=MAX_TIME)]  # Unix time in seconds
    current_id: int | None
    setup: settings.SessionSetup | None = None

    def __post_init__(self) -> None:
        settings.check_version(self.version, VERSION)
        if not self.model.isprintable():
            raise InvalidInputError("model is not a printable name")


@dataclass(eq=False)
class Session:
    """Tree of replies by their ids, in order, and its file, created with the first reply and locked until `close`."""

    name: str = ""  # stem of the file; empty before there is one
    model: str = ""  # name of the model that it began with
    started: float = field(default_factory=time.time)  # Unix time in seconds
    replies: dict[int, Reply] = field(default_factory=dict)
    current_id: int | None = None  # reply that was selected last; None selects the latest
    folder: Path = field(default_factory=sessions_folder)
    problem: str = ""  # why a part of the session is not saved; empty if all of it is, or if it was deleted
    setup: settings.SessionSetup | None = None  # None if no command brings back what it was written with
    damage: str = ""  # how many lines of the file were left out, and why; empty if all were read

    def __post_init__(self) -> None:
        self._open_file: tuple[IO[bytes], files.JsonLinesAppender] | None = None
        self._is_deleted = False
        self._saved_setup = self.setup
        self._failures = settings.FailureReporter()

    @classmethod
    def resume(cls, path: Path) -> "Session":
        """Open a saved session for writing; one that is missing, unreadable or open elsewhere raises a SessionError.

        A file with damaged lines is kept beside it as it was.
        """
        with _hold(path, "resumed", keeps_lock=True) as lock:
            session = _read_session_file(path)
            if session.damage:
                session._replace_damaged_file()
                lock.close()
                lock = _lock(path)
            session._open(lock)
        return session

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.jsonl"

    def encode(self) -> bytes:
        replies = [{"reply": reply.record()} for reply in self.replies.values() if not reply.is_generating]
        header = self._header()
        records = [header, *replies, header] if replies else [header]  # the last line determines the selected reply
        return b"".join(json.dumps(record).encode() + b"\n" for record in records)

    def _header(self) -> dict[str, Any]:
        return {"session": asdict(SessionHeader(VERSION, self.model, self.started, self.current_id, self.setup))}

    def save(self, changed: Iterable[Reply] = (), current_id: int | None = None) -> str:
        """Save replies and which one is selected, now or the next time. Return the first of several failures, or ""."""
        records = []
        for reply in changed:
            records.append({"reply": reply.record()})
            self.current_id = reply.id
        is_same = not records and (not self.name or current_id in (None, self.current_id))
        if self._is_deleted or (is_same and not self.problem):
            return ""
        if current_id not in (None, self.current_id):
            self.current_id = current_id
            records.append(self._header())
        elif self.setup != self._saved_setup:
            records.append(self._header())
        self._saved_setup = self.setup
        try:
            if self._open_file is not None and not self.path.exists():
                self.close()
            if self._open_file is None:  # no file yet, or another program has deleted it
                self._create_file()
                self.problem = ""
            else:
                self._open_file[1].append(*(records or [self._header()]))
                self.problem = self._open_file[1].problem
        except OSError as error:
            self.problem = f"{self.path if self.name else self.folder}: {settings.os_error_reason(error)}"
        message = f"the session is not saved: {self.problem}; the conversation continues" if self.problem else ""
        return self._failures.report(message)

    def save_again(self) -> str:
        """Try to save what could not be saved. Return the reason why it still is not, or an empty text."""
        self.save()
        return self.problem

    def rename(self, name: str) -> None:
        """Rename the session and its file; an invalid or taken name, and a failure, raise a SessionError."""
        path = rename_session(self.path, name, is_locked=self._open_file is not None)
        if self._open_file is not None:
            self._open_file[1].path = path
        self.name = name

    def delete(self) -> None:
        """Delete the file, and save nothing more; a failure raises a SessionError."""
        if self.name:
            delete_session(self.path, is_locked=self._open_file is not None)
        self._is_deleted, self.problem = True, ""
        self.close()

    def close(self) -> None:
        if self._open_file is not None:
            lock, appender = self._open_file
            appender.close()
            lock.close()
            self._open_file = None

    def _open(self, lock: IO[bytes]) -> None:
        self._open_file = lock, files.JsonLinesAppender(self.path, max_buffered_bytes=MAX_SESSION_BYTES)

    def _replace_damaged_file(self) -> None:
        """Write the lines that were read in place of the file, which gets another name."""
        aside = settings.name_for_damaged(self.path)
        with files.atomic_replace(self.path) as file:
            file.write(self.encode())
            aside.hardlink_to(self.path)
        self.damage += f"; the file as it was is kept as {aside.name}"

    def _create_file(self) -> None:
        """Create a file with the whole session, named by the first words that were said or the time of its start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        first = next(iter(self.replies.values()))
        words = re.findall(r"\w[\w'’-]*", first.prompt or first.reply_text())[:MAX_NAME_WORDS]
        while len(" ".join(words)) > MAX_FIRST_WORDS_LENGTH and len(words) > 1:
            words.pop()
        stem = self.name or " ".join(words)[:MAX_FIRST_WORDS_LENGTH]
        stem = stem or f"{datetime.fromtimestamp(self.started):%Y-%m-%d %H.%M.%S}"
        for number in count(1):
            self.name = stem if number == 1 else f"{stem} {number}"
            try:
                with files.atomic_replace(self.path, exclusive=True) as file:
                    file.write(self.encode())
            except FileExistsError:
                continue
            self._open(_lock(self.path))
            return


def parse_session(name: str, content: bytes) -> Session:
    """Read a session from the whole lines of its file; an InvalidInputError if none has a reply, or by its version."""
    header: SessionHeader | None = None
    current_id: int | None = None
    replies: dict[int, Reply] = {}
    problems: list[str] = []  # of the lines that are left out
    num_tokens = start = 0
    while (end := content.find(b"\n", start)) >= 0:  # splitting all lines at once takes twice the memory
        line_start = start
        start = end + 1
        try:
            line = _parse_line(content[line_start:end])
        except settings.FormatVersionError:
            raise
        except InvalidInputError as error:
            problems.append(str(error))
            continue
        if isinstance(line, SessionHeader):
            header, current_id = line, line.current_id
            continue
        num_tokens += len(line.tokens) - (len(replies[line.id].tokens) if line.id in replies else 0)
        if len(replies) > MAX_REPLIES or num_tokens > MAX_TOKENS:
            raise InvalidInputError(f"more than {MAX_REPLIES:,} replies or {MAX_TOKENS:,} tokens")
        replies[line.id] = line
        current_id = line.id
    session = Session(name)
    for id in sorted(replies):
        reply = replies[id]
        if problems and reply.edited_id not in session.replies:
            reply.edited_id = None
        if problems and reply.prompt is not None and reply.parent_id not in session.replies:
            reply.parent_id = None  # the turn before it is left out, and this one begins a text
            reply.parent_offset = 0
        try:
            _attach(reply, session.replies)
        except InvalidInputError as error:
            problems.append(str(error))
            continue
        session.replies[id] = reply
        num_tokens += reply.num_shared_tokens
        if num_tokens > 10 * MAX_TOKENS:  # branches of branches of a long reply would take any amount of memory
            raise InvalidInputError(f"more than {10 * MAX_TOKENS:,} tokens in branches")
    if header is None and not problems:
        problems.append("the first line does not describe a session")
    if problems and not session.replies:
        raise InvalidInputError(problems[0])
    if problems:
        what = plural(len(problems), "damaged line")
        session.damage = f"{what} of session {name!r} left out: {problems[0][: settings.MAX_CAUSE_LENGTH]}"
    if header is not None:
        session.model, session.started = header.model, header.started
        session.setup = session._saved_setup = header.setup
    session.current_id = current_id if current_id in session.replies else None
    return session


def _attach(reply: Reply, replies: Mapping[int, Reply]) -> None:
    """Join a reply to the `replies` before it, or raise an InvalidInputError."""
    parent = None if reply.parent_id is None else replies.get(reply.parent_id)
    if reply.parent_id is not None and parent is None:  # so that there is no cycle
        raise InvalidInputError(f"reply {reply.id} continues reply {reply.parent_id}, which does not precede it")
    if reply.parent_offset > (0 if parent is None else len(parent.own_tokens)):
        raise InvalidInputError(f"parent_offset {reply.parent_offset} of reply {reply.id} is out of range")
    edited = None if reply.edited_id is None else replies.get(reply.edited_id)
    begins_text = edited is not None and edited.turn.previous_reply is parent is None
    if reply.edited_id is not None and not begins_text:
        reason = f"edits reply {reply.edited_id}, which does not begin a text before it"
        raise InvalidInputError(f"reply {reply.id} {reason}")
    reply.attach(parent, edited)


def _parse_line(line: bytes) -> SessionHeader | Reply:
    if len(line) > MAX_LINE_BYTES:
        raise InvalidInputError(f"a line has more than {MAX_LINE_BYTES:,} bytes")
    match files.parse_json(line):
        case {"session": dict(header), **others} if not others:
            return files.decode(SessionHeader, header)
        case {"reply": dict(reply), **others} if not others:
            reply.pop("name", None)  # of a branch, which earlier files have
            parsed = files.decode(Reply, reply)
            shown = {name: getattr(parsed, name) for name in SHOWN_FIELDS}
            shown["tokens"] = [token.text for token in parsed.tokens]
            for name, texts in shown.items():
                if not all(map(str.isprintable, texts)):
                    raise InvalidInputError(f"{name} of reply {parsed.id}: control characters are not allowed")
            return parsed
    raise InvalidInputError("a line describes neither a session nor a reply")


def load_session(path: Path) -> Session:
    """Read a session, also while another process writes it; an unreadable one raises a SessionError."""
    try:
        return _read_session_file(path)
    except OSError as error:
        raise SessionError(f"session {path.stem!r} cannot be read: {settings.os_error_reason(error)}") from error


def read_text(path: Path) -> str:
    """Return what was said in a session, to search it; empty for one that cannot be read."""
    try:
        replies = load_session(path).replies.values()
    except SessionError:
        return ""
    return "\n".join(f"{reply.prompt or ''} {reply.reply_text()}" for reply in replies)


@dataclass
class SessionSummary:
    name: str
    path: Path
    modified: float  # Unix time in seconds
    num_replies: int  # in the first `MAX_COUNTED_BYTES` of the file, without answers that were not chosen
    model: str = ""
    first_prompt: str = ""
    error: str = ""  # why the first line cannot be read; `model` and `first_prompt` are then empty


def list_sessions(folder: Path | None = None) -> list[SessionSummary]:
    """List the saved sessions, the latest first. Only the first two lines of each file are parsed."""
    summaries = []
    for path in (folder or sessions_folder()).glob("*.jsonl"):
        try:
            modified = path.stat().st_mtime
            with os.fdopen(files.open_regular_file(path), "rb") as file:
                lines = [file.readline(MAX_PREVIEW_LINE_BYTES), file.readline(MAX_PREVIEW_LINE_BYTES)]
                file.seek(0)
                reply_ids = set(_REPLY_ID.findall(file.read(MAX_COUNTED_BYTES)))
        except OSError:
            continue  # deleted meanwhile, or not a regular file
        summary = SessionSummary(path.stem, path, modified, len(reply_ids))
        try:
            summary.model = _parse_line(lines[0]).model
        except InvalidInputError as error:
            summary.error = str(error)
        with suppress(InvalidInputError):  # no reply yet, or a line longer than the preview
            if isinstance(reply := _parse_line(lines[1]), Reply):
                scene = f"(scene: {display_name(reply.speaker)} begins)" if reply.speaker else ""
                summary.first_prompt = printable(reply.prompt or scene)
        summaries.append(summary)
    return sorted(summaries, key=lambda summary: (summary.modified, summary.name), reverse=True)


def rename_session(path: Path, name: str, *, is_locked: bool = False) -> Path:
    """Rename a session that no other window has open, and return its path; a bad name raises a SessionError."""
    forbidden = next((char for char in name if char == "/" or not char.isprintable()), "")
    rules = (
        (bool(name), "type at least one character"),
        (len(name) <= MAX_NAME_LENGTH, f"use at most {MAX_NAME_LENGTH} characters instead of {len(name):,}"),
        (not forbidden, f"{forbidden!a} is not allowed in it; use '-' instead"),
        (not name.startswith("."), "it cannot begin with a full stop"),
    )
    if rule := next((rule for is_kept, rule in rules if not is_kept), ""):
        raise SessionError(f"not a session name: {rule}")
    new_path = path.with_name(f"{name}.jsonl")
    with _hold(path, "renamed", is_locked=is_locked):
        # A file system that ignores case, as on macOS, has the file under its new name already.
        if new_path.exists() and (new_path.name == path.name or not new_path.samefile(path)):
            raise SessionError(f"a session {new_path.stem!r} exists already; choose another name")
        path.rename(new_path)
    return new_path


def delete_session(path: Path, *, is_locked: bool = False) -> None:
    """Delete a saved session that no other window has open; a failure raises a SessionError."""
    with _hold(path, "deleted", is_locked=is_locked):
        path.unlink()


def _read_session_file(path: Path) -> Session:
    """Read the whole lines of a session file; one without any raises a SessionError."""
    content = files.read_limited(path, MAX_SESSION_BYTES)
    try:
        session = parse_session(path.stem, content)
    except InvalidInputError as error:
        raise SessionError(f"{path} cannot be used: {str(error)[: settings.MAX_CAUSE_LENGTH]}") from error
    session.folder = path.parent
    return session


@contextmanager
def _hold(path: Path, action: str, *, is_locked: bool = False, keeps_lock: bool = False) -> Iterator[IO[bytes]]:
    """Lock the file of a session for an action, whose OSError becomes a SessionError; no missing file is created."""
    lock = None
    try:
        before = path.stat()
        lock = path.open("rb") if is_locked else _lock(path)
        if not os.path.samestat(before, path.stat()):  # another window renamed it, and the lock created it again
            path.unlink()
            raise FileNotFoundError(path)
        yield lock
    except BaseException as error:
        keeps_lock = False
        if isinstance(error, FileNotFoundError):
            reason = "is gone; another window has renamed or deleted it"
        elif isinstance(error, OSError):
            reason = f"cannot be {action}: {settings.os_error_reason(error)}"
        else:
            raise
        raise SessionError(f"session {path.stem!r} {reason}") from error
    finally:
        if lock is not None and not keeps_lock:
            lock.close()


def _lock(path: Path) -> IO[bytes]:
    try:
        return files.lock_file(path)
    except BlockingIOError as error:
        raise SessionError(f"session {path.stem!r} is open in another window; close it there first") from error
