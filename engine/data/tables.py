"""Tables of utterances as people have them: CSV in several dialects, also of R, and lines of JSON.

The header tells the separator: `csv.Sniffer` counts the marks of a sample, and the commas of a text mislead it.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

from engine.config import DataConfig
from engine.data.scripts import Utterance
from engine.errors import ColumnError, CorpusError, InvalidInputError, printable
from engine.storage.files import decode, parse_json

MAX_LINE_CHARACTERS = 1_000_000
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", " ": "blank", "": "none (JSON lines)"}
TEXT_COLUMNS = ("dialog", "dialogue", "text", "line", "utterance", "quote")
SPEAKER_COLUMNS = ("char", "character", "speaker", "name", "who")
SCENE_COLUMNS = ("movie",)
"""Usual names, in any case. The first is the default, which others stand for where it is missing."""
MAX_COLUMNS = 1000  # columns of an object or a question
PREVIEW_ROWS, MAX_CELL_CHARACTERS = 3, 30  # of a column in a question


def check_line_lengths(lines: Iterable[str], source: str) -> None:
    """Raise a CorpusError if a line of the text `source` is too long."""
    if max(map(len, lines), default=0) > MAX_LINE_CHARACTERS:
        problem = f"a line of over {MAX_LINE_CHARACTERS:,} characters; put one utterance on a line"
        raise CorpusError(f"{source} has {problem}")


def read_table(
    stream: io.TextIOWrapper, content: bytes, path: str, config: DataConfig
) -> tuple[str, Iterator[Utterance]]:
    """Return the name of the separator, and the utterances of a table, which is decoded and as bytes.

    A table whose columns are not clear raises a ColumnError, and another text a CorpusError, also while it is read.
    """
    csv.field_size_limit(MAX_LINE_CHARACTERS)  # of the whole process; the default is 131,072
    first = next((line for line in stream if line.strip()), "")
    check_line_lengths([first], path)
    stream.seek(0)
    separator = _find_separator(first, config.text_column)
    rows = _csv_rows(stream, content, path, separator, first) if separator else _json_rows(stream, path)
    header = next(rows, [])
    text = _find_column(header, config.text_column, TEXT_COLUMNS)
    if text is None:
        problem = f"{path} has no text column {config.text_column!r}, or several"
        raise _column_error("text_column", problem, f"read plain text with --text {path}", header, rows)
    speaker = _find_column(header, config.speaker_column, SPEAKER_COLUMNS)
    if speaker == text:
        speaker = None
    is_dialogue = config.mode == "dialogue"
    is_misnamed = config.speaker_column not in ("", SPEAKER_COLUMNS[0], *header)
    if speaker is None and (is_dialogue or is_misnamed):
        problem = f"{path} has no speaker column {config.speaker_column!r}, or several"
        remedy = "use --mode line, which needs no speakers" if is_dialogue else "leave the option out"
        raise _column_error("speaker_column", problem, remedy, header, rows)
    scene = _find_column(header, config.scene_column, SCENE_COLUMNS)
    return SEPARATORS[separator], _read_utterances(rows, text, speaker, scene)


def _find_separator(header: str, text_column: str) -> str:
    if header.lstrip().startswith("{"):
        return ""
    if '" "' in header:  # of R
        return " "

    def fitness(separator: str) -> tuple[bool, int]:
        names = next(csv.reader([header], delimiter=separator), [])
        return _find_column(names, text_column, TEXT_COLUMNS) is not None, len(names)

    return max(",;\t", key=fitness)


def _find_column(header: Sequence[str], chosen: str, usual_names: Sequence[str]) -> int | None:
    """Return the place of a column, counted from the end, since rows of R begin with a number; None if not clear."""
    if chosen and chosen in header:
        return header.index(chosen) - len(header)
    places = [place for place, name in enumerate(header, -len(header)) if name.strip().casefold() in usual_names]
    return places[0] if len(places) == 1 and chosen == usual_names[0] else None


def _column_error(
    setting: str, problem: str, remedy: str, header: Sequence[str], rows: Iterator[Sequence[str]]
) -> CorpusError:
    preview = list(islice(rows, PREVIEW_ROWS))
    answers = []
    for place, name in enumerate(header[:MAX_COLUMNS], -len(header)):
        if name:
            cells = " · ".join(row[place][:MAX_CELL_CHARACTERS] for row in preview)
            answers.append((printable(f"{name[:MAX_CELL_CHARACTERS]}: {cells}"), name))
    names = ", ".join([name[:40] for _, name in answers[:20]]) or "none"
    message = f"{problem}; its columns: {names}; name one with --{setting.replace('_', '-')}, or {remedy}"
    return ColumnError(message, setting, answers) if len(answers) > 1 else CorpusError(message)


def _csv_rows(stream: io.TextIOWrapper, content: bytes, path: str, separator: str, first: str) -> Iterator[list[str]]:
    """Yield the header, which begins with the line `first`, and the rows."""
    # After an ordinary backslash, a quote ends a field or is doubled, so a quote, a separator or a line end follows.
    has_escapes = re.search(rb'\\"[^"\r\n' + separator.encode() + rb"]", content)
    reader = csv.reader(stream, delimiter=separator, escapechar="\\" if has_escapes else None, strict=True)
    has_numbers = first.startswith('"') or separator == "\t"  # R numbers the rows, without a name in the header
    line, num_rows, num_fields = 1, 0, 0  # line where the row begins, rows before it, and fields of a row
    try:
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                if num_rows == 0 or (num_rows == 1 and has_numbers and len(row) == num_fields + 1):
                    num_fields = len(row)
                if len(row) != num_fields:
                    raise CorpusError(
                        f"{path} is not a regular CSV: line {line} has {len(row)} fields, but the header has "
                        f"{num_fields}; put quotes around a text that contains a {SEPARATORS[separator]} or a "
                        "line end, or use --text"
                    )
                num_rows += 1
                yield row
            line = reader.line_num + 1
    except csv.Error as error:
        problem = f"is not a regular CSV: the row on line {line}: {error}; close its quotes, or shorten its text"
        raise CorpusError(f"{path} {problem}") from error


def _json_rows(stream: io.TextIOWrapper, path: str) -> Iterator[list[str]]:
    """Yield the keys of the first object, and the values of all objects for them."""
    keys: list[str] = []
    for number, line in enumerate(stream, 1):
        if line.strip():
            check_line_lengths([line], path)
            try:
                record = decode(dict[str, Any], parse_json(line))
            except InvalidInputError as error:
                raise CorpusError(f"{path}: line {number} is no JSON object; write one object per line") from error
            if not keys:
                keys = list(record)[:MAX_COLUMNS]
                yield keys
            values = map(record.get, keys)
            yield [str(value) if isinstance(value, str | int | float) else "" for value in values]


def _read_utterances(
    rows: Iterable[Sequence[str]], text: int, speaker: int | None, scene: int | None
) -> Iterator[Utterance]:
    scenes = groupby(rows, key=lambda row: "" if scene is None else row[scene].strip())
    for section, (_, scene_rows) in enumerate(scenes):
        for row in scene_rows:
            yield Utterance(row[text], "" if speaker is None else row[speaker], section)
