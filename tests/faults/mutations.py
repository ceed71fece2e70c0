"""Mutations of valid files: blind changes of bytes, and exchanges of tokens, lines and JSON values."""

import json
import random
import re
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202eevil\u2066\x00\r\b\x7f"
"""Escape sequences, control characters and marks that reverse the direction of text."""
TEXTS = (
    ESCAPES, "\ud800", "\0", "x" * 100_000, "", "../../../outside", "/etc/passwd", "/dev/zero", "a\nb", "[red]x[/red]",
    "%s{0}",
)  # fmt: skip
NUMBERS = (-1, 0, 1, 2**31, 2**63, 2**64, 10**9, 10**400, -(10**18), 0.5, 1e308, -1e308, 5e-324)
OTHER_VALUES: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"a": {"b": []}}, [1] * 1000)
RAW_VALUES = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 10_000, b"-" + b"9" * 400, b"[" * 100_000, b'{"a":' * 100_000,
    b'"\\ud800"', b'"\\u0000"', b'"\\u001b[2J"', b"\xff\xfe", b"\xc2\x9b", b"\x00", b"\x1b[2J", b"null",
    b"1" * 5000 + b".5", b"[" * 500 + b"]" * 500, b"//", b"'", b'"', b",,", b"{}", b"\xef\xbb\xbf", b"\r", b"\n" * 1000,
)  # fmt: skip
"""Parts of JSON files, most of which are not JSON."""
HOSTILE_VALUES = (*RAW_VALUES, *(json.dumps(value).encode() for value in (*TEXTS, *NUMBERS, *OTHER_VALUES)))
"""JSON values, and texts that are not JSON, that no program would write."""

MAX_SEARCHED_BYTES = 1_000_000
"""Bytes at the start of a file in which tokens and values are found."""
VALUE = re.compile(rb'-?[0-9][0-9.e+-]*|"(?:[^"\\\n]|\\.)*+"|true|false|null')
"""JSON string, number or constant."""
TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*+"|[\w.-]+|[^\w\s]')
FLOAT_BITS = (0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 1)
"""Bits of 32-bit floats: NaN, both infinities, the largest number and the smallest."""


