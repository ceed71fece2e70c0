"""Hostile files: good ones flipped, cut, repeated, spliced, given hostile values; and some made by hand."""

import json
import os
import random
import re
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202eevil\u2066\x00\r\b\x7f"
TEXTS = (
    ESCAPES, "\ud800", "\0", "x" * 100_000, "", "../../../outside", "/etc/passwd", "/dev/zero", "a\nb", "[red]x[/red]",
    "%s{0}",
)  # fmt: skip
NUMBERS = (-1, 0, 1, 2**31, 2**63, 2**64, 10**9, 10**400, -(10**18), 0.5, 1e308, -1e308, 5e-324)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"a": {"b": []}}, [1] * 1000)
RAW = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 10_000, b"-" + b"9" * 400, b"[" * 100_000, b'{"a":' * 100_000,
    b'"\\ud800"', b'"\\u0000"', b'"\\u001b[2J"', b"\xff\xfe", b"\xc2\x9b", b"\x00", b"\x1b[2J", b"null",
    b"1" * 5000 + b".5", b"[" * 500 + b"]" * 500, b"//", b"'", b'"', b",,", b"{}", b"\xef\xbb\xbf", b"\r", b"\n" * 1000,
)  # fmt: skip
VALUE = re.compile(rb'-?[0-9][0-9.e+-]*|"(?:[^"\\\n]|\\.)*+"|true|false|null')
SPARSE_BYTES = 50_000_000_000
"""Of a file that takes no room."""


@dataclass(frozen=True)
class Hostile:
    """Something to be put in the place of a good file."""

    name: str
    put: Callable[[Path], None]
    """Puts it where nothing is now."""


def of_bytes(name: str, content: bytes) -> Hostile:
    return Hostile(name, lambda path: _write(path, content))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


# What stands in the place of any file


def _sparse(path: Path, size: int = SPARSE_BYTES, start: bytes = b"") -> None:
    path.write_bytes(start)
    os.truncate(path, size)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, chdir(path.parent):  # a socket's path has 108 bytes at most
        server.bind(path.name)


ANY: tuple[Hostile, ...] = (
    Hostile("nothing", lambda path: None),
    Hostile("a pipe", lambda path: os.mkfifo(path)),
    Hostile("a socket", _socket),
    Hostile("a folder", lambda path: path.mkdir()),
    Hostile("a link to itself", lambda path: path.symlink_to(path.name)),
    Hostile("a link to nothing", lambda path: path.symlink_to("nowhere")),
    Hostile("a link to zeros without end", lambda path: path.symlink_to("/dev/zero")),
    Hostile("a link to a terminal", lambda path: path.symlink_to("/dev/tty")),
    Hostile("a link to a folder", lambda path: path.symlink_to("/")),
    Hostile("a link to a file of others", lambda path: path.symlink_to("/etc/passwd")),
    Hostile("50 GB of zeros", _sparse),
    Hostile("50 GB behind a brace", lambda path: _sparse(path, start=b"{\n")),
    Hostile("50 GB behind a bracket", lambda path: _sparse(path, start=b'["<unk>", "<eos>",\n')),
    of_bytes("no bytes", b""),
    of_bytes("all bytes", bytes(range(256)) * 300),
    of_bytes("20 MB of line ends", b"\n" * 20_000_000),
    of_bytes("20 MB of brackets", b"[" * 20_000_000),
    of_bytes("30 MB of empty lists", b"[" + b"[]," * 10_000_000 + b"[]]"),
    of_bytes("60 MB of one text", b'"' + b"x" * 60_000_000 + b'"'),
    of_bytes("30 MB of empty objects a line", b"{}\n" * 10_000_000),
)


