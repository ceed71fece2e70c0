"""A saved session as Markdown, JSON and SVG. Text is text: no markup of any of the three, no control characters.

The JSON has this shape (figures that are not finite are null):

    {"format": "lotr-tui session", "version": 1, "name": ..., "model": ..., "started": seconds since 1970,
     "nodes": [{"id": 0, "parent": null or an id, "at": words of the parent that stand before it,
                "prompt": text or null, "way": "continue" or "reply", "text": the words with spaces,
                "words": [{"id", "text", "logprob", "prob", "rank", "entropy"}, ...],
                "seed": 0, "settings": {"temperature": 0.8, ...}, "chain": the settings for people,
                "reason": "eos", "length", "stop", "cancelled" or "error", "words_per_second": 9000.0,
                "model": the run that spoke, "unknown": [words], "name": of the branch}, ...]}
"""

import io
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from engine.errors import UnusableInput, printable
from engine.generation.generate import Done
from engine.storage.files import replacing
from lotr_tui.formatting import ending
from lotr_tui.session.json_store import reason
from lotr_tui.session.saved_session import Node, SavedSession

if TYPE_CHECKING:
    from rich.text import Text

SVG_COLUMNS = 80
SVG_CELL, SVG_LINE = 8.4, 20
"""Width and height of a character's place, for type of 14 pixels."""


@dataclass(frozen=True)
class _Entry:
    """A node for people to read; every text is printable."""

    title: str
    prompt: tuple[str, ...]
    """Its lines that are not blank; none where nothing was typed."""
    before: str
    """The words of the text it branched off from."""
    words: str
    notes: str


def export(session: SavedSession, kind: str, folder: Path) -> Path:
    """Write a session to a new file `folder/NAME.KIND` ("md", "json", "svg"); none that exists is overwritten.

    Raises:
        UnusableInput: there is no such kind, or the folder cannot be written to.
    """
    if kind not in KINDS:
        raise UnusableInput(f"a session cannot be exported as {kind!r}; use {', '.join(KINDS)}")
    content = KINDS[kind](session).encode()
    stem = session.name or "session"
    for number in count(1):
        path = folder / (f"{stem}-{number}.{kind}" if number > 1 else f"{stem}.{kind}")
        try:
            with replacing(path, new=True) as file:
                file.write(content)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise UnusableInput(f"cannot write {path}: {reason(error)}; choose another folder") from error
    raise AssertionError("numbers do not end")


def to_json(session: SavedSession) -> str:
    """As JSON, in the shape that stands above."""
    record = {
        "format": "lotr-tui session",
        "version": 1,
        "name": session.name,
        "model": session.model,
        "started": session.started,
        "nodes": [{**asdict(node), "text": node.text, "chain": node.settings.chain()} for node in session.nodes],
    }
    return json.dumps(_finite(record), indent=1, allow_nan=False) + "\n"


def to_markdown(session: SavedSession) -> str:
    """As Markdown: prompts are quotes, the words paragraphs, how they came about a line in italics."""
    title, about = _heading(session)
    blocks = [f"# {_escape(title)}", _escape(about)]
    for entry in _entries(session):
        blocks.append(f"## {_escape(entry.title)}")
        if entry.prompt:
            blocks.append("\\\n".join(f"> {_escape(line)}" for line in entry.prompt))
        said = [f"*{_escape(entry.before)}*" if entry.before else "", _escape(entry.words)]
        if any(said):
            blocks.append(" ".join(part for part in said if part))
        blocks.append(f"*{_escape(entry.notes)}*")
    return "\n\n".join(blocks) + "\n"


