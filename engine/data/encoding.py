"""Encoding of the splits of a corpus: their token ids, and the vocabulary of the training split."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from engine.config import DataConfig
from engine.data.arrays import LINE_BLOCK, Int32Array, Int64Array, iter_slices
from engine.data.corpus import Lines
from engine.data.scripts import SCENE_END, encode_speaker, said_text, speaker_head
from engine.data.speakers import SOMEONE
from engine.data.tokenizers.base import EOS, EOS_ID, MAX_TOKEN_CHARACTERS, UNK, UNK_ID, TokenIds, Tokenizer
from engine.data.tokenizers.bytes import CharacterTokenizer
from engine.data.tokenizers.words import (
    COMMA,
    LINE_END,
    NONE,
    SENTENCE_END,
    PunctuationIds,
    WordTokenizer,
    WordTokenizerName,
)

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


DataMode = Literal["line", "stream", "dialogue"]
"""line: `<eos>` ends every line; stream: one `<eos>` ends each split; dialogue: so too, and each split is a script."""


@dataclass(frozen=True)
class EncodedSplit:
    """Token ids of a split."""

    ids: TokenIds  # token ids `[time]`, with `<eos>` as the mode says
    punctuation: PunctuationIds  # punctuation class after each token `[time]`; "none" in an open vocabulary
    lines: Int32Array
    """Index of each line in the corpus `[lines]`. Lines without a word of a closed vocabulary are left out."""
    offsets: Int64Array  # start of each line in `ids`, and the end of the last one `[lines + 1]`


def encode_words(
    lines: Lines, splits: Sequence[Int32Array], mode: DataMode, name: WordTokenizerName
) -> tuple[list[EncodedSplit], list[str]]:
    """Encode the lines with the indices `splits`, first the training lines, as words in order of first appearance.

    Returns:
        The splits, and the words by id. The first two are `<unk>` and `<eos>`, also where the text has them.
    """
    indexer = TokenIndexer(name)

    def index(texts: list[str]) -> TokenizedBlock:
        return indexer.index_block("\n".join([*texts, ""]))

    encoded = [_encode(lines, split, index, mode) for split in splits]
    return encoded, indexer.tokens


def limit_vocabulary(
    splits: Sequence[EncodedSplit], words: Sequence[str], min_count: int, name: WordTokenizerName
) -> tuple[list[EncodedSplit], WordTokenizer]:
    """Replace rare words by `<unk>`: the result has the vocabulary of the training split, the first of `splits`.

    Other words have at least `min_count` occurrences in it. The other arguments are what `encode_words` returns.
    """
    counts = np.bincount(splits[0].ids, minlength=len(words))
    counts[[UNK_ID, EOS_ID]] = 0
    kept = [id for id in np.flatnonzero(counts >= min_count).tolist() if len(words[id]) <= MAX_TOKEN_CHARACTERS]
    new_ids = np.full(len(words), UNK_ID, np.int32)
    new_ids[[EOS_ID, *kept]] = np.arange(EOS_ID, EOS_ID + 1 + len(kept))
    tokenizer = WordTokenizer((UNK, EOS, *(words[id] for id in kept)), name)
    return [replace(split, ids=new_ids[split.ids]) for split in splits], tokenizer


def train_tokenizer(lines: Lines, config: DataConfig) -> Tokenizer:
    """Train the characters or bpe tokenizer that `config` names on the lines of the training split."""
    texts: Iterable[str] = lines.texts
    if config.mode == "dialogue":
        texts = (part for line in lines for part in (speaker_head(line.speaker or SOMEONE), said_text(line.text)))
    if config.tokenizer == "characters":
        return CharacterTokenizer.from_lines(texts, config.min_count)
    # Imported here: it loads Hugging Face's tokenizers, which models of words do not need.
    from engine.data.tokenizers.bpe import BPETokenizer

    return BPETokenizer.train(texts, config.vocabulary_size)


def encode_open(lines: Lines, split: Int32Array, tokenizer: Tokenizer, mode: DataMode) -> EncodedSplit:
    """Encode the lines with the indices `split` in an open vocabulary.

    In stream mode, each line includes its line feed. In dialogue mode, each line gets its head, and each scene but the
    first an empty line before it (see `engine.data.scripts`).
    """
    names = lines.speaker_names if mode == "dialogue" else ()
    heads = [np.array(encode_speaker(tokenizer, name or SOMEONE), np.int32) for name in names]
    scene_end, scene_starts = tokenizer.encode(SCENE_END), set(find_scene_starts(lines.scene_ids[split])[1:].tolist())
    speakers, num_done = lines.speaker_ids[split].tolist(), 0

    def index(texts: list[str]) -> TokenizedBlock:
        nonlocal num_done
        if mode != "dialogue":
            ids = tokenizer.encode_lines([f"{text}\n" for text in texts] if mode == "stream" else texts)
        else:
            ids = tokenizer.encode_lines(list(map(said_text, texts)))
            for index, number in enumerate(range(num_done, num_done + len(texts))):
                before = [scene_end] if number in scene_starts else []
                ids[index] = np.concatenate([*before, heads[speakers[number]], ids[index]])
            num_done += len(texts)
        return TokenizedBlock(np.concatenate(ids), np.array(list(map(len, ids))), None)

    return _encode(lines, split, index, mode)


def find_scene_starts(scene_ids: Int32Array) -> Int64Array:
    """Return the indices of the first lines of all scenes, given the number of the scene of each line."""
    return np.flatnonzero(np.diff(scene_ids, prepend=-1))


def _encode(
    lines: Lines, split: Int32Array, index_lines: Callable[[list[str]], TokenizedBlock], mode: DataMode
) -> EncodedSplit:
    """Encode lines in blocks, and add `<eos>` as `mode` says."""
    ids, punctuation = bytearray(), bytearray()  # grow without a copy
    kept, lengths = [], []
    for part in iter_slices(len(split), LINE_BLOCK):
        block = index_lines([lines.texts[line] for line in split[part].tolist()])
        is_kept = block.line_lengths >= (0 if block.punctuation is None else 1)
        ends = np.cumsum(block.line_lengths)[is_kept] if mode == "line" else np.empty(0, np.int64)
        ids += np.insert(block.ids, ends, EOS_ID).tobytes()
        if block.punctuation is not None:
            punctuation += np.insert(block.punctuation, ends, LINE_END).tobytes()
        kept.append(split[part][is_kept])
        lengths.append(block.line_lengths[is_kept] + (mode == "line"))
    if mode != "line":
        ids += np.array([EOS_ID], np.int32).tobytes()
        punctuation += bytes([LINE_END])
    all_ids = np.frombuffer(ids, np.int32)
    classes = np.frombuffer(punctuation, np.uint8)
    if len(classes) < len(all_ids):  # an open vocabulary
        classes = np.zeros(len(all_ids), np.uint8)
        classes[all_ids == EOS_ID] = NONE if mode == "dialogue" else LINE_END
    return EncodedSplit(all_ids, classes, np.concatenate(kept), np.concatenate([[0], *lengths]).cumsum())
