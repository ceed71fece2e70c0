"""Text in: a CSV or plain text becomes clean lines, and these a train, valid and test split."""

import csv
import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from engine.errors import CorpusError

MAX_LINE_CHARACTERS = 1_000_000
MAX_HEADER_CHARACTERS = 100_000
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", " ": "space"}

_WHITE_SPACE = re.compile(r"\s+")
_LINE_END = re.compile(r"[\r\n]")
_BOM = b"\xef\xbb\xbf"
_BYTES_ABSENT_FROM_CP1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")


@dataclass(frozen=True)
class Line:
    """One utterance, cleaned up, and who speaks it (empty where the source does not say)."""

    text: str
    speaker: str = ""


@dataclass(frozen=True)
class Corpus:
    """All usable lines of a source, in file order, and how the file was understood."""

    source: str
    lines: tuple[Line, ...]
    rows: int
    """Rows of the file before the clean-up."""
    encoding: str
    separator: str
    """Name of the CSV separator, or "none" for plain text."""
    sha256: str
    """Of the file's bytes, so that an evaluation can tell that it reads what was trained on."""


@dataclass(frozen=True)
class Split:
    """The three parts of a corpus; every line is in exactly one."""

    train: tuple[Line, ...]
    valid: tuple[Line, ...]
    test: tuple[Line, ...]


