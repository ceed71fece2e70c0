"""Sessions saved as they go, and resumed: a tree of replies, a JSON line each.

A file begins with `{"session": {...}}`, then comes a `{"node": {...}}` for each reply. A later line takes the
place of an earlier one: of the session, or of the node with its id (it was named, or went on). The words of a
node are lists `[id, text, logprob, prob, rank, entropy]`; a figure that is not finite is null. A last line
without its end is not there: whoever wrote it died.
"""

import fcntl
import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import IO, Any, Literal

from engine.errors import LotrError, UnusableInput, printable
from engine.files import home
from engine.sampling import SamplerSettings, TokenEvent
from lotr_tui.settings import Way, check_version, fits, from_record, parse, reason, set_aside

VERSION = 1
MOST_OF_A_LINE = 1_000_000
"""Bytes of a line that are read for a list of sessions."""

Reason = Literal["eos", "length", "stop", "cancelled", "error"]


class SessionError(LotrError):
    """A session cannot be saved, or not be read."""


@dataclass(frozen=True)
class Word:
    """A word of a reply; the figures are those of its `TokenEvent`."""

    id: int
    text: str
    logprob: float
    prob: float
    rank: int
    entropy: float

    @classmethod
    def of(cls, event: TokenEvent) -> "Word":
        """What is kept of an event."""
        return cls(event.id, event.text, event.logprob, event.prob, event.rank, event.entropy)


@dataclass(frozen=True)
class Node:
    """A prompt and the words that came, or words alone that go on from another node."""

    id: int
    """From 0 on, in the order in which they came."""
    parent: int | None
    """The node whose text this one goes on from; None begins a text."""
    at: int
    """So many of the parent's words stand before this node: all of them, or fewer where it branches off."""
    prompt: str | None
    """What was typed; None: the model went on by itself, from the parent's end or a word chosen there."""
    way: Way
    words: tuple[Word, ...]
    seed: int
    settings: SamplerSettings
    reason: Reason
    """Why it ended."""
    words_per_second: float
    model: str
    """The run whose model spoke."""
    unknown: tuple[str, ...] = ()
    """The prompt's words outside the vocabulary."""
    name: str = ""
    """What the branch was called."""

    @property
    def text(self) -> str:
        """The words, divided by spaces."""
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class SavedSession:
    """A session as it was left."""

    name: str
    """The file is called so."""
    model: str
    """The run it began with."""
    started: float
    """Seconds since 1970."""
    nodes: tuple[Node, ...] = ()
    current: int | None = None
    """The node that was looked at last; None: the latest."""

    @cached_property
    def by_id(self) -> Mapping[int, Node]:
        """The nodes by their ids."""
        return {node.id: node for node in self.nodes}

    def line(self, id: int) -> tuple[Node, ...]:
        """From the beginning of its text to the node `id`: every node that it stands on, then itself."""
        node: Node | None = self.by_id[id]
        line: list[Node] = []
        while node is not None:
            line.append(node)
            node = None if node.parent is None else self.by_id[node.parent]
        return tuple(reversed(line))

    def children(self, id: int | None) -> tuple[Node, ...]:
        """The nodes that go on from the node `id`; with None those that begin a text."""
        return tuple(node for node in self.nodes if node.parent == id)


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
            file = path.open("rb+", buffering=0)
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
        self._write(_line("node", _node_record(node)))

    def look_at(self, id: int) -> None:
        """Note which node is looked at, so that it is looked at when the session is resumed.

        Raises:
            SessionError: as `keep`.
        """
        if id != self.session.current:
            self.session = replace(self.session, current=id)
            self._write(self._header())

    def close(self) -> None:
        """Let others have the file."""
        if self._file is not None:
            if not self._size:  # nothing could be written
                self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    @property
    def _path(self) -> Path:
        return self._folder / f"{self.session.name}.jsonl"

    def _header(self) -> bytes:
        session = self.session
        record = {
            "version": VERSION,
            "model": session.model,
            "started": session.started,
            "current": session.current,
        }
        return _line("session", record)

    def _write(self, line: bytes) -> None:
        """Append the line, behind those that could not be written before."""
        self._waiting.append(line)
        try:
            if self._file is not None and not os.fstat(self._file.fileno()).st_nlink:  # somebody deleted it
                self._file.close()
                self._file = None
                self._waiting = [_line("node", _node_record(node)) for node in self.session.nodes]
            file = self._file or self._create()
            content = b"".join(self._waiting)
            try:
                file.seek(self._size)
                _write_all(file, content)
            except OSError:
                with suppress(OSError):
                    file.truncate(self._size)  # no part of a line stays
                raise
        except OSError as error:
            if not self._said:
                self._said = True
                where = self.session.name or self._folder
                raise SessionError(f"the session is not saved: {where}: {reason(error)}; it goes on") from error
            return
        self._size += len(content)
        self._waiting.clear()
        self._said = False

    def _create(self) -> IO[bytes]:
        """A new file, named after the time; the session's line is the first to be written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        stem = f"{datetime.fromtimestamp(self.session.started):%Y%m%d-%H%M%S}"
        for number in count(1):
            self.session = replace(self.session, name=stem if number == 1 else f"{stem}-{number}")
            try:
                file = self._path.open("xb", buffering=0)
            except FileExistsError:
                continue
            _lock(file, self.session.name)
            self._file, self._size = file, 0
            self._waiting.insert(0, self._header())
            return file
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
            with path.open("rb") as file:
                lines = [file.readline(MOST_OF_A_LINE), file.readline(MOST_OF_A_LINE)]
        except OSError:
            continue  # gone in the meantime, or no file of ours
        model, started, prompt, problem = "", status.st_mtime, "", ""
        try:
            header = _session_record(_record(lines[0])[1])
            model, started = header["model"], header["started"]
        except UnusableInput as error:
            problem = str(error)
        with suppress(UnusableInput):  # no node yet, or one too long to be read here
            prompt = printable(str(_record(lines[1])[1].get("prompt") or ""))
        found.append(SessionSummary(path.stem, path, model, started, status.st_mtime, prompt, status.st_size, problem))
    return sorted(found, key=lambda summary: (summary.changed, summary.name), reverse=True)


def _load(path: Path) -> tuple[bytes, SavedSession]:
    """The whole lines of a file, and the session they tell of."""
    content = path.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    header: dict[str, Any] = {}
    nodes: dict[int, Node] = {}
    try:
        for line in content.split(b"\n")[:-1]:
            kind, record = _record(line)
            if kind == "session":
                header = _session_record(record)
            else:
                node = _read_node(record)
                nodes[node.id] = node
                header["current"] = node.id
        if "started" not in header:
            raise UnusableInput("it does not begin as a session")
        _check_tree(nodes)
    except UnusableInput as error:
        raise SessionError(set_aside(path, error)) from error
    current = header["current"]
    return content, SavedSession(
        path.stem, header["model"], header["started"], tuple(nodes.values()), current if current in nodes else None
    )


def _line(kind: str, record: Mapping[str, object]) -> bytes:
    return json.dumps({kind: record}, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _record(line: bytes) -> tuple[str, dict[str, Any]]:
    """What kind of line it is, and what it holds."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise UnusableInput("it is no text") from error
    record = parse(text)
    if isinstance(record, dict) and len(record) == 1:
        kind, value = next(iter(record.items()))
        if kind in ("session", "node") and isinstance(value, dict):
            return kind, value
    raise UnusableInput("a line is neither a session nor a node")


