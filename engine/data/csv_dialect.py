"""CSV dialects: detection of separator, header and escapes, and reading of rows that all have the same length."""

import csv
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import TextIO

from engine.data.file_scan import MAX_LINE_CHARACTERS
from engine.errors import CorpusError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", " ": "space"}
MAX_HEADER_CHARACTERS = 100_000
MAX_COLUMNS = 1_000
BLOCK_ROWS = 500
"""Rows that are read at once. In larger blocks, the garbage collector takes as much time as the parser."""

_LINE_END = re.compile(r"\r\n|\r|\n")
_END_OF_FILE = "\0"
"""Last line, added after an empty one: inside an open quote, both become part of a field. Text files have no NUL."""


@dataclass(frozen=True)
class CsvDialect:
    """The format of a CSV file."""

    separator: str
    header: tuple[str, ...]
    """All fields of the header."""
    columns: tuple[str, ...]
    """Names of the columns: the header without empty fields at its end."""
    has_escapes: bool
    r"""True if a quote inside quotes is written as `\"`; `""` stands for a quote in any dialect."""
    is_cut_at_commas: bool
    """True if a spreadsheet read a file with another separator as one with commas, and padded its lines with commas."""
    can_have_row_names: bool
    """True if a surplus first field is a row name, as R writes it, and not due to a separator in a text."""


def detect_dialect(beginning: str, text_column: str, after_escaped_quotes: Set[str], source: str) -> CsvDialect:
    r"""Return the dialect of a CSV file.

    The separator is the one that yields the text column, and among those the one that yields most columns.

    Args:
        beginning: First lines of the file.
        text_column: Name of the column of the utterances.
        after_escaped_quotes: All characters that follow `\"` in the file. If the backslash is an ordinary character,
            the quote ends a field or is doubled, so a quote, a separator or a line end follows.
        source: Path of the file, for error messages.

    Raises:
        CorpusError: If the header has no text column, or is too long.
    """
    lines = (line for line in _LINE_END.split(beginning) if line.strip())
    header_line, first_row = next(lines, "")[: MAX_HEADER_CHARACTERS + 1], next(lines, "")
    dialects = []
    for separator in SEPARATORS:
        is_cut_at_commas = separator != "," and header_line.endswith(",")
        line = header_line.rstrip(",") if is_cut_at_commas else header_line
        header = next(csv.reader([line], delimiter=separator), [])
        num_columns = max((number for number, name in enumerate(header, 1) if name), default=0)
        dialects.append(
            CsvDialect(
                separator,
                header=tuple(header),
                columns=tuple(header[:num_columns]),
                has_escapes=not after_escaped_quotes <= {'"', separator, "\r", "\n"},
                is_cut_at_commas=is_cut_at_commas,
                can_have_row_names=first_row.startswith('"') or separator == "\t",
            )
        )
    dialect = max(dialects, key=lambda dialect: (text_column in dialect.columns, len(dialect.columns)))
    if not text_column or text_column not in dialect.columns:
        names = ", ".join([name[:40] for name in dialect.columns if name][:20]) or "none"
        raise CorpusError(f"{source} has no column {text_column!r}; its columns: {names}. Name one with --text-column")
    if len(header_line) > MAX_HEADER_CHARACTERS or len(dialect.header) > MAX_COLUMNS:
        raise CorpusError(
            f"{source} has a header of over {MAX_HEADER_CHARACTERS:,} characters or {MAX_COLUMNS:,} columns; use --text"
        )
    return dialect


