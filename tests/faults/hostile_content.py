"""Hostile files made by hand: for every reader, and for each file format."""

import json
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import chdir
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.config import Config
from tests.faults.mutations import ESCAPES

SPARSE_FILE_BYTES = 50_000_000_000


@dataclass(frozen=True)
class HostileFile:
    """Recipe for a file, or another kind of directory entry, that takes the place of a valid file."""

    name: str
    create: Callable[[Path], None]
    """Function that creates the entry at a path where nothing exists."""


def file_with(name: str, content: bytes | Callable[[], bytes]) -> HostileFile:
    """Return the recipe for a regular file. Its content may be given by a function, if it takes long to make."""
    return HostileFile(name, lambda path: _write(path, content() if callable(content) else content))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _create_sparse_file(path: Path, size: int = SPARSE_FILE_BYTES, start: bytes = b"") -> None:
    """Write a file that takes up no space after its start."""
    path.write_bytes(start)
    os.truncate(path, size)


def _create_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, chdir(path.parent):  # the path of a socket has 108 bytes at most
        server.bind(path.name)


FOR_ANY_READER: tuple[HostileFile, ...] = (
    HostileFile("nothing", lambda path: None),
    HostileFile("a pipe", lambda path: os.mkfifo(path)),
    HostileFile("a socket", _create_socket),
    HostileFile("a folder", lambda path: path.mkdir()),
    HostileFile("a link to itself", lambda path: path.symlink_to(path.name)),
    HostileFile("a link to nothing", lambda path: path.symlink_to("nowhere")),
    HostileFile("a link to /dev/zero", lambda path: path.symlink_to("/dev/zero")),
    HostileFile("a link to a terminal", lambda path: path.symlink_to("/dev/tty")),
    HostileFile("a link to a folder", lambda path: path.symlink_to("/")),
    HostileFile("a link to a system file", lambda path: path.symlink_to("/etc/passwd")),
    HostileFile("50 GB of zeros", _create_sparse_file),
    HostileFile("50 GB after a brace", lambda path: _create_sparse_file(path, start=b"{\n")),
    HostileFile(
        "50 GB after the start of a list", lambda path: _create_sparse_file(path, start=b'["<unk>", "<eos>",\n')
    ),
    file_with("an empty file", b""),
    file_with("every byte value", bytes(range(256)) * 300),
    file_with("20 MB of line ends", b"\n" * 20_000_000),
    file_with("20 MB of brackets", b"[" * 20_000_000),
    file_with("30 MB of empty lists", b"[" + b"[]," * 10_000_000 + b"[]]"),
    file_with("a string of 60 MB", b'"' + b"x" * 60_000_000 + b'"'),
    file_with("10 million empty objects, one per line", b"{}\n" * 10_000_000),
)


# Files of the first release, whose fields had other names


