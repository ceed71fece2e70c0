"""Fast tokenization of large texts: numbers the distinct tokens of a block of lines at a time, like `split_words`."""

import re
from typing import NamedTuple

import numpy as np

from engine.data.arrays import Int64Array
from engine.data.punctuation import COMMA, LINE_END, NONE, SENTENCE_END, PunctuationIds
from engine.data.tokenizers.base import EOS, EOS_ID, UNK, UNK_ID, TokenIds
from engine.data.tokenizers.words import WordTokenizerName

HASH_SLOTS = 2**19
MIN_LOOKUP_BATCH = 1_000
_HASH_SHIFT = np.uint64(65 - HASH_SLOTS.bit_length())
_HASH_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
_MAX_HASHED_BYTES = 16
_BYTE_MASKS = np.array([(1 << (8 * num_bytes)) - 1 for num_bytes in range(9)], np.uint64)
_WORD_BYTES = b"abcdefghijklmnopqrstuvwxyz0123456789'"
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


class TokenizedBlock(NamedTuple):
    """A tokenized block of lines."""

    ids: TokenIds  # index of each token in `TokenIndexer.tokens` `[time]`
    line_lengths: Int64Array  # number of tokens of each line `[lines]`
    punctuation: PunctuationIds | None  # punctuation class after each token `[time]`; None in an open vocabulary


class _AutoIncrementIds(dict[bytes, int]):
    """Mapping from tokens to ids. A new token gets the next id."""

    def __missing__(self, token: bytes) -> int:
        id = self[token] = len(self)
        return id


class TokenIndexer:
    """Assigns ids to tokens, in order of first appearance after `<unk>` and `<eos>`.

    A hash table in NumPy finds the ids of all tokens of a block at once. A token of up to 16 bytes is stored in the
    table as two integers. Only the other tokens (new, longer, or with a slot that is taken) are looked up one by one
    in a dict, which happens to a few percent of real text.
    """

    def __init__(self, tokenizer: WordTokenizerName = "words") -> None:
        self._tokenizer = tokenizer
        self._token_to_id = _AutoIncrementIds({UNK.encode(): UNK_ID, EOS.encode(): EOS_ID})
        self._hash_table = np.zeros((HASH_SLOTS, 3), np.uint64)
        """Two integers of a token and its id + 1 in each slot; 0 if the slot is free."""
        token_bytes = _WORD_BYTES if tokenizer == "words" else bytes(set(range(256)) - set(b" \n\0"))
        self._is_token_byte = bytes(byte in token_bytes for byte in range(256))
        marks = {ord("\n"): LINE_END} | (dict.fromkeys(b".!?", SENTENCE_END) if tokenizer == "words" else {})
        other = COMMA if tokenizer == "words" else NONE
        self._class_of_byte = bytes(marks.get(b, NONE if b in token_bytes + b" " else other) for b in range(256))

    @property
    def tokens(self) -> list[str]:
        """All distinct tokens so far, by id."""
        return [token.decode() for token in self._token_to_id]

    def index_block(self, text: str) -> TokenizedBlock:
        """Tokenize a block of clean lines, each ended by a line feed."""
        raw = self._normalize(text)
        raw += bytes(_MAX_HASHED_BYTES)  # so that 16 bytes can be read from the start of any token
        is_token_byte = np.frombuffer(raw.translate(self._is_token_byte), np.int8)
        edges = np.flatnonzero(np.diff(is_token_byte, prepend=0, append=0))
        starts, ends = edges[::2], edges[1::2]
        line_ends = np.flatnonzero(np.frombuffer(raw, np.uint8) == ord("\n"))
        line_lengths = np.diff(np.searchsorted(starts, line_ends), prepend=0)
        punctuation = np.empty(0, np.uint8)
        if len(starts):
            # The maximum also covers marks before the first token of the next line, but a line end outweighs them.
            classes = np.frombuffer(raw.translate(self._class_of_byte), np.uint8)
            punctuation = np.maximum.reduceat(classes, starts)
        ids, begin = np.empty(len(starts), np.int32), 0
        while begin < len(starts):  # small batches at first, so that repeated new tokens are found in the hash table
            batch = slice(begin, begin + max(MIN_LOOKUP_BATCH, len(self._token_to_id)))
            ids[batch] = self._lookup_ids(raw, starts[batch], ends[batch])
            begin = batch.stop
        return TokenizedBlock(ids, line_lengths, punctuation)

    def _normalize(self, text: str) -> bytes:
        """Return `text` as bytes whose tokens and marks each have their byte classes."""
        if self._tokenizer == "whitespace":
            if not text.replace("\n", " ").isprintable():
                text = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
            return text.encode()
        if text.isascii():
            return text.encode().lower()
        # Lower-casing turns some signs into ASCII letters (the Kelvin sign into k); all others are not part of a word.
        return _NOT_ASCII.sub(lambda sign: "." if sign[0] == "…" else ",", text.lower()).encode()

    def _lookup_ids(self, raw: bytes, starts: Int64Array, ends: Int64Array) -> TokenIds:
        lengths = ends - starts
        next_8_bytes = np.ndarray((len(raw) - 7,), np.dtype("<u8"), raw, strides=(1,))  # at every position
        first = next_8_bytes[starts] & _BYTE_MASKS[np.minimum(lengths, 8)]
        second = next_8_bytes[starts + 8] & _BYTE_MASKS[np.clip(lengths - 8, 0, 8)]
        hashes = (first * _HASH_MULTIPLIERS[0] ^ second * _HASH_MULTIPLIERS[1]) * _HASH_MULTIPLIERS[0]
        slots = (hashes >> _HASH_SHIFT).astype(np.int64)
        is_short = lengths <= _MAX_HASHED_BYTES
        entries = self._hash_table[slots]
        ids: TokenIds = entries[:, 2].astype(np.int32) - 1
        is_known = (ids >= 0) & (entries[:, 0] == first) & (entries[:, 1] == second) & is_short
        missing = np.flatnonzero(~is_known)
        spans = zip(starts[missing].tolist(), ends[missing].tolist(), strict=True)
        ids[missing] = np.fromiter((self._token_to_id[raw[begin:end]] for begin, end in spans), np.int32, len(missing))
        new = missing[(entries[missing, 2] == 0) & is_short[missing]]
        new_slots, first_use = np.unique(slots[new], return_index=True)
        new = new[first_use]
        new_ids = ids[new].astype(np.uint64) + np.uint64(1)
        self._hash_table[new_slots] = np.stack([first[new], second[new], new_ids], axis=1)
        return ids
