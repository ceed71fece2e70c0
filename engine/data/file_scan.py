"""Detection of the encoding of text files, and reading them in blocks."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engine.data.lines import BLOCK_BYTES
from engine.errors import CorpusError
from engine.storage.files import check_is_file

MAX_LINE_CHARACTERS = 1_000_000
BOM = b"\xef\xbb\xbf"
CODECS = {"UTF-8": "utf-8", "UTF-8 with BOM": "utf-8", "Latin-1": "latin-1", "Windows-1252": "cp1252"}
"""Python codec of each encoding that `scan_file` detects."""

_CONTROL_BYTES = bytes(byte for byte in range(1, 32) if byte not in b"\t\n\r\f\v")
_ESCAPED_QUOTE = re.compile(rb'\\"(.)', re.DOTALL)
_UNDEFINED_IN_CP1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")


class FileScan(NamedTuple):
    """Properties of a text file, found by reading all of it."""

    encoding: str
    """A key of `CODECS`."""
    sha256: str
    """SHA-256 of the bytes."""
    after_escaped_quotes: frozenset[str]
    r"""All characters that follow `\"`, which shows whether the backslash is an escape."""


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yield a file in blocks of about `BLOCK_BYTES` that end with a line end, unless a line is too long."""
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(BLOCK_BYTES):
            block = rest + chunk
            # A carriage return at the very end may be the first half of a line end.
            end = 1 + max(block.rfind(b"\n"), block.rfind(b"\r", 0, -1))
            if not end and len(block) > MAX_LINE_CHARACTERS:
                end = len(block)
            if end:
                yield block[:end]
            rest = block[end:]
    if rest:
        yield rest


def read_whole_text(path: Path) -> str:
    """Return a text file as written, with a line feed for each line end, or raise a CorpusError if it is not text."""
    encoding = scan_file(path).encoding
    text = path.read_bytes().removeprefix(BOM).decode(CODECS[encoding])
    return normalize_line_ends(text)


def normalize_line_ends(text: str) -> str:
    """Return `text` with a line feed in the place of each carriage return, alone or before a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def scan_file(path: Path) -> FileScan:
    """Return the properties of a text file, or raise a CorpusError if it is not one."""
    try:
        check_is_file(path, "CSV or text file")
        return _scan_bytes(path)
    except OSError as error:  # for example missing permissions, or a name that is too long
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error


def _scan_bytes(path: Path) -> FileScan:
    size = num_controls = longest = 0
    first_invalid_utf8: int | None = None
    has_text = has_bom = False
    c1_bytes: set[int] = set()  # 0x80 to 0x9F: control characters in Latin-1, printable in Windows-1252
    after_escaped_quotes: set[bytes] = set()
    sha256 = hashlib.sha256()
    for block in read_blocks(path):
        sha256.update(block)
        if size == 0:
            if block.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise CorpusError(f"{path} is UTF-16, which is not supported; save it as UTF-8")
            has_bom = block.startswith(BOM)
        has_text = has_text or bool((block if size else block.removeprefix(BOM)).strip())
        if b"\0" in block:
            raise CorpusError(f"{path} contains NUL bytes, so it is not text; name a CSV or text file")
        num_controls += len(block) - len(block.translate(None, _CONTROL_BYTES))
        longest = max(longest, *map(len, block.splitlines()))
        after_escaped_quotes.update(_ESCAPED_QUOTE.findall(block))
        if not block.isascii():
            c1_bytes |= {byte for byte in range(0x80, 0xA0) if byte in block}
            if first_invalid_utf8 is None:
                try:
                    block.decode()
                except UnicodeDecodeError as error:
                    first_invalid_utf8 = size + error.start
        size += len(block)
    if not has_text:
        raise CorpusError(f"{path} is empty; use a file with text")
    if num_controls * 100 > size:
        raise CorpusError(f"{path} is a binary file, not text; name a CSV or text file")
    if longest > MAX_LINE_CHARACTERS:
        raise CorpusError(f"{path} has a line of over {MAX_LINE_CHARACTERS:,} bytes; put one utterance on a line")
    if first_invalid_utf8 is None:
        encoding = "UTF-8 with BOM" if has_bom else "UTF-8"
    elif not c1_bytes:
        encoding = "Latin-1"
    elif not c1_bytes & _UNDEFINED_IN_CP1252:
        encoding = "Windows-1252"
    else:
        raise CorpusError(f"{path} is not UTF-8 (byte {first_invalid_utf8}), Latin-1 or Windows-1252; save it as UTF-8")
    # Decoded as Latin-1, since only the ASCII characters among them matter.
    return FileScan(encoding, sha256.hexdigest(), frozenset(byte.decode("latin-1") for byte in after_escaped_quotes))
