"""Words to numbers, a block of text at a time: exactly what `tokenize` makes of each line, several times as fast."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.data.punctuation import COMMA, LINE, NONE, SENTENCE, PauseIds
from engine.data.vocabulary import Ids, Tokenizer

Integers = npt.NDArray[np.int64]

_WORD_BYTES = b"abcdefghijklmnopqrstuvwxyz0123456789'"
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_LOWER = bytes(range(256)).lower()


def _table(tokenizer: Tokenizer) -> tuple[bytes, bytes]:
    """For each byte of a text in lower case: whether it is part of a word; which pause it makes between words."""
    if tokenizer == "spaces":
        return bytes(byte not in b" \n\0" for byte in range(256)), bytes(LINE * (byte == 10) for byte in range(256))
    inside = bytes(byte in _WORD_BYTES for byte in range(256))
    pauses = bytearray(NONE if inside[byte] or byte == ord(" ") else COMMA for byte in range(256))
    for mark in b".!?":
        pauses[mark] = SENTENCE
    pauses[ord("\n")] = LINE
    return inside, bytes(pauses)


_TABLES: dict[Tokenizer, tuple[bytes, bytes]] = {"words": _table("words"), "spaces": _table("spaces")}

_BITS = 19
SLOTS = 2**_BITS
_SHIFT = np.uint64(64 - _BITS)
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
_LONGEST = 16
AT_ONCE = 1_000
_MASKS = np.array([(1 << (8 * bytes_kept)) - 1 for bytes_kept in range(9)], np.uint64)


@dataclass(frozen=True)
class Indexed:
    """A block of lines as numbers."""

    ids: Ids
    """Of each word `[time]`, as a place in `WordIndex.words`."""
    lengths: Integers
    """Words of each line."""
    pauses: PauseIds
    """What stands after each word `[time]`."""


class _Numbers(dict[bytes, int]):
    """Words and their numbers; a new word gets the next one."""

    def __missing__(self, word: bytes) -> int:
        number = self[word] = len(self)
        return number


class WordIndex:
    """Numbers for words, in order of first appearance.

    A word of up to 16 bytes is two integers, and where those two stand in a hash table, so does its number: all words
    of a block are looked up at once. Only those that are not there, being new, long, or of a slot that another word
    came to first, are made texts and looked up one by one. Real words come so often that this is a few in a hundred.
    """

    def __init__(self, tokenizer: Tokenizer = "words") -> None:
        self._tokenizer = tokenizer
        self._numbers = _Numbers()
        self._slots = np.zeros((SLOTS, 3), np.uint64)
        """A word's two integers and its number, counted from 1; 0 where there is none."""

    @property
    def words(self) -> list[str]:
        """All words so far, by number."""
        return [word.decode() for word in self._numbers]

    def read(self, text: str) -> Indexed:
        """Index a block of clean lines, a line feed after each."""
        raw = self._bytes(text)
        raw += bytes(_LONGEST)  # so that 16 bytes can be looked at from any word on
        inside_table, pause_table = _TABLES[self._tokenizer]
        inside = np.frombuffer(raw.translate(inside_table), np.int8)
        edges = np.flatnonzero(np.diff(inside, prepend=0, append=0))
        starts, ends = edges[::2], edges[1::2]
        line_ends = np.flatnonzero(np.frombuffer(raw, np.uint8) == ord("\n"))
        lengths = np.diff(np.searchsorted(starts, line_ends), prepend=0)
        pauses = np.empty(0, np.uint8)
        if len(starts):
            # The pauses are numbered by weight, and what stands before a line's first word weighs less than its end.
            pauses = np.maximum.reduceat(np.frombuffer(raw.translate(pause_table), np.uint8), starts)
        ids, begin = np.empty(len(starts), np.int32), 0
        while begin < len(starts):  # the fewer words are known, the fewer at once: a word that comes again shall be
            part = slice(begin, begin + max(AT_ONCE, len(self._numbers)))
            ids[part] = self._number(raw, starts[part], ends[part])
            begin = part.stop
        return Indexed(ids, lengths, pauses)

    def _bytes(self, text: str) -> bytes:
        """The text as bytes that the tables tell words and marks by."""
        if self._tokenizer == "spaces":
            if not text.replace("\n", " ").isprintable():
                text = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
            return text.encode()
        if text.isascii():
            return text.encode().translate(_LOWER)
        # In lower case some signs are ASCII letters (that of Kelvin is a k). No other is part of a word.
        return _NOT_ASCII.sub(lambda sign: "." if sign[0] == "…" else ",", text.lower()).encode()

    def _number(self, raw: bytes, starts: Integers, ends: Integers) -> Ids:
        lengths = ends - starts
        eight = np.ndarray((len(raw) - 7,), np.dtype("<u8"), raw, strides=(1,))  # the 8 bytes from any place on
        first = eight[starts] & _MASKS[np.minimum(lengths, 8)]
        second = eight[starts + 8] & _MASKS[np.clip(lengths - 8, 0, 8)]
        mixed = (first * _FACTORS[0] ^ second * _FACTORS[1]) * _FACTORS[0]
        slots = (mixed >> _SHIFT).astype(np.int64)
        short = lengths <= _LONGEST
        found = self._slots[slots]
        ids: Ids = found[:, 2].astype(np.int32) - 1
        known = (ids >= 0) & (found[:, 0] == first) & (found[:, 1] == second) & short
        rest = np.flatnonzero(~known)
        places = zip(starts[rest].tolist(), ends[rest].tolist(), strict=True)
        ids[rest] = np.fromiter((self._numbers[raw[begin:end]] for begin, end in places), np.int32, len(rest))
        new = rest[(found[rest, 2] == 0) & short[rest]]
        taken, which = np.unique(slots[new], return_index=True)
        new = new[which]
        self._slots[taken] = np.stack([first[new], second[new], ids[new].astype(np.uint64) + np.uint64(1)], axis=1)
        return ids