def _json_lines(*records: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


OLD_SETTINGS = json.dumps({"version": 1, "theme": "shire", "pace": 5.0, "way": "continue"}).encode()
OLD_REPLY = {
    "id": 0,
    "parent": None,
    "at": 0,
    "prompt": "the miller",
    "way": "continue",
    "words": [[5, "green", -1.0, 0.4, 1, 2.0]],
    "seed": 7,
    "settings": {"temperature": 0.8},
    "reason": "length",
    "words_per_second": 900.0,
    "model": "r",
}
OLD_SESSION = _json_lines({"session": {"version": 1, "model": "r", "started": 1.0, "current": 0}}, {"node": OLD_REPLY})
OLD_CONFIG = json.dumps(
    asdict(Config()) | {"model": {"layers": 1, "tied": True, "locked": True, "pauses": True}}
).encode()
OLD_METRICS = _json_lines(
    {"event": "preparing", "what": "loading PyTorch"},
    {"event": "started", "run": "r", "preset": "tiny", "vocabulary": 40, "epochs": 2},
    {"event": "step", "step": 1, "epoch": 0.2, "perplexity": 30.0},
)

SETTINGS_FILES = (
    file_with("settings of format 1", OLD_SETTINGS),
    file_with("settings with an old field name", OLD_SETTINGS.replace(b'"version": 1', b'"version": 2')),
)
PROGRESS_FILES = (
    file_with("progress in a newer format", b'{"version": 2, "chapters": {}}'),
    file_with("progress with names of escape sequences", json.dumps({"version": 1, "done": [ESCAPES]}).encode()),
    file_with("30,000 chapters", json.dumps({"version": 1, "done": ["a"] * 30_000}).encode()),
)
CONFIGS = (file_with("a configuration with old setting names", OLD_CONFIG),)
SESSIONS = (
    file_with("a session of format 1", OLD_SESSION),
    file_with("a session with an old line", _json_lines(
        {"session": {"version": 2, "model": "r", "started": 1.0, "current_id": 0}}, {"node": OLD_REPLY}
    )),
)  # fmt: skip


# Safetensors files


def _safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """Return the content of a safetensors file; `length` is the length of the header that the file claims."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _sparse_safetensors(size: int, header: object, length: int | None = None) -> Callable[[Path], None]:
    return lambda path: _create_sparse_file(path, size, _safetensors(header, length=length))


def _trainer_state(text: str) -> bytes:
    return _safetensors({"__metadata__": {"config": "{}", "trainer_state": text}})


def _tensor(shape: Sequence[int], offsets: Sequence[int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": list(offsets)}


_ONE_FLOAT = json.dumps(_tensor([1], [0, 4])).encode()
TENSORS: tuple[HostileFile, ...] = (
    *(file_with(f"a header of {size}", _safetensors({}, length=size)) for size in (2**40, 2**63, 2**64 - 1, 10**8)),
    HostileFile("a header of 3 GB", _sparse_safetensors(3_100_000_000, b"{", length=3_000_000_000)),
    HostileFile("a header of 90 MB", _sparse_safetensors(95_000_000, b"{", length=90_000_000)),
    file_with("a tensor of terabytes", _safetensors({"embedding.weight": _tensor([2**40, 300], [0, 2**42 * 300])})),
    file_with("a shape beyond 64 bits", _safetensors({"embedding.weight": _tensor([2**33, 2**33], [0, 0])})),
    file_with("a negative shape", _safetensors({"embedding.weight": _tensor([-1, -4], [0, 16])}, b"\0" * 16)),
    HostileFile(
        "a tensor of 8 GB, all in the file",
        _sparse_safetensors(8_000_000_200, {"embedding.weight": _tensor([20_000, 100_000], [0, 8_000_000_000])}),
    ),
    file_with("a deeply nested header", _safetensors(b'{"a":' * 100_000)),
    file_with("100,000 tensors", lambda: _safetensors({f"t{n}": _tensor([0], [0, 0]) for n in range(100_000)})),
    file_with("a repeated tensor name", _safetensors(b'{"a":%s,"a":%s}' % ((_ONE_FLOAT,) * 2), b"\0" * 4)),
    file_with("a tensor name of escape sequences", _safetensors({ESCAPES: _tensor([1], [0, 4])}, b"\0" * 4)),
    file_with("a long tensor name", _safetensors({"x" * 1_000_000: _tensor([1], [0, 4])}, b"\0" * 4)),
    file_with("a deeply nested trainer state", _trainer_state("[" * 100_000)),
    file_with("a number as trainer state", _safetensors({"__metadata__": {"trainer_state": 5}})),
    file_with("a trainer state with infinity", _trainer_state('{"progress": {"step": Infinity, "seconds": NaN}}')),
    file_with(
        "a trainer state with a number of 400 digits",
        _trainer_state('{"progress": {"step": 1, "seconds": ' + "9" * 400 + "}}"),
    ),
)


def _tokenizer(words: Iterable[object]) -> bytes:
    return json.dumps(["<unk>", "<eos>", *words]).encode()


VOCABULARIES: tuple[HostileFile, ...] = (
    file_with("2 million words", lambda: _tokenizer(f"w{n}" for n in range(2_000_000))),
    file_with("a word of 20 MB", lambda: _tokenizer(["a" * 20_000_000])),
    file_with("words of control characters", _tokenizer(["\x1b[2J", "\x9b"])),
    file_with("words with reversed direction", _tokenizer(["\u202eabc"])),
    file_with("a repeated word", _tokenizer(["a", "a"])),
    file_with("5 million lists", lambda: _tokenizer([[]] * 5_000_000)),
    file_with("numbers in place of words", _tokenizer([1, 2, 3])),
)

METRICS: tuple[HostileFile, ...] = (
    file_with("1.5 million rows without fields", b'{"event":"evaluated"}\n' * 1_500_000),
    file_with("4 million rows of unknown events", b'{"event":"a"}\n' * 4_000_000),
    file_with("rows with nested lists", b'{"event":"evaluated","a":[%s]}\n' % (b"[]," * 300_000 + b"[]") * 40),
    file_with(
        "rows with thousands of fields",
        lambda: b"".join(
            b'{"event":"evaluated",%s}\n' % b",".join(b'"%d-%d":1' % (row, n) for n in range(2000))
            for row in range(1000)
        ),
    ),
    file_with("metrics with old field names", OLD_METRICS),
)

_NUMBERS = range(10**8, 10**8 + 200_000)
_LINE = "a line long enough to be kept here"
CORPORA: tuple[HostileFile, ...] = (
    file_with("a header of many columns", b"dialog" + b",a" * 400_000 + b"\n" + b"x" + b",1" * 400_000 + b"\n"),
    file_with("a quotation mark without an end", b'char,dialog\nSAM,"' + b"well now, what is this about\n" * 1_000_000),
    file_with("rows of a million fields", b"char,dialog\n" + (b"," * 999_000 + b"\n") * 40),
    file_with("a megabyte of escapes", b'"char" "dialog"\n"1" "SAM" "\\"no ' + b'\\"' * 450_000 + b'"\n'),
    file_with(
        "commas of a spreadsheet and an open quote", b"char;dialog,,,,\n" + b'SAM;well,"now, what is this,,\n' * 400_000
    ),
    file_with("two million short lines", b"a\n" * 2_000_000),
    file_with("speakers of escape sequences", f"char,dialog\n{f'{ESCAPES[:12]},{_LINE}{chr(10)}' * 30}".encode()),
    file_with(
        "another speaker in every line",
        lambda: b"char,dialog\n" + "".join(f"{n},{_LINE}\n" for n in range(300_000)).encode(),
    ),
    file_with("lines with reversed direction", f"char,dialog\n\u202eSAM,\u2066{_LINE}\u202e\n".encode() * 30),
    file_with("a line of a megabyte", b"char,dialog\nSAM," + b"word " * 190_000 + b"\n"),
    file_with("no word twice", lambda: b"dialog\n" + b"".join(b"%x %x a%x\n" % (n, 7 * n, n) for n in _NUMBERS)),
)