def _safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _tensor(shape: Sequence[int], offsets: Sequence[int], kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": list(offsets)}


_ONE = json.dumps(_tensor([1], [0, 4])).encode()
TENSORS: tuple[Hostile, ...] = (
    *(of_bytes(f"a header of {size}", _safetensors({}, length=size)) for size in (2**40, 2**63, 2**64 - 1, 10**8)),
    Hostile("a header of 3 GB", lambda path: _sparse(path, 3_100_000_000, _safetensors(b"{", length=3_000_000_000))),
    Hostile("a header of 90 MB", lambda path: _sparse(path, 95_000_000, _safetensors(b"{", length=90_000_000))),
    of_bytes("a tensor of terabytes", _safetensors({"embedding.weight": _tensor([2**40, 300], [0, 2**42 * 300])})),
    of_bytes("a shape beyond 64 bits", _safetensors({"embedding.weight": _tensor([2**33, 2**33], [0, 0])})),
    of_bytes("a shape below nothing", _safetensors({"embedding.weight": _tensor([-1, -4], [0, 16])}, b"\0" * 16)),
    Hostile(
        "a tensor of 8 GB that is there",
        lambda path: _sparse(
            path, 8_000_000_200, _safetensors({"embedding.weight": _tensor([20_000, 100_000], [0, 8_000_000_000])})
        ),
    ),
    of_bytes("a deep header", _safetensors(b'{"a":' * 100_000)),
    of_bytes("a million tensors", _safetensors({f"t{n}": _tensor([0], [0, 0]) for n in range(100_000)})),
    of_bytes("one name twice", _safetensors(b'{"a":%s,"a":%s}' % ((_ONE,) * 2), b"\0" * 4)),
    of_bytes("a name of escapes", _safetensors({ESCAPES: _tensor([1], [0, 4])}, b"\0" * 4)),
    of_bytes("a long name", _safetensors({"x" * 1_000_000: _tensor([1], [0, 4])}, b"\0" * 4)),
    of_bytes("no metadata", _safetensors({"__metadata__": {"rest": "[" * 100_000}})),
    of_bytes("metadata of numbers", _safetensors({"__metadata__": {"rest": 5}})),
    of_bytes("rest of infinity", _safetensors({"__metadata__": {"rest": '{"step": Infinity, "seconds": NaN}'}})),
    of_bytes("rest of digits", _safetensors({"__metadata__": {"rest": '{"step": 1, "seconds": ' + "9" * 400 + "}"}})),
)  # fmt: skip

VOCABULARIES: tuple[Hostile, ...] = tuple(
    of_bytes(name, (json.dumps(["<unk>", "<eos>", *words])).encode())
    for name, words in (
        ("2 million words", [f"w{n}" for n in range(2_000_000)]),
        ("a word of 20 MB", ["a" * 20_000_000]),
        ("controls in words", ["\x1b[2J", "\x9b"]),
        ("words turned round", ["\u202eabc"]),
        ("one word twice", ["a", "a"]),
        ("5 million lists", [[]] * 5_000_000),
        ("numbers", [1, 2, 3]),
    )
)

RECORDS: tuple[Hostile, ...] = (
    of_bytes("a million rows of nothing", b'{"event":"evaluated"}\n' * 1_500_000),
    of_bytes("4 million rows of other kinds", b'{"event":"a"}\n' * 4_000_000),
    of_bytes("rows of lists", b'{"event":"evaluated","a":[%s]}\n' % (b"[]," * 300_000 + b"[]") * 40),
    of_bytes("rows of names", b"".join(
        b'{"event":"evaluated",%s}\n' % b",".join(b'"%d-%d":1' % (row, n) for n in range(2000)) for row in range(1000)
    )),
)  # fmt: skip

_NUMBERS = range(10**8, 10**8 + 200_000)
_LONG_ENOUGH = "a line long enough to be kept here"
CORPORA: tuple[Hostile, ...] = (
    of_bytes("a header of many columns", b"dialog" + b",a" * 400_000 + b"\n" + b"x" + b",1" * 400_000 + b"\n"),
    of_bytes("a quote that never ends", b'char,dialog\nSAM,"' + b"well now, what is this about\n" * 1_000_000),
    of_bytes("two million short lines", b"a\n" * 2_000_000),
    of_bytes("speakers of escapes", f"char,dialog\n{f'{ESCAPES[:12]},{_LONG_ENOUGH}{chr(10)}' * 30}".encode()),
    of_bytes("a speaker a line", b"char,dialog\n" + "".join(f"{n},{_LONG_ENOUGH}\n" for n in range(300_000)).encode()),
    of_bytes("lines turned round", f"char,dialog\n\u202eSAM,\u2066{_LONG_ENOUGH}\u202e\n".encode() * 30),
    of_bytes("a line of a megabyte", b"char,dialog\nSAM," + b"word " * 190_000 + b"\n"),
    of_bytes("every word another", b"dialog\n" + b"".join(b"%x %x a%x\n" % (n, 7 * n, n) for n in _NUMBERS)),
)  # fmt: skip


# Good files made hostile


def mutated(good: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """A good file with one to three things done to it; `others` are good files to take pieces from."""
    content = good
    if len(good) > 8 and good[8:9] == b"{" and chance.random() < 0.6:
        return mutated_tensors(good, chance)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        content = chance.choice(_WAYS)(content, others, chance)
    return content


def hostile_value(chance: random.Random) -> bytes:
    """A JSON value, or what is none, that nobody would write."""
    if chance.random() < 0.3:
        return chance.choice(RAW)
    return json.dumps(chance.choice((*TEXTS, *NUMBERS, *OTHERS))).encode()


def _place(content: bytes, chance: random.Random) -> int:
    return chance.randrange(len(content) + 1)


def _flip(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    flipped = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 10, 100)) if content else 0):
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def _cut(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    begin, end = sorted((_place(content, chance), _place(content, chance)))
    return content[:begin] if chance.random() < 0.5 else content[:begin] + content[end:]


def _repeat(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    begin, end = sorted((_place(content, chance), _place(content, chance)))
    times = min(chance.choice((2, 3, 1000)), 1 + 5_000_000 // max(1, end - begin))
    return content[:begin] + content[begin:end] * times + content[end:]


def _splice(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    other = chance.choice(others)
    return content[: _place(content, chance)] + other[_place(other, chance) :]


def _insert(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    place = _place(content, chance)
    return content[:place] + chance.choice((*RAW, ESCAPES.encode())) + content[place:]


def _replace_value(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    values = list(VALUE.finditer(content[:1_000_000]))
    if not values:
        return _insert(content, others, chance)
    found = chance.choice(values)
    return content[: found.start()] + hostile_value(chance) + content[found.end() :]


_WAYS = (_flip, _cut, _repeat, _splice, _insert, _replace_value, _replace_value, _replace_value, _replace_value)


def mutated_tensors(good: bytes, chance: random.Random) -> bytes:
    """Weights whose header still has the length that it claims."""
    length = int.from_bytes(good[:8], "little")
    header, data = good[8 : 8 + length], good[8 + length :]
    way = chance.randrange(4)
    if way == 0:  # numbers that are none, or too large, among the weights
        numbers = bytearray(data)
        for _ in range(chance.choice((1, 5, 1000))):
            at = 4 * chance.randrange(max(1, len(numbers) // 4))
            numbers[at : at + 4] = struct.pack("<I", chance.choice((0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 1)))
        data = bytes(numbers)
    elif way == 1 and b'\\"' in header:  # inside the rest of a resume, which is JSON in JSON
        rest = json.loads(header)["__metadata__"]["rest"].encode()
        values = list(VALUE.finditer(rest))
        found = chance.choice(values[-60:] if chance.random() < 0.8 else values)
        rest = rest[: found.start()] + hostile_value(chance) + rest[found.end() :]
        whole = json.loads(header)
        whole["__metadata__"]["rest"] = rest.decode(errors="replace")
        header = json.dumps(whole).encode()
    else:
        for _ in range(chance.choice((1, 2))):
            header = _replace_value(header, (header,), chance)
    return struct.pack("<Q", len(header)) + header + data
