"""Text in: a CSV or plain text becomes clean lines, and these a train, valid and test split."""

import array
import csv
import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data.lines import BLOCK_BYTES, Lines, LineStore, Numbers
from engine.errors import CorpusError

MAX_LINE_CHARACTERS = 1_000_000
MAX_HEADER_CHARACTERS = 100_000
MAX_COLUMNS = 1_000
"""Beyond that a table takes seconds and gigabytes, and is no dialogue."""
ROWS_AT_ONCE = 50_000
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", " ": "space"}

_LINE_END = re.compile(r"[\r\n]")
_BOM = b"\xef\xbb\xbf"
_CONTROLS = bytes(byte for byte in range(1, 32) if byte not in b"\t\n\r\f\v")
_BYTES_ABSENT_FROM_CP1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")


@dataclass(frozen=True)
class Corpus:
    """All usable lines of a source, in file order, and how the file was understood."""

    source: str
    lines: Lines
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

    train: Lines
    valid: Lines
    test: Lines


def read_csv(
    path: Path, text_column: str, speaker_column: str, min_characters: int, store: LineStore | None = None
) -> Corpus:
    """Read one utterance a row; the separator is found from the header.

    Lines not longer than `min_characters` after the clean-up are left out. A missing speaker column
    leaves the speakers empty.

    Args:
        path: of the file, which may be larger than memory.
        text_column: of the utterances.
        speaker_column: of who speaks them.
        min_characters: as above.
        store: where the lines are kept, behind those that are there; None: in memory.

    Raises:
        CorpusError: the file cannot be read, has no such text column, or nothing in it is long enough.
        OSError: the store cannot be written.
    """
    kept = _Kept(path, min_characters, LineStore() if store is None else store)
    encoding, sha256 = _inspect(path)
    beginning = next(_blocks(path)).removeprefix(_BOM).decode(_CODECS[encoding], "ignore")
    header = _LINE_END.split(beginning.lstrip("\r\n"), maxsplit=1)[0][:MAX_HEADER_CHARACTERS]
    separator, columns = _header(header, text_column)
    if not text_column or text_column not in columns:
        there = ", ".join([name[:40] for name in columns if name][:20]) or "none"
        raise CorpusError(f"{path} has no column {text_column!r}; its columns: {there}. Name one with --text-column")
    if len(header) == MAX_HEADER_CHARACTERS or len(columns) > MAX_COLUMNS:
        raise CorpusError(
            f"{path} has a header of over {MAX_HEADER_CHARACTERS:,} characters or {MAX_COLUMNS:,} columns; use --text"
        )
    wanted = {text_column, speaker_column} & set(columns) - {""}
    has_speakers = len(wanted) == 2

    # Here, so that reading plain text or a finished run does not wait for pandas.
    import pandas as pd

    codec = "utf-8-sig" if encoding == "UTF-8 with BOM" else _CODECS[encoding]
    try:
        with path.open(encoding=codec, newline="") as file:
            # All columns: with `usecols`, pandas cuts off what a row has too much, in the middle of an utterance.
            for table in pd.read_csv(
                file, sep=separator, dtype=str, keep_default_na=False, skip_blank_lines=True, chunksize=ROWS_AT_ONCE
            ):
                if not wanted <= set(table.columns):
                    raise CorpusError(
                        f"{path} is not a regular CSV: a quote in its header ends on another line; "
                        "mend it, or use --text"
                    )
                # A column more than the header names becomes the index: row numbers, or the text was cut at its commas.
                if not all(str(row).isdigit() for row in table.index):
                    raise CorpusError(
                        f"{path} is not a regular CSV: its rows have more columns than its header; "
                        "put quotes around the utterances, or use --text"
                    )
                texts = [str(value) for value in table[text_column].tolist()]
                speakers = [str(value) for value in table[speaker_column].tolist()] if has_speakers else None
                kept.add(texts, speakers)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise CorpusError(f"{path} is not a regular CSV: {reason}; mend that line, or use --text") from error
    if not kept.rows:
        raise CorpusError(f"{path} has a header but no rows; nothing to learn from")
    return Corpus(str(path), kept.lines(), kept.rows, encoding, SEPARATORS[separator], sha256)


def read_text(path: Path, min_characters: int, store: LineStore | None = None) -> Corpus:
    """Read plain text, one utterance a line; the arguments are those of `read_csv`.

    Raises:
        CorpusError: the file cannot be read, or no line is long enough.
        OSError: the store cannot be written.
    """
    kept = _Kept(path, min_characters, LineStore() if store is None else store)
    encoding, sha256 = _inspect(path)
    for number, block in enumerate(_blocks(path)):
        kept.add((block if number else block.removeprefix(_BOM)).decode(_CODECS[encoding]).splitlines())
    return Corpus(str(path), kept.lines(), kept.rows, encoding, "none", sha256)


def merge(parts: Sequence[Corpus], lines: Lines) -> Corpus:
    """Several files, whose lines are in one store, as one corpus, named after the first."""
    first = parts[0]
    rows = sum(part.rows for part in parts)
    sha256 = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
    return Corpus(first.source, lines, rows, first.encoding, first.separator, sha256)


