"""Export of a saved session as Markdown, JSON and SVG, without markup or control characters from its texts.

The JSON has this shape (figures that are not finite are null):

    {"format": "lotr-tui session", "version": 2, "name": ..., "model": ..., "started": Unix time in seconds,
     "replies": [{"id": 0, "parent_id": id or null, "parent_offset": number of the parent's tokens before this reply,
                  "prompt": text or null, "reply_mode": "continue" or "reply",
                  "text": pieces of the tokens, without the space before the first word,
                  "tokens": [{"id", "text", "logprob", "prob", "rank", "entropy", "piece": text it adds}, ...],
                  "seed": 0, "settings": {"temperature": 0.8, ...}, "chain": description of the settings,
                  "reason": "eos", "length", "stop", "cancelled" or "error", "tokens_per_second": 9000.0,
                  "model": name of the run, "unknown_tokens": [texts], "name": name of the branch,
                  "tokenizer": name of the tokenizer, "num_reread_tokens": number of the prompt's last tokens whose
                  characters the first token repeats}, ...]}
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InvalidInputError, printable
from engine.generation.generate import Done
from engine.storage.files import atomic_replace
from lotr_tui.formatting import describe_finish_reason, format_generation_speed, plural
from lotr_tui.session.export_path import ExportTarget, check_export_target
from lotr_tui.session.json_store import os_error_reason
from lotr_tui.session.saved_session import VERSION, SavedReply, SavedSession, join_pieces

if TYPE_CHECKING:
    from rich.text import Text

MAX_ANCESTORS = 100
"""Replies that are searched for the beginning of a line."""
SVG_COLUMNS = 80
SVG_CHAR_WIDTH, SVG_LINE_HEIGHT = 8.4, 20
"""Pixels of a character cell for a font of 14 pixels."""


@dataclass(frozen=True)
class _FormattedReply:
    """Reply as printable texts."""

    title: str
    prompt: tuple[str, ...]
    """Lines of the prompt that are not blank; empty if the reply has no prompt."""
    shared_text: str
    """Text of the parent before a branch."""
    text: str
    """Text of the reply, from the beginning of the word that it starts in."""
    footer: str
    """Seed, sampler settings, speed and end of the reply."""


def check_session_target(text: str) -> ExportTarget:
    """Return the file that a typed path names, whose ending chooses one of `EXPORTERS`.

    Raises:
        InvalidInputError: If the ending is another one, or nothing can be written there.
    """
    target = check_export_target(text, is_folder=False)
    _exporter_for(target.path)
    return target


def export_session(session: SavedSession, path: Path, *, replace: bool = False) -> None:
    """Write a session to a file in the format of the path's ending. Readers never see a part of it.

    Raises:
        InvalidInputError: If the ending is not one of `EXPORTERS`, the file exists and `replace` is False, or the file
            cannot be written.
    """
    content = _exporter_for(path)(session).encode()
    try:
        with atomic_replace(path, exclusive=not replace) as file:
            file.write(content)
    except FileExistsError as error:
        raise InvalidInputError(f"{path} exists already; choose another name") from error
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {os_error_reason(error)}; choose another folder") from error


def _exporter_for(path: Path) -> Callable[[SavedSession], str]:
    extension = path.suffix.lower().removeprefix(".")
    if extension not in EXPORTERS:
        raise InvalidInputError(f"{path.name} has no known ending; end it in .{' or .'.join(EXPORTERS)}")
    return EXPORTERS[extension]


def to_json(session: SavedSession) -> str:
    """Return the session as JSON, in the shape that the module describes."""
    record = {
        "format": "lotr-tui session",
        "version": VERSION,
        "name": session.name,
        "model": session.model,
        "started": session.started,
        "replies": [
            {
                **vars(reply),
                "tokens": [token._asdict() for token in reply.tokens],
                "settings": asdict(reply.settings),
                "text": reply.text,
                "chain": reply.settings.describe(),
            }
            for reply in session.replies
        ],
    }
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def to_markdown(session: SavedSession) -> str:
    """Return the session as Markdown: prompts as quotes, replies as paragraphs, footers in italics."""
    title, summary = _format_heading(session)
    blocks = [f"# {_escape_markdown(title)}", _escape_markdown(summary)]
    for reply in _format_replies(session):
        blocks.append(f"## {_escape_markdown(reply.title)}")
        if reply.prompt:
            blocks.append("\\\n".join(f"> {_escape_markdown(line)}" for line in reply.prompt))
        shared = f"*{_escape_markdown(reply.shared_text)}*" if reply.shared_text else ""
        if text := " ".join(filter(None, [shared, _escape_markdown(reply.text)])):
            blocks.append(text)
        blocks.append(f"*{_escape_markdown(reply.footer)}*")
    return "\n\n".join(blocks) + "\n"


def to_svg(session: SavedSession, columns: int = SVG_COLUMNS) -> str:
    """Return a picture of the transcript, `columns` characters wide, that needs nothing from the network."""
    from rich.cells import cell_len  # deferred: a session that is not exported does not need Rich's console
    from rich.console import Console
    from rich.text import Text

    title, summary = _format_heading(session)
    blocks = [(0, Text(title, "accent")), (0, Text(summary, "muted"))]
    for reply in _format_replies(session):
        separator = " " if reply.shared_text and reply.text else ""
        blocks += [(0, Text("")), (0, Text(reply.title, "muted"))]
        blocks += [
            (2 if index else 0, Text.assemble(("" if index else "❯ ", "accent"), (line, "prompt")))
            for index, line in enumerate(reply.prompt)
        ]
        blocks.append((2, Text.assemble((reply.shared_text, "muted"), separator, reply.text)))
        blocks.append((2, Text(reply.footer, "muted")))

    console = Console(file=io.StringIO())  # only breaks lines
    elements: list[str] = []
    row = 0
    for indent, block in blocks:
        for line in block.wrap(console, max(1, columns - indent)):
            line.rstrip()
            row += 1
            column = indent
            for text, style in _styled_segments(line):
                num_cells = cell_len(text)
                if text.strip():
                    x, y, length = column * SVG_CHAR_WIDTH, row * SVG_LINE_HEIGHT, num_cells * SVG_CHAR_WIDTH
                    position = f'x="{x:g}" y="{y}" textLength="{length:g}"'
                    elements.append(f'<text class="{style}" {position}>{escape(text, quote=False)}</text>')
                column += num_cells
    width, height = round(columns * SVG_CHAR_WIDTH) + 40, (row + 1) * SVG_LINE_HEIGHT + 20
    return _SVG_TEMPLATE.format(width=width, height=height, title=escape(title, quote=False), lines="\n".join(elements))


EXPORTERS: dict[str, Callable[[SavedSession], str]] = {"md": to_markdown, "json": to_json, "svg": to_svg}
"""Functions that export a session, by file extension."""

_SVG_TEMPLATE = """\
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