def to_svg(session: SavedSession, columns: int = SVG_COLUMNS) -> str:
    """As a picture of the transcript, `columns` characters wide; it needs nothing from the network."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    title, about = _heading(session)
    blocks = [(0, Text(title, "accent")), (0, Text(about, "muted"))]
    for entry in _entries(session):
        said = Text.assemble((entry.before, "muted"), " " if entry.before and entry.words else "", entry.words)
        blocks += [(0, Text("")), (0, Text(entry.title, "muted"))]
        blocks += [
            (2 * (number > 0), Text.assemble(("" if number else "❯ ", "accent"), (line, "prompt")))
            for number, line in enumerate(entry.prompt)
        ]
        blocks += [(2, said), (2, Text(entry.notes, "muted"))]

    console = Console(file=io.StringIO())  # breaks lines, prints nothing
    drawn, row = [], 0
    for indent, block in blocks:
        for line in block.wrap(console, max(1, columns - indent)):
            line.rstrip()
            row += 1
            column = indent
            for text, style in _runs(line):
                if text.strip():
                    place = f'x="{column * SVG_CELL:g}" y="{row * SVG_LINE}" textLength="{cell_len(text) * SVG_CELL:g}"'
                    drawn.append(f'<text class="{style}" {place}>{escape(text)}</text>')
                column += cell_len(text)
    width, height = round(columns * SVG_CELL) + 40, (row + 1) * SVG_LINE + 20
    return _SVG.format(width=width, height=height, title=escape(title), lines="\n".join(drawn))


KINDS: dict[str, Callable[[SavedSession], str]] = {"md": to_markdown, "json": to_json, "svg": to_svg}
"""What a session can be exported as, by the ending of the file."""

_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<title>{title}</title>
<style>
text {{ font: 14px monospace; fill: #d8d4c8; white-space: pre; }}
.accent {{ fill: #d9a648; font-weight: bold; }}
.prompt {{ font-weight: bold; }}
.muted {{ fill: #8b8c7e; }}
</style>
<rect width="100%" height="100%" fill="#14150f"/>
<g transform="translate(20, 12)" xml:space="preserve">
{lines}
</g>
</svg>
"""


def _runs(line: "Text") -> Iterator[tuple[str, str]]:
    """The parts of a line that have one style each, and its name."""
    edges = sorted({0, len(line), *(edge for span in line.spans for edge in (span.start, span.end))})
    for start, end in pairwise(edges):
        styles = [str(span.style) for span in line.spans if span.start <= start and end <= span.end]
        yield line.plain[start:end], styles[-1] if styles else str(line.style)


def _heading(session: SavedSession) -> tuple[str, str]:
    replies = "1 reply" if len(session.nodes) == 1 else f"{len(session.nodes):,} replies"
    started = f"{datetime.fromtimestamp(session.started):%Y-%m-%d %H:%M}"
    return printable(f"lotr-tui session {session.name}"), printable(f"{session.model} · {started} · {replies}")


def _entries(session: SavedSession) -> Iterator[_Entry]:
    """The nodes in the order in which they came, numbered from 1."""
    numbers = {node.id: number for number, node in enumerate(session.nodes, 1)}
    for node in session.nodes:
        title = [str(numbers[node.id])]
        before = ""
        if node.parent is not None:
            parent = session.by_id[node.parent]
            whole = node.at == len(parent.words)
            title.append(f"{'goes on from' if whole else 'branches off'} {numbers[parent.id]}")
            if not whole:
                title[-1] += f" after {node.at} {'word' if node.at == 1 else 'words'}"
                before = " ".join(word.text for word in parent.words[: node.at])
        if node.name:
            title.append(node.name)
        yield _Entry(
            title=printable(" · ".join(title)),
            prompt=tuple(filter(None, (printable(line) for line in (node.prompt or "").splitlines()))),
            before=printable(before),
            words=printable(node.text),
            notes=printable(" · ".join(_notes(session, node))),
        )


def _notes(session: SavedSession, node: Node) -> Iterator[str]:
    """How a reply came about."""
    if node.model != session.model:
        yield node.model
    if node.way == "reply":
        yield "reply"
    if node.unknown:
        yield f"read as <unk>: {', '.join(node.unknown)}"
    yield f"seed {node.seed}"
    yield node.settings.chain()
    yield f"{node.words_per_second:,.0f} words/s"
    yield ending(Done(node.reason, node.seed, len(node.words), node.words_per_second))


_SPECIAL = re.compile(r"[\\`*_\[\]<>&~|#$@^]|(?<!\d):(?!\s|$)|(?i:(?<=www)\.)")
_SPECIAL_FIRST = re.compile(r"^(\d*)([-+=.)])")


def _escape(line: str) -> str:
    """A printable line such that Markdown, GitHub's too, shows these characters and does nothing else."""
    return _SPECIAL_FIRST.sub(r"\1\\\2", _SPECIAL.sub(r"\\\g<0>", line))


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return value
