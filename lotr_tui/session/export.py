"""Export of a session as text, Markdown and JSON, without markup or control characters from its texts.

Text and Markdown read like a script. The JSON has all replies and their figures (null if not finite):

    {"format": "lotr-tui session", "version": 5, "name": ..., "model": ..., "started": Unix time in seconds,
     "replies": [{"text": of the tokens, "chain": description of the settings, "tokens": [{"id", "text", "logprob",
                  "prob", "rank", "entropy", "piece": text it adds}, ...], and the other fields of `Reply`}, ...]}
"""

import json
import os
import re
from collections.abc import Callable
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple

from engine.data.speakers import MAX_NAME_CHARACTERS, SOMEONE, STRANGER, display_name
from engine.errors import InvalidInputError, printable
from engine.storage.files import atomic_replace
from lotr_tui.formatting import describe_strengths
from lotr_tui.session.reply import Reply, Turn
from lotr_tui.session.session_file import VERSION, Session
from lotr_tui.session.settings import os_error_reason

_MARKDOWN_SPECIAL = re.compile(r"[\\`*_\[\]<>&~|#$@^]|(?<!\d):(?!\s|$)|(?i:(?<=www)\.)")
_MARKDOWN_LINE_START = re.compile(r"^(\d*)([-+=.)])")


class Scene(NamedTuple):
    """Replies with one beginning."""

    turns: list[Reply]  # of the visible path
    other_answers: list[Reply]  # in other branches, without answers drawn with a better one, never shown


def read_scenes(session: Session) -> list[Scene]:
    """Return the scenes of a session in the order of their beginnings."""
    by_root: dict[Turn, list[Reply]] = {}
    for reply in session.replies.values():
        by_root.setdefault(reply.path()[0].turn, []).append(reply)
    scenes = []
    for replies in by_root.values():
        shown = [reply for reply in replies if reply.score is None or reply.score.rank == 1]
        turns = next((reply for reply in replies if reply.id == session.current_id), (shown or replies)[-1]).path()
        seen = {*turns, *(reply.parent for reply in replies if reply.is_continuation)}
        scenes.append(Scene(turns, [reply for reply in shown if reply not in seen]))
    return scenes


def script_lines(reply: Reply) -> list[tuple[str, str]]:
    """Return the speakers (empty in a text without them) and the texts of the prompt, if any, and of the answer."""
    (prompt, text), speaker = reply.said(), display_name(reply.speaker)
    is_dialogue = reply.reply_mode == "conversation"
    if is_dialogue and not speaker:
        is_chat = reply.tokenizer == "pretrained"
        speaker = printable(reply.model)[:MAX_NAME_CHARACTERS] if is_chat else display_name(SOMEONE)
    lines = [(display_name(reply.speaking_as or STRANGER) if is_dialogue else "", prompt), (speaker, text)]
    return [(name, line) for name, line in ((name, printable(line)) for name, line in lines) if line]


def to_text(session: Session) -> str:
    """Return the visible lines of a session as a script, on which a model can be trained."""
    scenes = [[line for turn in scene.turns for line in script_lines(turn)] for scene in read_scenes(session)]
    return "\n".join("".join(f"{name}: {text}\n" if name else f"{text}\n" for name, text in lines) for lines in scenes)


def to_markdown(session: Session) -> str:
    """Return the lines of a session as paragraphs with the names in bold, and below them the other answers."""
    started = f"{datetime.fromtimestamp(session.started):%Y-%m-%d %H:%M}"
    blocks = [f"# {_escape(f'lotr-tui session {session.name}')}", _escape(f"{session.model} · {started}")]
    scenes = read_scenes(session)
    for number, scene in enumerate(scenes, 1):
        blocks += [f"## Scene {number}"] if len(scenes) > 1 else []
        for turn in scene.turns:
            blocks += [_markdown_line(*line) for line in script_lines(turn)]
            figures = [f"seed {turn.seed}", describe_strengths(turn.strengths), turn.settings.describe()]
            blocks.append(f"*{_escape(' · '.join(filter(None, figures)))}*")
        blocks += ["### Other answers"] if scene.other_answers else []
        blocks += [_markdown_line(*line) for reply in scene.other_answers for line in script_lines(reply)[-1:]]
    return "\n\n".join(blocks) + "\n"


def _markdown_line(speaker: str, text: str) -> str:
    return f"**{_escape(speaker)}:** {_escape(text)}" if speaker else _escape(text)