def read_csv(path: Path, text_column: str, speaker_column: str, min_characters: int) -> Corpus:
    """Read one utterance a row; the separator is found from the header.

    Lines not longer than `min_characters` after the clean-up are left out. A missing speaker column
    leaves the speakers empty.

    Raises:
        CorpusError: the file cannot be read, has no such text column, or nothing in it is long enough.
    """
    content = _bytes(path)
    text, encoding = _decode(content, path)
    header = _LINE_END.split(text.lstrip("\r\n"), maxsplit=1)[0][:MAX_HEADER_CHARACTERS]
    separator, columns = _header(header, text_column)
    if not text_column or text_column not in columns:
        there = ", ".join([name[:40] for name in columns if name][:20]) or "none"
        raise CorpusError(f"{path} has no column {text_column!r}; its columns: {there}. Name one with --text-column")

    # Here, so that reading plain text or a finished run does not wait for pandas.
    import pandas as pd

    try:
        # All columns: with `usecols`, pandas cuts off what a row has too much, in the middle of an utterance.
        table = pd.read_csv(StringIO(text), sep=separator, dtype=str, keep_default_na=False, skip_blank_lines=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise CorpusError(f"{path} is not a regular CSV: {reason}; mend that line, or use --text") from error
    # A column more than the header names becomes the index: row numbers, or the text was cut at its commas.
    if not all(str(row).isdigit() for row in table.index):
        raise CorpusError(
            f"{path} is not a regular CSV: its rows have more columns than its header; "
            "put quotes around the utterances, or use --text"
        )
    if table.empty:
        raise CorpusError(f"{path} has a header but no rows; nothing to learn from")
    texts = [str(value) for value in table[text_column].tolist()]
    has_speakers = speaker_column and speaker_column in columns and speaker_column != text_column
    speakers = [str(value) for value in table[speaker_column].tolist()] if has_speakers else [""] * len(texts)
    lines = _clean(texts, speakers, min_characters, path)
    return Corpus(str(path), lines, len(texts), encoding, SEPARATORS[separator], _sha256(content))


def read_text(path: Path, min_characters: int) -> Corpus:
    """Read plain text, one utterance a line.

    Raises:
        CorpusError: the file cannot be read, or no line is long enough.
    """
    content = _bytes(path)
    text, encoding = _decode(content, path)
    texts = text.splitlines()
    lines = _clean(texts, [""] * len(texts), min_characters, path)
    return Corpus(str(path), lines, len(texts), encoding, "none", _sha256(content))


def merge(parts: Sequence[Corpus]) -> Corpus:
    """Several files as one corpus, named after the first."""
    first = parts[0]
    return Corpus(
        first.source,
        tuple(line for part in parts for line in part.lines),
        sum(part.rows for part in parts),
        first.encoding,
        first.separator,
        _sha256("".join(part.sha256 for part in parts).encode()),
    )


def split(lines: tuple[Line, ...], seed: int) -> Split:
    """Shuffle with `random.Random(seed)` and cut at 80 and 90 percent, as the notebook does.

    Raises:
        CorpusError: a part would be empty.
    """
    shuffled = list(lines)
    random.Random(seed).shuffle(shuffled)
    first, second = int(0.8 * len(shuffled)), int(0.9 * len(shuffled))
    parts = Split(tuple(shuffled[:first]), tuple(shuffled[first:second]), tuple(shuffled[second:]))
    if not (parts.train and parts.valid and parts.test):
        raise CorpusError(f"{len(lines)} usable lines cannot be split 80/10/10; at least 6 are needed")
    return parts


def _bytes(path: Path) -> bytes:
    try:
        if not path.exists():
            raise CorpusError(f"{path} does not exist; check the path")
        if path.is_dir():
            raise CorpusError(f"{path} is a folder; name a CSV or text file in it")
        if not path.is_file():
            raise CorpusError(f"{path} is not a regular file; name a CSV or text file")
        content = path.read_bytes()
    except OSError as error:  # for instance a folder that may not be searched, or a name too long
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    if not content.removeprefix(_BOM).strip():
        raise CorpusError(f"{path} is empty; nothing to learn from")
    return content


def _decode(content: bytes, path: Path) -> tuple[str, str]:
    """The text, and the name of the encoding found: UTF-8 with or without BOM, Windows-1252 or Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CorpusError(f"{path} is UTF-16, which is not read here; save it as UTF-8")
    if b"\0" in content:
        raise CorpusError(f"{path} holds NUL bytes, so it is not text; name a CSV or text file")
    controls = sum(content.count(byte) for byte in range(1, 32) if byte not in b"\t\n\r\f\v")
    if controls * 100 > len(content):
        raise CorpusError(f"{path} is a binary file, not text; name a CSV or text file")
    if max(map(len, content.split(b"\n"))) > MAX_LINE_CHARACTERS:
        raise CorpusError(f"{path} has a line of over {MAX_LINE_CHARACTERS:,} bytes; put one utterance on a line")
    try:
        return content.decode("utf-8-sig"), "UTF-8 with BOM" if content.startswith(_BOM) else "UTF-8"
    except UnicodeDecodeError as error:
        high = {byte for byte in range(0x80, 0xA0) if byte in content}
        if not high:
            return content.decode("latin-1"), "Latin-1"
        if not high & _BYTES_ABSENT_FROM_CP1252:
            return content.decode("cp1252"), "Windows-1252"
        raise CorpusError(
            f"{path} is not UTF-8 (byte {error.start}), Latin-1 or Windows-1252; save it as UTF-8"
        ) from error


def _header(header: str, text_column: str) -> tuple[str, list[str]]:
    """The separator and column names that make most sense of the first line."""
    readings = [(separator, next(csv.reader([header], delimiter=separator), [])) for separator in SEPARATORS]
    return max(readings, key=lambda reading: (text_column in reading[1], len(reading[1])))


def _clean(texts: list[str], speakers: list[str], min_characters: int, path: Path) -> tuple[Line, ...]:
    longest = max(map(len, texts), default=0)
    if longest > MAX_LINE_CHARACTERS:
        raise CorpusError(
            f"{path} has an utterance of {longest:,} characters; at most {MAX_LINE_CHARACTERS:,} are read"
        )
    cleaned = (_WHITE_SPACE.sub(" ", text).strip() for text in texts)
    pairs = zip(cleaned, speakers, strict=True)
    lines = tuple(Line(text, speaker.strip()) for text, speaker in pairs if len(text) > min_characters)
    if not lines:
        raise CorpusError(
            f"{path}: none of the {len(texts)} lines is longer than {min_characters} characters; "
            "lower it with --set min_characters=N"
        )
    return lines


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
