"""Encoding of the splits of a corpus: their token ids, and the vocabulary of the training split."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np

from engine.config import DataConfig, DataMode
from engine.data.arrays import LINE_BLOCK, Int32Array, Int64Array, iter_slices
from engine.data.corpus import Lines
from engine.data.scripts import SCENE_END, encode_speaker, said_text, speaker_head
from engine.data.speakers import SOMEONE
from engine.data.tokenizers import base
from engine.data.tokenizers.base import EOS, EOS_ID, UNK, UNK_ID, TokenIds, Tokenizer
from engine.data.tokenizers.bytes import CharacterTokenizer
from engine.data.tokenizers.words import Punctuation, PunctuationIds, WordTokenizer, WordTokenizerName
from engine.errors import CorpusError

HASH_SLOTS = 2**19
MIN_LOOKUP_BATCH = 1_000
_HASH_SHIFT = np.uint64(65 - HASH_SLOTS.bit_length())
_HASH_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
_MAX_HASHED_BYTES = 16
_BYTE_MASKS = np.array([(1 << (8 * num_bytes)) - 1 for num_bytes in range(9)], np.uint64)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


@dataclass(frozen=True)
class EncodedSplit:
    ids: TokenIds  # token ids `[time]`, with `<eos>` as the mode says
    punctuation: PunctuationIds  # punctuation class after each token `[time]`; "none" in an open vocabulary
    lines: Int32Array  # index of each line in the corpus `[lines]`; lines without a word are left out
    offsets: Int64Array  # start of each line in `ids`, and the end of the last one `[lines + 1]`
    scene_offsets: Int64Array  # the same of the scenes `[scenes + 1]`


class TokenizedBlock(NamedTuple):
    ids: TokenIds  # index of each token in `TokenIndexer.tokens` `[time]`
    line_lengths: Int64Array  # number of tokens of each line `[lines]`
    punctuation: PunctuationIds | None  # punctuation class after each token `[time]`; None in an open vocabulary


class TokenIndexer:
    """Assigns ids to the words of `split_words`, in order of first appearance after `<unk>` and `<eos>`.

    A hash table in NumPy finds all tokens of a block at once, twice as fast as a dict. It stores tokens of up to 16
    bytes as two integers. The few others (new, longer, or with a slot that is taken) are looked up in a dict.
    """

    def __init__(self, tokenizer: WordTokenizerName = "words") -> None:
        self._tokenizer = tokenizer
        self._token_to_id = defaultdict(count(2).__next__, {UNK.encode(): UNK_ID, EOS.encode(): EOS_ID})
        self._hash_table = np.zeros((HASH_SLOTS, 3), np.uint64)  # two integers of a token, and its id + 1 or 0
        is_words = tokenizer == "words"
        token_bytes = b"abcdefghijklmnopqrstuvwxyz0123456789'" if is_words else bytes(set(range(256)) - set(b" \n\0"))
        self._is_token_byte = bytes(byte in token_bytes for byte in range(256))
        marks = dict.fromkeys(token_bytes + b" ", Punctuation.NONE) | {ord("\n"): Punctuation.LINE_END}
        if is_words:
            marks |= dict.fromkeys(b".!?", Punctuation.SENTENCE_END)
        other = Punctuation.COMMA if is_words else Punctuation.NONE
        self._class_of_byte = bytes(marks.get(byte, other) for byte in range(256))

    @property
    def tokens(self) -> list[str]:
        return [token.decode() for token in self._token_to_id]

    def index_block(self, text: str) -> TokenizedBlock:
        """Tokenize a block of clean lines, each ended by a line feed."""
        # Zeros, so that 16 bytes can be read from the start of any token.
        raw = self._normalize(text) + bytes(_MAX_HASHED_BYTES)
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


def encode_words(
    lines: Lines, splits: Sequence[Int32Array], mode: DataMode, name: WordTokenizerName
) -> tuple[list[EncodedSplit], list[str]]:
    """Encode the lines with the indices `splits`, first the training lines; return also all words, by id."""
    indexer = TokenIndexer(name)
    encoded = [
        _encode(lines, split, lambda block: indexer.index_block("".join(f"{text}\n" for text in block.texts)), mode)
        for split in splits
    ]
    return encoded, indexer.tokens


def limit_vocabulary(
    splits: Sequence[EncodedSplit], words: Sequence[str], min_count: int, name: WordTokenizerName, source: str
) -> WordTokenizer:
    """Replace words with fewer than `min_count` occurrences in the first split by `<unk>`, in place."""
    counts = np.bincount(splits[0].ids, minlength=len(words))
    counts[[UNK_ID, EOS_ID]] = 0
    kept = [id for id in np.flatnonzero(counts >= min_count).tolist() if len(words[id]) <= base.MAX_TOKEN_CHARACTERS]
    if not 0 < len(kept) <= base.MAX_VOCABULARY_SIZE - 2:
        raise CorpusError(
            f"{source}: {len(kept):,} words occur {min_count} times or more in the training split, but a model has 1 "
            f"to {base.MAX_VOCABULARY_SIZE - 2:,}; use more text, or another --set min_count"
        )
    new_ids = np.full(len(words), UNK_ID, np.int32)
    new_ids[[EOS_ID, *kept]] = np.arange(EOS_ID, EOS_ID + 1 + len(kept))
    for split in splits:
        for part in iter_slices(len(split.ids)):
            split.ids[part] = new_ids[split.ids[part]]
    return WordTokenizer((UNK, EOS, *(words[id] for id in kept)), name)


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
    """Encode the lines with the indices `split` in an open vocabulary, in dialogue mode as a script."""
    names = lines.speaker_names if mode == "dialogue" else ()
    heads = [np.array(encode_speaker(tokenizer, name or SOMEONE), np.int32) for name in names]
    scene_end, scene_before = tokenizer.encode(SCENE_END), lines.scene_ids[split[:1]]

    def encode_block(block: Lines) -> TokenizedBlock:
        nonlocal scene_before
        if mode == "dialogue":
            starts_scene = np.diff(block.scene_ids, prepend=scene_before).astype(bool)
            scene_before = block.scene_ids[-1:]
            said = tokenizer.encode_lines(list(map(said_text, block.texts)))
            parts = zip(starts_scene.tolist(), block.speaker_ids.tolist(), said, strict=True)
            ids = [
                np.concatenate([scene_end[: len(scene_end) * is_start], heads[id], text])
                for is_start, id, text in parts
            ]
        else:
            ids = tokenizer.encode_lines([f"{text}\n" for text in block.texts] if mode == "stream" else block.texts)
        return TokenizedBlock(np.concatenate(ids), np.array(list(map(len, ids))), None)

    return _encode(lines, split, encode_block, mode)


def _encode(
    lines: Lines, split: Int32Array, encode_block: Callable[[Lines], TokenizedBlock], mode: DataMode
) -> EncodedSplit:
    """Encode the lines with the indices `split` in blocks, and add `<eos>` as `mode` says."""
    ids, punctuation = bytearray(), bytearray()  # grow without a copy
    kept, lengths = [split[:0]], [np.zeros(1, np.int64)]
    for part in iter_slices(len(split), LINE_BLOCK):
        block = encode_block(lines.take(split[part]))
        is_kept = block.line_lengths >= (0 if block.punctuation is None else 1)
        ends = np.cumsum(block.line_lengths)[is_kept] if mode == "line" else np.empty(0, np.int64)
        ids += np.insert(block.ids, ends, EOS_ID).tobytes()
        if block.punctuation is not None:
            punctuation += np.insert(block.punctuation, ends, Punctuation.LINE_END).tobytes()
        kept.append(split[part][is_kept])
        lengths.append(block.line_lengths[is_kept] + (mode == "line"))
    if mode != "line":
        ids += np.array([EOS_ID], np.int32).tobytes()
        punctuation += bytes([Punctuation.LINE_END])
    all_ids, classes = np.frombuffer(ids, np.int32), np.frombuffer(punctuation, np.uint8)
    if len(classes) < len(all_ids):  # an open vocabulary
        classes = np.zeros(len(all_ids), np.uint8)
        classes[all_ids == EOS_ID] = Punctuation.NONE if mode == "dialogue" else Punctuation.LINE_END
    kept_lines, offsets = np.concatenate(kept), np.concatenate(lengths).cumsum()
    scene_starts = np.flatnonzero(np.diff(lines.scene_ids[kept_lines], prepend=-1)) if mode == "dialogue" else kept[0]
    return EncodedSplit(all_ids, classes, kept_lines, offsets, np.append(offsets[scene_starts], offsets[-1]))