def _escape(text: str) -> str:
    """Return a text on one line, of which Markdown, also GitHub's, shows exactly the characters."""
    return _MARKDOWN_LINE_START.sub(r"\1\\\2", _MARKDOWN_SPECIAL.sub(r"\\\g<0>", printable(text)))


def to_json(session: Session) -> str:
    replies = []
    for reply in session.replies.values():
        tokens = [token._asdict() for token in reply.own_tokens]
        text = "".join(token.piece for token in reply.own_tokens).removeprefix(" ")
        replies.append(reply.record() | {"tokens": tokens, "text": text, "chain": reply.settings.describe()})
    record = {"format": "lotr-tui session", "version": VERSION, "name": session.name, "model": session.model}
    return json.dumps(record | {"started": session.started, "replies": replies}, indent=1, allow_nan=False) + "\n"


def exporter_for(path: Path) -> Callable[[Session], str]:
    """Return the function that exports a session in the format of a path's ending, or raise an InvalidInputError."""
    exporters: dict[str, Callable[[Session], str]] = {".md": to_markdown, ".txt": to_text, ".json": to_json}
    if path.suffix.lower() not in exporters:
        raise InvalidInputError(f"{path.name} has no known ending; end it in {' or '.join(exporters)}")
    return exporters[path.suffix.lower()]


def export_session(session: Session, path: Path, *, replace: bool = False) -> None:
    """Write a session in the format of the path's ending, see `write_export`."""
    write_export(path, exporter_for(path)(session), replace=replace)


def write_export(path: Path, text: str, *, replace: bool) -> None:
    """Write the text of an export, or raise an InvalidInputError. Readers never see a part."""
    try:
        with atomic_replace(path, exclusive=not replace) as file:
            file.write(text.encode())
    except FileExistsError as error:
        raise InvalidInputError(f"{path} exists already; choose another name") from error
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {os_error_reason(error)}; choose another folder") from error


# Paths that the user types for an export


class ExportTarget(NamedTuple):
    """Absolute path that an export can be written to, and what to ask before."""

    path: Path  # without links, so that a linked file is replaced and not its link
    exists: bool  # True if a file would be replaced
    missing_folder: Path | None  # to create first


def suggest_export_path(folder: Path, name: str) -> Path:
    """Return a path that does not exist: `name` with a number, in `folder` or, if that is gone, the current one."""
    folder = folder if os.path.isdir(folder) else current_folder()  # noqa: PTH112 - Path.is_dir may raise
    suffix = Path(name).suffix
    names = (name if number == 1 else f"{name.removesuffix(suffix)}-{number}{suffix}" for number in count(1))
    return next(path for path in (folder / name for name in names) if not os.path.lexists(path))


def current_folder() -> Path:
    """Return the working directory, or the home folder if the working directory was deleted."""
    try:
        return Path.cwd()
    except OSError:
        return Path.home()


def check_session_target(text: str) -> ExportTarget:
    """Return the file that a typed path names, as `check_export_target` does; its ending chooses an exporter."""
    target = check_export_target(text, is_folder=False)
    exporter_for(target.path)
    return target


def check_export_target(text: str, *, is_folder: bool) -> ExportTarget:
    """Return the file that a typed path names, or with `is_folder` the new or empty folder, unless it is unusable."""
    text = text.strip()
    if not text:
        raise InvalidInputError("type a path, or press esc")
    try:
        path = Path(text).expanduser().resolve()
        exists, is_directory = path.exists(), path.is_dir()
        is_empty = not is_directory or not any(path.iterdir())
    except OSError as error:
        raise InvalidInputError(f"{text} cannot be used: {os_error_reason(error)}; choose another path") from error
    except (RuntimeError, ValueError) as error:  # an unknown user, a zero byte, a lone surrogate
        raise InvalidInputError(f"{text} is not a path; choose another path") from error
    folder, problem = path if is_folder and is_directory else path.parent, ""
    if is_folder and exists and not is_directory:
        problem = "is a file; choose a new folder"
    elif is_folder and not is_empty:
        problem = "is not empty, and nothing in it is replaced; choose a new folder"
    elif not is_folder and (text.endswith(os.sep) or is_directory):
        problem = "is a folder; add the name of a file"
    elif not is_folder and exists and not path.is_file():
        problem = "is not a regular file; choose another path"
    if problem:
        raise InvalidInputError(f"{path} {problem}")
    return ExportTarget(path, not is_folder and exists, None if folder.exists() else folder)
