"""Export of a saved session as text, Markdown, JSON and SVG, without markup or control characters from its texts.

Conversations with speakers read like a script, except in JSON, which has all replies and their figures. The JSON has
this shape (figures that are not finite are null):

    {"format": "lotr-tui session", "version": 5, "name": ..., "model": ..., "started": Unix time in seconds,
     "replies": [{"id": 0, "parent_id": id or null, "parent_offset": number of the parent's tokens before this reply,
                  "prompt": text or null, "reply_mode": "conversation", "continue" or "reply",
                  "text": pieces of the tokens, without the space before the first word,
                  "tokens": [{"id", "text", "logprob", "prob", "rank", "entropy", "piece": text it adds}, ...],
                  "seed": 0, "settings": {"temperature": 0.8, ...}, "chain": description of the settings,
                  "reason": "eos", "length", "stop", "cancelled" or "error", "tokens_per_second": 9000.0,
                  "model": name of the run, "unknown_tokens": [texts], "name": name of the branch,
                  "tokenizer": name of the tokenizer, "num_reread_tokens": number of the prompt's last tokens whose
                  characters the first token repeats,
                  "speaking_as": speaker of the prompt, "speaker": speaker of the reply,
                  "speaker_prob": probability of a speaker that the model chose, or null,
                  "score": null, or {"rank": place among the "num_answers" answers of the turn, "log_prob": with its
                  context, "log_prob_alone": without, "num_tokens": scored tokens},
                  "system_prompt": text that told a model with a chat template who it is}, ...]}
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InvalidInputError
from engine.storage.files import atomic_replace
from lotr_tui.session.export_path import ExportTarget, check_export_target
from lotr_tui.session.formatted_replies import format_heading, format_replies
from lotr_tui.session.json_store import os_error_reason
from lotr_tui.session.saved_session import VERSION, SavedSession
from lotr_tui.session.script import ScriptLine, read_scenes, to_text

if TYPE_CHECKING:
    from rich.text import Text

SVG_COLUMNS = 80
SVG_CHAR_WIDTH, SVG_LINE_HEIGHT = 8.4, 20
"""Pixels of a character cell for a font of 14 pixels."""


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
                "score": None if reply.score is None else asdict(reply.score),
                "text": reply.text,
                "chain": reply.settings.describe(),
            }
            for reply in session.replies
        ],
    }
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def to_markdown(session: SavedSession) -> str:
    """Return the session as Markdown: a script, or prompts as quotes, replies as paragraphs, footers in italics."""
    title, summary = format_heading(session)
    blocks = [f"# {_escape_markdown(title)}", _escape_markdown(summary)]
    scenes = [scene for scene in read_scenes(session) if scene.has_speakers]
    for number, scene in enumerate(scenes, 1):
        blocks += [f"## Scene {number}"] if len(scenes) > 1 else []
        blocks += map(_markdown_line, scene.lines)
        if scene.other_answers:
            blocks += ["### Other answers", *map(_markdown_line, scene.other_answers)]
    for reply in format_replies(session, set().union(*(scene.reply_ids for scene in scenes))):
        blocks.append(f"## {_escape_markdown(reply.title)}")
        if reply.prompt:
            blocks.append("\\\n".join(f"> {_escape_markdown(line)}" for line in reply.prompt))
        shared = f"*{_escape_markdown(reply.shared_text)}*" if reply.shared_text else ""
        if text := " ".join(filter(None, [shared, _escape_markdown(reply.text)])):
            blocks.append(text)
        blocks.append(f"*{_escape_markdown(reply.footer)}*")
    return "\n\n".join(blocks) + "\n"


def _markdown_line(line: ScriptLine) -> str:
    """Return a line of a script as a paragraph with the name in bold."""
    text = _escape_markdown(line.text)
    return f"**{_escape_markdown(line.speaker)}:** {text}" if line.speaker else text


def to_svg(session: SavedSession, columns: int = SVG_COLUMNS) -> str:
    """Return a picture of the transcript, `columns` characters wide, that needs nothing from the network."""
    from rich.cells import cell_len  # deferred: a session that is not exported does not need Rich's console
    from rich.console import Console
    from rich.text import Text

    title, summary = format_heading(session)
    blocks = [(0, Text(title, "accent")), (0, Text(summary, "muted"))]
    scenes = [scene for scene in read_scenes(session) if scene.has_speakers]
    for scene in scenes:
        blocks.append((0, Text("")))
        blocks += [
            (0, Text.assemble((f"{line.speaker}: " if line.speaker else "", "prompt"), line.text))
            for line in scene.lines
        ]
    for reply in format_replies(session, set().union(*(scene.reply_ids for scene in scenes))):
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


EXPORTERS: dict[str, Callable[[SavedSession], str]] = {
    "md": to_markdown,
    "txt": to_text,
    "json": to_json,
    "svg": to_svg,
}
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


_MARKDOWN_SPECIAL = re.compile(r"[\\`*_\[\]<>&~|#$@^]|(?<!\d):(?!\s|$)|(?i:(?<=www)\.)")
_MARKDOWN_LINE_START = re.compile(r"^(\d*)([-+=.)])")


def _escape_markdown(line: str) -> str:
    """Escape a printable line so that Markdown, also GitHub's, shows exactly its characters."""
    return _MARKDOWN_LINE_START.sub(r"\1\\\2", _MARKDOWN_SPECIAL.sub(r"\\\g<0>", line))
