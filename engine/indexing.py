"""Words to numbers, a block of text at a time: exactly what `tokenize` makes of each line, several times as fast."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.pauses import COMMA, LINE, NONE, SENTENCE, PauseIds
from engine.vocabulary import Ids, Tokenizer

Integers = npt.NDArray[np.int64]

_WORD_BYTES = b"abcdefghijklmnopqrstuvwxyz0123456789'"
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_LOWER = bytes(range(256)).lower()


def _table(tokenizer: Tokenizer) -> tuple[bytes, bytes]:
    """For each byte of a text in lower case: whether it is part of a word; which pause it makes between words."""
    if tokenizer == "spaces":
        return bytes(byte not in b" \n" for byte in range(256)), bytes(LINE * (byte == 10) for byte in range(256))
    inside = bytes(byte in _WORD_BYTES for byte in range(256))
    pauses = bytearray(NONE if inside[byte] or byte == ord(" ") else COMMA for byte in range(256))
    for mark in b".!?":
        pauses[mark] = SENTENCE
    pauses[ord("\n")] = LINE
    return inside, bytes(pauses)


_TABLES: dict[Tokenizer, tuple[bytes, bytes]] = {"words": _table("words"), "spaces": _table("spaces")}

SLOTS = 2**20
_SHIFT = np.uint64(64 - 20)
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
_LONGEST = 16
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
        self._keys = np.zeros((2, SLOTS), np.uint64)
        self._found = np.zeros(SLOTS, np.int32)
        """The number of the word in each slot, counted from 1; 0 where there is none."""

    @property
    def words(self) -> list[str]:
        """All words so far, by number."""
        return [word.decode() for word in self._numbers]

    def read(self, text: str) -> Indexed:
        """Index a block of clean lines, a line feed after each."""
        raw = self._bytes(text)
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
        return Indexed(self._number(raw, starts, ends), lengths, pauses)

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
        padded = raw + bytes(_LONGEST)
        eight = np.ndarray((len(padded) - 7,), np.dtype("<u8"), padded, strides=(1,))  # the 8 bytes from any place on
        first = eight[starts] & _MASKS[np.minimum(lengths, 8)]
        second = eight[starts + 8] & _MASKS[np.clip(lengths - 8, 0, 8)] if len(starts) else first
        mixed = (first * _FACTORS[0] ^ second * _FACTORS[1]) * _FACTORS[0]
        slots = (mixed >> _SHIFT).astype(np.int64)
        short = lengths <= _LONGEST
        ids: Ids = self._found[slots] - 1
        known = (ids >= 0) & (self._keys[0, slots] == first) & (self._keys[1, slots] == second) & short
        rest = np.flatnonzero(~known)
        places = zip(starts[rest].tolist(), ends[rest].tolist(), strict=True)
        ids[rest] = np.fromiter((self._numbers[raw[begin:end]] for begin, end in places), np.int32, len(rest))
        new = rest[(self._found[slots[rest]] == 0) & short[rest]]
        taken, which = np.unique(slots[new], return_index=True)
        new = new[which]
        self._keys[0, taken], self._keys[1, taken], self._found[taken] = first[new], second[new], ids[new] + 1
        return ids