def split(lines: int, seed: int) -> tuple[Numbers, Numbers, Numbers]:
    """The numbers of so many lines, shuffled with `random.Random(seed)`, cut at 80 and 90 percent, as in the notebook.

    Raises:
        CorpusError: a part would be empty.
    """
    shuffled = array.array("i", range(lines))  # a list would take nine times the memory
    random.Random(seed).shuffle(shuffled)
    numbers = np.array(shuffled, np.int32)
    first, second = int(0.8 * lines), int(0.9 * lines)
    parts = numbers[:first], numbers[first:second], numbers[second:]
    if not all(map(len, parts)):
        raise CorpusError(f"{lines} usable lines cannot be split 80/10/10; at least 6 are needed")
    return parts


class _Kept:
    """The lines of a file that are long enough, cleaned up, as they go into a store."""

    def __init__(self, path: Path, min_characters: int, store: LineStore) -> None:
        self.rows = 0
        self._path, self._least, self._store = path, min_characters, store
        self._before = len(store)

    def add(self, texts: Sequence[str], speakers: Sequence[str] | None = None) -> None:
        """Keep what is long enough of these.

        Raises:
            CorpusError: one is far too long.
        """
        longest = max(map(len, texts), default=0)
        if longest > MAX_LINE_CHARACTERS:
            raise CorpusError(
                f"{self._path} has an utterance of {longest:,} characters; at most {MAX_LINE_CHARACTERS:,} are read"
            )
        self.rows += len(texts)
        cleaned = [" ".join(text.split()) for text in texts]
        long_enough = [len(text) > self._least for text in cleaned]
        texts = [text for text, it_is in zip(cleaned, long_enough, strict=True) if it_is]
        if speakers is None:
            self._store.add(texts)
        else:
            pairs = zip(speakers, long_enough, strict=True)
            self._store.add(texts, [speaker.strip() for speaker, it_is in pairs if it_is])

    def lines(self) -> Lines:
        """All that the store has.

        Raises:
            CorpusError: none came from this file.
        """
        if len(self._store) == self._before:
            raise CorpusError(
                f"{self._path}: none of the {self.rows} lines is longer than {self._least} characters; "
                "lower it with --set min_characters=N"
            )
        return self._store.lines()


def _blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, some at a time, cut after line feeds, and in lines that are too long."""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block + file.readline(MAX_LINE_CHARACTERS + 2)


_CODECS = {"UTF-8": "utf-8", "UTF-8 with BOM": "utf-8", "Latin-1": "latin-1", "Windows-1252": "cp1252"}


def _inspect(path: Path) -> tuple[str, str]:
    """The encoding found, UTF-8 with or without BOM, Windows-1252 or Latin-1, and the SHA-256 of the bytes.

    Raises:
        CorpusError: the file cannot be read, or is not text.
    """
    try:
        if not path.exists():
            raise CorpusError(f"{path} does not exist; check the path")
        if path.is_dir():
            raise CorpusError(f"{path} is a folder; name a CSV or text file in it")
        if not path.is_file():
            raise CorpusError(f"{path} is not a regular file; name a CSV or text file")
        return _inspect_bytes(path)
    except OSError as error:  # for instance a folder that may not be searched, or a name too long
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error


def _inspect_bytes(path: Path) -> tuple[str, str]:
    size = controls = longest = 0
    not_utf8: int | None = None
    filled = has_bom = False
    high: set[int] = set()
    sha256 = hashlib.sha256()
    for block in _blocks(path):
        sha256.update(block)
        if size == 0:
            if block.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise CorpusError(f"{path} is UTF-16, which is not read here; save it as UTF-8")
            has_bom = block.startswith(_BOM)
        filled = filled or bool((block if size else block.removeprefix(_BOM)).strip())
        if b"\0" in block:
            raise CorpusError(f"{path} holds NUL bytes, so it is not text; name a CSV or text file")
        controls += len(block) - len(block.translate(None, _CONTROLS))
        longest = max(longest, *map(len, block.split(b"\n")))
        if not block.isascii():
            high |= {byte for byte in range(0x80, 0xA0) if byte in block}
            if not_utf8 is None:
                try:
                    block.decode()
                except UnicodeDecodeError as error:
                    not_utf8 = size + error.start
        size += len(block)
    if not filled:
        raise CorpusError(f"{path} is empty; nothing to learn from")
    if controls * 100 > size:
        raise CorpusError(f"{path} is a binary file, not text; name a CSV or text file")
    if longest > MAX_LINE_CHARACTERS:
        raise CorpusError(f"{path} has a line of over {MAX_LINE_CHARACTERS:,} bytes; put one utterance on a line")
    if not_utf8 is None:
        encoding = "UTF-8 with BOM" if has_bom else "UTF-8"
    elif not high:
        encoding = "Latin-1"
    elif not high & _BYTES_ABSENT_FROM_CP1252:
        encoding = "Windows-1252"
    else:
        raise CorpusError(f"{path} is not UTF-8 (byte {not_utf8}), Latin-1 or Windows-1252; save it as UTF-8")
    return encoding, sha256.hexdigest()


def _header(header: str, text_column: str) -> tuple[str, list[str]]:
    """The separator and column names that make most sense of the first line."""
    readings = [(separator, next(csv.reader([header], delimiter=separator), [])) for separator in SEPARATORS]
    return max(readings, key=lambda reading: (text_column in reading[1], len(reading[1])))