def read_columns(file: TextIO, dialect: CsvDialect, names: Sequence[str], source: str) -> Iterator[list[list[str]]]:
    """Yield blocks of some columns of a CSV file: one list `[rows]` for each of `names`. Blank lines are skipped.

    `file` was opened with `newline=""`; `source` is its path, for error messages.

    Raises:
        CorpusError: If the rows have different lengths, or a quote is not closed.
        UnicodeDecodeError: If the file cannot be decoded.
    """
    csv.field_size_limit(MAX_LINE_CHARACTERS)  # of the whole process; the default is 131,072
    lines: Iterator[str] = chain(file, ["\n", _END_OF_FILE])
    if dialect.is_cut_at_commas:
        lines = (",".join(cells).rstrip(",") for cells in csv.reader(lines))
    reader = csv.reader(lines, delimiter=dialect.separator, escapechar="\\" if dialect.has_escapes else None)
    layout: _RowLayout | None = None
    try:
        header = next((row for row in reader if not _is_blank(row)), [])
        if tuple(header) != dialect.header:
            raise CorpusError(
                f"{source} is not a regular CSV: a quote in its header ends on another line; fix it, or use --text"
            )
        first_line = reader.line_num + 1
        while block := _read_block(reader):
            if block[-1] and _END_OF_FILE in block[-1][-1]:
                last_row = block.pop()
                if last_row != [_END_OF_FILE]:
                    line = first_line + sum(map(_count_lines, block))
                    raise CorpusError(
                        f"{source} is not a regular CSV: a quote on line {line} is never closed; close it"
                    )
            if layout is None:
                layout = _detect_layout(block, dialect)
            rows = layout.check_rows(block, first_line, source)
            fields = [layout.first_column + dialect.columns.index(name) for name in names]
            yield [list(map(itemgetter(field), rows)) for field in fields]
            first_line = reader.line_num + 1
    except csv.Error as error:
        if "field limit" in str(error):
            raise CorpusError(
                f"{source} has an utterance of over {MAX_LINE_CHARACTERS:,} characters before line {reader.line_num}; "
                "shorten it, or close its quote"
            ) from error
        raise CorpusError(f"{source} is not a regular CSV: line {reader.line_num}: {error}; fix that line") from error


def _read_block(reader: Iterator[list[str]]) -> list[list[str]]:
    """Return the next rows: `BLOCK_ROWS`, or fewer up to a row of more fields than any table has."""
    block = []
    for row in reader:
        block.append(row)
        if len(block) == BLOCK_ROWS or len(row) > MAX_COLUMNS + 1:
            break
    return block


@dataclass(frozen=True)
class _RowLayout:
    """Number and meaning of the fields of every row."""

    length: int
    first_column: int
    """Field of the first column: 1 after a row name."""
    num_fields: int
    """Number of fields that can have text; those after it only separate."""
    expectation: str
    """Reason for the length, for error messages."""
    separator: str

    def check_rows(self, rows: list[list[str]], first_line: int, source: str) -> list[list[str]]:
        """Return `rows` without blank lines. The first row of another length raises a CorpusError with its line."""
        if set(map(len, rows)) == {self.length} and (
            self.num_fields == self.length or not any(any(row[self.num_fields :]) for row in rows)
        ):
            return rows
        kept, line = [], first_line
        for row in rows:
            if len(row) == self.length and not any(row[self.num_fields :]):
                kept.append(row)
            elif not _is_blank(row):
                is_surplus_filled = len(row) == self.length
                expectation = f"the header has {self.num_fields}" if is_surplus_filled else self.expectation
                raise CorpusError(
                    f"{source} is not a regular CSV: line {line} has {len(row)} fields, but {expectation}; put "
                    f"quotes around a text that contains a {SEPARATORS[self.separator]} or a line end, or use --text"
                )
            line += _count_lines(row)
        return kept


def _detect_layout(block: list[list[str]], dialect: CsvDialect) -> _RowLayout:
    """Return the layout of the rows of a file, judged by its first rows."""
    rows = [row for row in block if not _is_blank(row)]
    length, num_columns = len(rows[0]) if rows else 0, len(dialect.header)
    has_row_names = length == num_columns + 1 and dialect.can_have_row_names and all(row[0].isdigit() for row in rows)
    expectation = f"the header has {num_columns}"
    if has_row_names and any(row[-1] for row in rows):
        return _RowLayout(length, 1, length, f"{expectation} and a row name", dialect.separator)
    if length != num_columns and len(dialect.columns) <= length and not any(rows[0][num_columns:]):
        expectation = f"the first row has {length}"
        return _RowLayout(length, 0, min(length, num_columns), expectation, dialect.separator)
    return _RowLayout(num_columns, 0, num_columns, expectation, dialect.separator)


def _is_blank(row: list[str]) -> bool:
    """Return True for a line without text or separator."""
    return len(row) < 2 and not "".join(row).strip()


def _count_lines(row: list[str]) -> int:
    return 1 + sum(len(_LINE_END.findall(field)) for field in row)