def _styled_segments(line: "Text") -> Iterator[tuple[str, str]]:
    """Yield the parts of a line that have one style each, and the name of the style."""
    edges = sorted({0, len(line), *(edge for span in line.spans for edge in (span.start, span.end))})
    for start, end in pairwise(edges):
        styles = [str(span.style) for span in line.spans if span.start <= start and end <= span.end]
        yield line.plain[start:end], styles[-1] if styles else str(line.style)


def _format_heading(session: SavedSession) -> tuple[str, str]:
    """Return the title of an export, and a line with the model, the time and the number of replies."""
    replies = plural(len(session.replies), "reply", "replies")
    started = f"{datetime.fromtimestamp(session.started):%Y-%m-%d %H:%M}"
    return printable(f"lotr-tui session {session.name}"), printable(f"{session.model} · {started} · {replies}")


def _format_replies(session: SavedSession) -> Iterator[_FormattedReply]:
    """Yield the replies in the order of their generation, numbered from 1."""
    numbers = {reply.id: number for number, reply in enumerate(session.replies, 1)}
    for reply in session.replies:
        title = [str(numbers[reply.id])]
        before, text = _text_before(session, reply), join_pieces(reply.tokens)
        if text and not text[0].isspace():
            word_start = len(before) - len(_last_word(before))
            before, text = before[:word_start], before[word_start:] + text
        shared_text = ""
        if reply.parent_id is not None:
            parent = session.replies_by_id[reply.parent_id]
            if reply.parent_offset == len(parent.tokens):
                title.append(f"continues {numbers[parent.id]}")
            else:
                title.append(f"branches off {numbers[parent.id]} after {plural(reply.parent_offset, reply.token_noun)}")
                shared_text = before
        if reply.name:
            title.append(reply.name)
        yield _FormattedReply(
            title=printable(" · ".join(title)),
            prompt=tuple(filter(None, (printable(line) for line in (reply.prompt or "").splitlines()))),
            shared_text=printable(shared_text),
            text=printable(text),
            footer=printable(" · ".join(_footer_parts(session, reply))),
        )


def _text_before(session: SavedSession, reply: SavedReply) -> str:
    """Return the tokens of the parent before a reply, or the last word of its prompt, from the start of a word on."""
    before = ""
    is_parent = True
    for _ in range(MAX_ANCESTORS):
        if reply.prompt is not None or reply.parent_id is None:
            return (_last_word(reply.prompt or "") if reply.reply_mode == "continue" else "") + before
        parent = session.replies_by_id[reply.parent_id]
        text = join_pieces(parent.tokens[: reply.parent_offset])
        added = text if is_parent else _last_word(text)
        before = added + before
        if before[:1].isspace() or added != text:
            break
        reply, is_parent = parent, False
    return before


def _last_word(text: str) -> str:
    """Return the word that a text ends in; empty if it ends in white space."""
    return "" if not text or text[-1].isspace() else text.rsplit(maxsplit=1)[-1]


def _footer_parts(session: SavedSession, reply: SavedReply) -> Iterator[str]:
    """Yield the parts of a reply's footer; the model is named if the session began with another one."""
    if reply.model != session.model:
        yield reply.model
    if reply.reply_mode == "reply":
        yield "reply"
    if reply.unknown_tokens:
        yield f"the model does not know: {', '.join(reply.unknown_tokens)}"
    yield f"seed {reply.seed}"
    yield reply.settings.describe()
    done = Done(reply.reason, reply.seed, len(reply.tokens), reply.tokens_per_second)
    if speed := format_generation_speed(done, reply.token_noun):
        yield speed
    yield describe_finish_reason(done, reply.token_noun)


_MARKDOWN_SPECIAL = re.compile(r"[\\`*_\[\]<>&~|#$@^]|(?<!\d):(?!\s|$)|(?i:(?<=www)\.)")
_MARKDOWN_LINE_START = re.compile(r"^(\d*)([-+=.)])")


def _escape_markdown(line: str) -> str:
    """Escape a printable line so that Markdown, also GitHub's, shows exactly its characters."""
    return _MARKDOWN_LINE_START.sub(r"\1\\\2", _MARKDOWN_SPECIAL.sub(r"\\\g<0>", line))