class Mutator:
    """Source of mutated files."""

    def __init__(self, seeds: Sequence[bytes], max_bytes: int) -> None:
        """Prepare mutations.

        Args:
            seeds: Valid files, from which tokens and values are taken.
            max_bytes: Maximum size of a mutated file.
        """
        self.corpus = list(seeds)
        """Files from which parts are spliced into others."""
        self._max_bytes = max_bytes
        self._hostile_values = [value for value in HOSTILE_VALUES if len(value) <= max_bytes // 5]
        searched = [seed[:MAX_SEARCHED_BYTES] for seed in seeds]
        self._tokens: list[bytes] = (
            sorted({token for seed in searched for token in TOKEN.findall(seed)}) or self._hostile_values
        )
        values = sorted({value for seed in searched for value in VALUE.findall(seed)}) or self._hostile_values
        hostile_json = [value for value in self._hostile_values if _is_json(value)]
        self._value_sources: list[list[bytes]] = [values, values, hostile_json, hostile_json, self._hostile_values]
        # Mutations of JSON values are the most likely to pass the first checks of a parser.
        self._mutations: list[Callable[[bytes, random.Random], bytes]] = [
            self._flip, self._cut, self._repeat, self._splice, self._move_line, self._replace_token,
            *[self._replace_value] * 6,
        ]  # fmt: skip

    def mutate(self, content: bytes, rng: random.Random) -> bytes:
        """Return a file with one to four changes, and at most `max_bytes`."""
        # Blind changes of a safetensors file hardly ever leave a header of the length that the file claims.
        if content[8:9] == b"{" and rng.random() < 0.7:
            # An earlier mutation may have damaged the header.
            with suppress(AttributeError, LookupError, TypeError, ValueError):
                return self._mutate_safetensors(content, rng)[: self._max_bytes]
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            content = rng.choice(self._mutations)(content, rng)[: self._max_bytes]
        return content

    def _flip(self, content: bytes, rng: random.Random) -> bytes:
        """Change some bytes."""
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 1, 2, 10, 100)) if content else 0):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)

    def _cut(self, content: bytes, rng: random.Random) -> bytes:
        """Remove a part, or everything from an offset on."""
        start, end = _random_span(content, rng)
        return content[:start] if rng.random() < 0.2 else content[:start] + content[end:]

    def _repeat(self, content: bytes, rng: random.Random) -> bytes:
        """Repeat a part."""
        start, end = _random_span(content, rng)
        times = min(rng.choice((1, 1, 2, 70, 1000)), self._max_bytes // max(1, end - start))
        return content[:end] + content[start:end] * times + content[end:]

    def _splice(self, content: bytes, rng: random.Random) -> bytes:
        """Insert a part of another file, or replace a part by it."""
        other = rng.choice(self.corpus)
        start, end = _random_span(other, rng)
        offset = _random_offset(content, rng)
        rest = content[offset if rng.random() < 0.5 else offset + end - start :]
        return content[:offset] + other[start:end] + rest

    def _move_line(self, content: bytes, rng: random.Random) -> bytes:
        """Remove, repeat or move a line."""
        lines = content.splitlines(keepends=True) or [content]
        line = lines.pop(rng.randrange(len(lines)))
        for _ in range(rng.randrange(3)):
            lines.insert(rng.randrange(len(lines) + 1), line)
        return b"".join(lines)

    def _replace_token(self, content: bytes, rng: random.Random) -> bytes:
        """Replace a token by another one, or insert one."""
        spans = [match.span() for match in TOKEN.finditer(content[:MAX_SEARCHED_BYTES])]
        start, end = rng.choice(spans) if spans else (0, 0)
        token = rng.choice(self._tokens if rng.random() < 0.7 else self._hostile_values)
        return content[:start] + token + content[start if rng.random() < 0.2 else end :]

    def _replace_value(self, content: bytes, rng: random.Random) -> bytes:
        """Replace a JSON value or name by another one."""
        spans = [match.span() for match in VALUE.finditer(content[:MAX_SEARCHED_BYTES])]
        if not spans:
            return self._replace_token(content, rng)
        start, end = rng.choice(spans)
        return content[:start] + rng.choice(rng.choice(self._value_sources)) + content[end:]

    def _mutate_safetensors(self, content: bytes, rng: random.Random) -> bytes:
        """Mutate the numbers, the header or the trainer state of a safetensors file, with a header length that fits.

        Raises:
            AttributeError: If the trainer state is not a string.
            LookupError: If the header is incomplete.
            TypeError: If the header is not an object.
            ValueError: If the header is not JSON.
        """
        length = int.from_bytes(content[:8], "little")
        header, data = content[8 : 8 + length], content[8 + length :]
        kind = rng.randrange(4)
        if kind == 0:
            numbers = bytearray(data)
            for _ in range(rng.choice((1, 5, 1000))):
                offset = 4 * rng.randrange(max(1, len(numbers) // 4))
                numbers[offset : offset + 4] = struct.pack("<I", rng.choice(FLOAT_BITS))
            data = bytes(numbers)
        elif kind == 1 and b'\\"' in header:  # the trainer state is JSON inside a JSON string
            parsed = json.loads(header)
            state = parsed["__metadata__"]["trainer_state"].encode()
            # The progress is at the end of the state; the states of random generators take up most of the rest.
            split = max(0, len(state) - 2000) if rng.random() < 0.8 else 0
            state = state[:split] + self._replace_value(state[split:], rng)
            parsed["__metadata__"]["trainer_state"] = state.decode(errors="replace")
            header = json.dumps(parsed).encode()
        else:
            for _ in range(rng.choice((1, 2))):
                header = self._replace_value(header, rng)
        return struct.pack("<Q", len(header)) + header + data


def _random_offset(content: bytes, rng: random.Random) -> int:
    return rng.randrange(len(content) + 1)


def _random_span(content: bytes, rng: random.Random) -> tuple[int, int]:
    """Return the start and end of a part, which is usually short."""
    start = _random_offset(content, rng)
    return start, min(len(content), start + rng.choice((1, 2, 4, 16, 64, len(content))))


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True