def _session_record(record: dict[str, Any]) -> dict[str, Any]:
    check_version(record.get("version"), VERSION)
    fields = {"model": str, "started": float, "current": int | None}
    for name, hint in fields.items():
        if name not in record or not fits(record[name], hint):
            raise UnusableInput(f"{name} is missing or of the wrong type")
    if not record["model"].isprintable():
        raise UnusableInput("the model's name is none")
    try:
        datetime.fromtimestamp(record["started"])
    except (ValueError, OverflowError, OSError) as error:
        raise UnusableInput("started is no time") from error
    return {name: record[name] for name in fields}


def _node_record(node: Node) -> dict[str, object]:
    record = {name: getattr(node, name) for name in (f.name for f in fields(Node))}
    return {
        **record,
        "settings": asdict(node.settings),
        "words_per_second": _finite(node.words_per_second),
        "words": [[w.id, w.text, _finite(w.logprob), _finite(w.prob), w.rank, _finite(w.entropy)] for w in node.words],
    }


def _read_node(record: dict[str, Any]) -> Node:
    return from_record(
        Node,
        record,
        words=_words,
        unknown=_texts,
        words_per_second=_figure,
        settings=lambda value: from_record(SamplerSettings, value),
    )


def _check_tree(nodes: Mapping[int, Node]) -> None:
    """A parent comes before what goes on from it, so that there is no circle, and has the words it stands on."""
    for node in nodes.values():
        if node.parent is None:
            words = 0
        elif node.parent in nodes and node.parent < node.id:
            words = len(nodes[node.parent].words)
        else:
            raise UnusableInput(f"node {node.id} goes on from {node.parent}, which does not stand before it")
        if not 0 <= node.at <= words or node.id < 0 or node.seed < 0:
            raise UnusableInput(f"node {node.id} has a number out of range")


def _words(value: object) -> tuple[Word, ...]:
    if not isinstance(value, list):
        raise UnusableInput("words is no list")
    words = []
    for entry in value:
        match entry:
            case [int(id), str(text), logprob, prob, int(rank), entropy] if (
                type(id) is type(rank) is int and text.isprintable()  # words go to the terminal as they are
            ):
                words.append(Word(id, text, _figure(logprob), _figure(prob), rank, _figure(entropy)))
            case _:
                raise UnusableInput("a word is not [id, text, logprob, prob, rank, entropy]")
    return tuple(words)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(t, str) and t.isprintable() for t in value):
        raise UnusableInput("unknown is no list of words")
    return tuple(value)


def _figure(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, float) or type(value) is int:
        return float(value) if abs(value) < 2**63 else math.nan
    raise UnusableInput(f"{value!r} is no figure")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _lock(file: IO[bytes], name: str) -> None:
    """Take the file for this process; the kernel frees it, however the process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SessionError(f"session {name!r} is open in another window; close it there first") from error


def _write_all(file: IO[bytes], content: bytes) -> None:
    left = memoryview(content)
    while left:  # the file is not buffered, so a part may be written
        left = left[file.write(left) :]
