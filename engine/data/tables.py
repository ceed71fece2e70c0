"""Tables of utterances as people have them: CSV in several dialects, also of R, and lines of JSON.

The header tells the separator: `csv.Sniffer` counts the marks of a sample, and the commas of a text mislead it.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from engine.config import DataConfig
from engine.data.screenplays import FOUNTAIN_SUFFIX
from engine.data.scripts import Utterance
from engine.errors import Column, ColumnError, CorpusError, InvalidInputError
from engine.storage.files import parse_json

MAX_LINE_CHARACTERS = 1_000_000
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", " ": "blank"}
JSON_LINES = "none (JSON lines)"
TEXT_COLUMNS = ("dialog", "dialogue", "text", "line", "utterance", "quote")
SPEAKER_COLUMNS = ("char", "character", "speaker", "name", "who")
"""Usual names, in any case. The first is the default, which others stand for where it is missing."""
PREVIEW_ROWS = 3
KEY_RECORDS, MAX_COLUMNS = 20, 1000  # records of JSON whose keys are the columns, and columns that are named

_QUOTED_HEADER = re.compile(r'"[^"]*"(?: +"[^"]*")+\s*')  # of R, with blanks between the columns


def read_table(
    stream: io.TextIOWrapper, content: bytes, path: str, config: DataConfig
) -> tuple[str, Iterator[Utterance]]:
    """Return the name of the separator, and the utterances of a table, which is decoded and as bytes.

    A table whose columns are not clear raises a ColumnError, and another text a CorpusError, also while it is read.
    """
    csv.field_size_limit(MAX_LINE_CHARACTERS)  # of the whole process; the default is 131,072
    first = next((line for line in stream if line.strip()), "")
    if len(first) > MAX_LINE_CHARACTERS:
        raise CorpusError(f"{path} has a first line of {len(first):,} characters, which is no header; use another file")
    stream.seek(0)
    if first.lstrip().startswith("{"):
        form, rows = JSON_LINES, _json_rows(stream, path, config.scene_column)
    else:
        separator = _find_separator(first, config.text_column)
        form, rows = SEPARATORS[separator], _csv_rows(stream, content, path, separator, first)
    header = next(rows, [])
    preview: list[list[str]] = []
    problem: CorpusError | None = None  # in the first rows; a problem with the columns is raised first
    try:
        preview.extend(islice(rows, PREVIEW_ROWS))
    except CorpusError as error:
        problem = error
    if preview and len(preview[0]) > len(header):
        header = ["", *header]
    text, speaker = _find_columns(header[:MAX_COLUMNS], preview, path, config)
    if problem is not None:
        raise problem
    scene = header.index(config.scene_column) if config.scene_column in filter(None, header) else None
    return form, _read_utterances(chain(preview, rows), text, speaker, scene)


def _find_separator(header: str, text_column: str) -> str:
    if _QUOTED_HEADER.fullmatch(header):
        return " "

    def fitness(separator: str) -> tuple[bool, bool, int]:
        names = next(csv.reader([header], delimiter=separator), [])
        return text_column in names, bool(_named(names, TEXT_COLUMNS)), len(names)

    return max([each for each in SEPARATORS if each != " "], key=fitness)


def _csv_rows(stream: io.TextIOWrapper, content: bytes, path: str, separator: str, first: str) -> Iterator[list[str]]:
    """Yield the header, which begins with the line `first`, and the rows."""
    # After an ordinary backslash, a quote ends a field or is doubled, so a quote, a separator or a line end follows.
    has_escapes = separator == " " or re.search(rb'\\"[^"\r\n' + separator.encode() + rb"]", content)
    reader = csv.reader(stream, delimiter=separator, escapechar="\\" if has_escapes else None, strict=True)
    names_rows = first.lstrip().startswith('"') or separator == "\t"  # R numbers the rows, without a name in the header
    line, num_rows, num_fields = 1, 0, 0  # line where the row begins, rows before it, and fields of a row
    try:
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                if len(row) != num_fields:
                    is_named = num_rows == 1 and names_rows and len(row) == num_fields + 1
                    if num_rows and not is_named:
                        raise CorpusError(
                            f"{path} is not a regular CSV: line {line} has {len(row)} fields, but the header has "
                            f"{num_fields}; put quotes around a text that contains a {SEPARATORS[separator]} or a "
                            "line end, or use --text"
                        )
                    num_fields = len(row)
                num_rows += 1
                yield row
            line = reader.line_num + 1
    except csv.Error as error:
        problem = f"is not a regular CSV: the row on line {line}: {error}; close its quotes, or shorten its text"
        raise CorpusError(f"{path} {problem}") from error


def _json_rows(stream: io.TextIOWrapper, path: str, scene_column: str) -> Iterator[list[str]]:
    """Yield the keys of the first objects, and the values of all objects for them."""
    records = _json_records(stream, path, scene_column)
    first = list(islice(records, KEY_RECORDS))
    keys = list(dict.fromkeys(chain.from_iterable(first)))[:MAX_COLUMNS]
    yield keys
    for record in chain(first, records):
        values = map(record.get, keys)
        yield [str(value) if isinstance(value, str | int | float) else "" for value in values]


def _json_records(stream: io.TextIOWrapper, path: str, scene_column: str) -> Iterator[dict[str, Any]]:
    """Yield the object of each line; of a chat, each message, and the line is its scene."""
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            record = parse_json(line) if len(line) <= MAX_LINE_CHARACTERS else None
        except InvalidInputError:
            record = None
        if not isinstance(record, dict):
            limit = f"at most {MAX_LINE_CHARACTERS:,} characters"
            raise CorpusError(f"{path}: line {number} is no JSON object of {limit}; write one object per line")
        if not isinstance(messages := record.get("messages"), list):
            yield record
            continue
        for message in messages:
            if isinstance(message, dict):
                content, role = message.get("content"), message.get("role")
                yield {TEXT_COLUMNS[0]: content, SPEAKER_COLUMNS[0]: role, scene_column: number}


def _find_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], path: str, config: DataConfig
) -> tuple[int, int | None]:
    """Return the places of texts and speakers, or raise a ColumnError. Only a dialogue needs speakers."""
    texts = _candidates(header, config.text_column, TEXT_COLUMNS)
    if len(texts) != 1:
        is_text = len(header) < 2 or path.lower().endswith((".txt", FOUNTAIN_SUFFIX))
        remedy = f", or read plain text with --text {path}" if is_text else ""
        raise _unclear_column("text_column", config.text_column, header, rows, path, remedy)
    speakers = _candidates(header, config.speaker_column, SPEAKER_COLUMNS)
    if len(speakers) == 1 and speakers != texts:
        return texts[0], speakers[0]
    if config.mode == "dialogue":
        remedy = ", or use --mode line, which needs no speakers"
        raise _unclear_column("speaker_column", config.speaker_column, header, rows, path, remedy)
    return texts[0], None


def _unclear_column(
    setting: str, chosen: str, header: Sequence[str], rows: Sequence[Sequence[str]], path: str, remedy: str
) -> CorpusError:
    names = ", ".join([name[:40] for name in header if name][:20]) or "none"
    what, option = setting.removesuffix("_column"), setting.replace("_", "-")
    problem = f"{path} has no {what} column {chosen!r}, or several; its columns: {names}"
    message = f"{problem}; name one with --{option}{remedy}"
    columns = tuple(Column(name, tuple(row[place] for row in rows)) for place, name in enumerate(header) if name)
    return ColumnError(message, setting, columns) if len(columns) > 1 else CorpusError(message)


def _candidates(header: Sequence[str], chosen: str, usual_names: Sequence[str]) -> list[int]:
    if chosen and chosen in header:
        return [header.index(chosen)]
    return _named(header, usual_names) if chosen == usual_names[0] else []


def _named(header: Sequence[str], names: Sequence[str]) -> list[int]:
    return [place for place, name in enumerate(header) if name.strip().casefold() in names]


def _read_utterances(
    rows: Iterable[Sequence[str]], text: int, speaker: int | None, scene: int | None
) -> Iterator[Utterance]:
    section, scene_before = 0, ""
    for row in rows:
        if scene is not None and (name := row[scene].strip()) != scene_before:
            section += 1
            scene_before = name
        yield Utterance(row[text], "" if speaker is None else row[speaker], section)
