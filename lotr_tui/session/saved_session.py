"""The shape of a saved session: a tree of replies, a JSON line each.

A file begins with `{"session": {...}}`, then comes a `{"node": {...}}` for each reply. A later line takes the
place of an earlier one: of the session, or of the node with its id (it was named, or went on). The words of a
node are lists `[id, text, logprob, prob, rank, entropy]`; a figure that is not finite is null.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from engine.errors import UnusableInput
from engine.generation.generate import TokenEvent
from engine.generation.settings import SamplerSettings
from lotr_tui.session.json_store import check_version, fits, from_record, parse
from lotr_tui.session.settings import Way

VERSION = 1
MOST_OF_A_LINE = 16_000_000
"""Bytes; parsed it may take 27 times as many. A reply of 100,000 words has 8 million."""
MOST_NODES, MOST_WORDS = 200_000, 1_500_000
"""Of a session that is read."""

Reason = Literal["eos", "length", "stop", "cancelled", "error"]


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


def header_line(session: SavedSession) -> bytes:
    """The line that tells of the session itself."""
    record = {
        "version": VERSION,
        "model": session.model,
        "started": session.started,
        "current": session.current,
    }
    return _line("session", record)


def node_line(node: Node) -> bytes:
    """The line that tells of a node."""
    record = {name: getattr(node, name) for name in (f.name for f in fields(Node))}
    changed = {
        "settings": asdict(node.settings),
        "words_per_second": _finite(node.words_per_second),
        "words": [[w.id, w.text, _finite(w.logprob), _finite(w.prob), w.rank, _finite(w.entropy)] for w in node.words],
    }
    return _line("node", record | changed)


def read_session(name: str, content: bytes) -> SavedSession:
    """The session that whole lines tell of.

    Raises:
        UnusableInput: a line is damaged or of a newer version, or the nodes are no tree.
    """
    header: dict[str, Any] = {}
    nodes: dict[int, Node] = {}
    words = begin = 0
    while (end := content.find(b"\n", begin)) >= 0:  # not all lines at once: that takes twice the memory
        kind, record = read_line(content[begin:end])
        begin = end + 1
        if kind == "session":
            header = check_header(record)
            continue
        node = _read_node(record)
        words += len(node.words) - (len(nodes[node.id].words) if node.id in nodes else 0)
        if len(nodes) > MOST_NODES or words > MOST_WORDS:
            raise UnusableInput(f"it has more than {MOST_NODES:,} replies or {MOST_WORDS:,} words")
        nodes[node.id] = node
        header["current"] = node.id
    if "started" not in header:
        raise UnusableInput("it does not begin as a session")
    _check_tree(nodes)
    current = header["current"]
    return SavedSession(
        name, header["model"], header["started"], tuple(nodes.values()), current if current in nodes else None
    )


def read_line(line: bytes) -> tuple[str, dict[str, Any]]:
    """What kind of line it is, "session" or "node", and what it holds, which is still to be checked.

    Raises:
        UnusableInput: it is neither.
    """
    if len(line) > MOST_OF_A_LINE:
        raise UnusableInput(f"a line has more than {MOST_OF_A_LINE:,} bytes")
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


def check_header(record: dict[str, Any]) -> dict[str, Any]:
    """Model, time and current node of a session's line.

    Raises:
        UnusableInput: one of them is missing or means nothing.
    """
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


def _line(kind: str, record: Mapping[str, object]) -> bytes:
    return json.dumps({kind: record}, allow_nan=False, separators=(",", ":")).encode() + b"\n"


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
