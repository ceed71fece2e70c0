"""Mutations of valid files: changed bytes, moved lines, and exchanged JSON values."""

import json
import re
import struct

from engine.storage.tensor_file import seal

ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202eevil\u2066\x00\r\b\x7f"
"""Escape sequences, control characters and marks that reverse the direction of text."""
VALUES = (
    ESCAPES, "\ud800", "", "x" * 100_000, "../../../outside", "/etc/passwd", "/dev/zero", "a\nb", "[red]x[/red]",
    "%s{0}", -1, 0, 1, 2**31, 2**63, 2**64, 10**9, 10**400, -(10**18), 0.5, 1e308, -1e308, 5e-324,
    None, True, False, [], {}, [[]], {"a": {"b": []}}, [1] * 1000,
)  # fmt: skip
RAW_VALUES = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 10_000, b"-" + b"9" * 400, b"[" * 100_000, b'{"a":' * 100_000,
    b'"\\u0000"', b'"\\u001b[2J"', b"\xff\xfe", b"\xc2\x9b", b"\x00", b"\x1b[2J", b"1" * 5000 + b".5",
    b"[" * 500 + b"]" * 500, b"//", b"'", b'"', b",,", b"\xef\xbb\xbf", b"\r", b"\n" * 1000,
)  # fmt: skip
HOSTILE_VALUES = [json.dumps(value).encode() for value in VALUES]
VALUE = re.compile(rb'-?[0-9][0-9.e+-]*|"(?:[^"\\\n]|\\.)*+"|true|false|null')
WORD = re.compile(rb"[\w.-]+|[^\w\s]")
CHECKSUM = re.compile(rb'"crc32":"[0-9a-f]{8}"')
FLOAT_BITS = (0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 1)
"""Bits of 32-bit floats: NaN, both infinities, the largest number and the smallest."""


class Mutator:
    """Source of mutated files; `seeds` are valid files, from which values and parts are taken."""

    def __init__(self, seeds):
        self._seeds = list(seeds)
        values = sorted({value for seed in seeds for value in VALUE.findall(seed)})
        self._value_sources = [values, values, HOSTILE_VALUES, HOSTILE_VALUES, RAW_VALUES]

    def mutate(self, content, rng):
        # Blind changes of a safetensors file hardly ever leave a header of the length that the file claims.
        if content[8:9] == b"{" and rng.random() < 0.7:
            return self._mutate_safetensors(content, rng)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            # Mutations of JSON values are the most likely to pass the first checks of a parser.
            change = rng.choice((self._change_bytes, self._move_line, *[self._replace_value] * 3))
            content = change(content, rng)
        return content

    def _change_bytes(self, content, rng):
        """Flip, cut or repeat some bytes, or insert a part of another file."""
        start, end = _random_span(content, rng)
        match rng.choice(("flip", "cut", "truncate", "repeat", "insert")):
            case "flip":
                return content[:start] + rng.randbytes(end - start) + content[end:]
            case "cut":
                return content[:start] + content[end:]
            case "truncate":
                return content[:start]
            case "repeat":
                times = min(rng.choice((1, 1, 2, 70, 1000)), 1_000_000 // max(1, end - start))
                return content[:end] + content[start:end] * times + content[end:]
        other = rng.choice(self._seeds)
        part = slice(*_random_span(other, rng))
        return content[:start] + other[part] + content[start if rng.random() < 0.5 else end :]

    def _move_line(self, content, rng):
        lines = content.splitlines(keepends=True) or [content]
        line = lines.pop(rng.randrange(len(lines)))
        for _ in range(rng.randrange(3)):
            lines.insert(rng.randrange(len(lines) + 1), line)
        return b"".join(lines)

    def _replace_value(self, content, rng):
        """Replace a JSON value or name, or in other files a word, by another one."""
        spans = [match.span() for match in (VALUE if rng.random() < 0.8 else WORD).finditer(content)]
        start, end = rng.choice(spans or [(0, 0)])
        return content[:start] + rng.choice(rng.choice(self._value_sources)) + content[end:]

    def _mutate_safetensors(self, content, rng):
        """Mutate the numbers, the header or the trainer state of a safetensors file, with a header length that fits."""
        length = int.from_bytes(content[:8], "little")
        header, data = content[8 : 8 + length], bytearray(content[8 + length :])
        kind = rng.randrange(4)
        if kind == 0:
            for _ in range(rng.choice((1, 5, 1000))):
                offset = 4 * rng.randrange(max(1, len(data) // 4))
                data[offset : offset + 4] = struct.pack("<I", rng.choice(FLOAT_BITS))
        elif kind == 1 and b'\\"' in header:  # the trainer state is JSON inside a JSON string
            parsed = json.loads(header)
            state = parsed["__metadata__"]["trainer_state"].encode()
            # The progress is at the end of the state; the states of random generators take up most of the rest.
            split = max(0, len(state) - 2000) if rng.random() < 0.8 else 0
            parsed["__metadata__"]["trainer_state"] = (state[:split] + self._replace_value(state[split:], rng)).decode(
                errors="replace"
            )
            header = json.dumps(parsed, separators=(",", ":")).encode()
        else:
            header = self._replace_value(header, rng)
        content = struct.pack("<Q", len(header)) + header + data
        return seal(content) if CHECKSUM.search(header) else content  # otherwise nothing behind the checksum is tried


def _random_span(content, rng):
    """Return the start and end of a part, which is usually short."""
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 2, 4, 16, 64, len(content))))
