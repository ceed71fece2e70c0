"""Text files that the user names: reasons to refuse them, and their encoding."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from engine.errors import CorpusError
from engine.storage.files import check_is_file, read_limited

MAX_CORPUS_BYTES = 1_000_000_000
MAX_LINE_CHARACTERS = 1_000_000
BOM = b"\xef\xbb\xbf"
CODECS = {"UTF-8": "utf-8", "UTF-8 with BOM": "utf-8-sig", "Latin-1": "latin-1", "Windows-1252": "cp1252"}
"""Python codec of each encoding that `scan_file` detects."""

_CONTROL_BYTES = bytes(byte for byte in range(1, 32) if byte not in b"\t\n\r\f\v")
_UNDEFINED_IN_CP1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")


class FileScan(NamedTuple):
    """Properties of a text file, found by reading all of it."""

    encoding: str  # a key of `CODECS`
    sha256: str
    after_escaped_quotes: frozenset[bytes]
    r"""All bytes that follow `\"`, which show whether the backslash is an escape."""


def scan_file(path: Path) -> FileScan:
    """Return the properties of a text file, or raise a CorpusError if it is not one."""
    try:
        check_is_file(path, "CSV or text file")
        content = read_limited(path, MAX_CORPUS_BYTES)
    except OSError as error:  # for example missing permissions, or a name that is too long
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CorpusError(f"{path} is UTF-16, which is not supported; save it as UTF-8")
    text = content.removeprefix(BOM)
    if not text or text.isspace():
        raise CorpusError(f"{path} is empty; use a file with text")
    if b"\0" in text:
        raise CorpusError(f"{path} contains NUL bytes, so it is not text; name a CSV or text file")
    if (len(text) - len(text.translate(None, _CONTROL_BYTES))) * 100 > len(text):
        raise CorpusError(f"{path} is a binary file, not text; name a CSV or text file")
    after_quotes = frozenset(re.findall(rb'\\"(.)', content, re.DOTALL))
    return FileScan(_detect_encoding(content, path), hashlib.sha256(content).hexdigest(), after_quotes)


def _detect_encoding(content: bytes, path: Path) -> str:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        # Control characters in Latin-1, printable in Windows-1252.
        c1_bytes = {byte for byte in range(0x80, 0xA0) if byte in content}
        if c1_bytes & _UNDEFINED_IN_CP1252:
            raise CorpusError(
                f"{path} is not UTF-8 (byte {error.start}), Latin-1 or Windows-1252; save it as UTF-8"
            ) from error
        return "Windows-1252" if c1_bytes else "Latin-1"
    return "UTF-8 with BOM" if content.startswith(BOM) else "UTF-8"


def read_lines(path: Path, encoding: str) -> list[str]:
    """Return the lines of a text file, or raise a CorpusError if one is too long."""
    lines = path.read_text(CODECS[encoding]).splitlines()
    check_line_lengths(lines, str(path))
    return lines


def read_whole_text(path: Path) -> str:
    """Return a text file as written, with a line feed for each line end, or raise a CorpusError if it is not text."""
    text = path.read_text(CODECS[scan_file(path).encoding])
    check_line_lengths(text.split("\n"), str(path))
    return text


def check_line_lengths(lines: Iterable[str], source: str) -> None:
    """Raise a CorpusError if a line of the text `source` is too long."""
    if max(map(len, lines), default=0) > MAX_LINE_CHARACTERS:
        raise CorpusError(
            f"{source} has a line of over {MAX_LINE_CHARACTERS:,} characters; put one utterance on a line"
        )
