"""Datasets: the splits of a corpus as token ids, with the vocabulary and the cast of the training split."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, pairwise
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from engine.config import DataConfig, DataMode
from engine.data import tokenizers
from engine.data.arrays import CHUNK_SIZE, LINE_BLOCK, Int32Array, Int64Array, chunked_bincount
from engine.data.corpus import Corpus, Lines, read_corpus, split_indices
from engine.data.scripts import SCENE_END, encode_speaker, utterance_mask, utterance_text
from engine.data.speakers import MAX_CAST_SIZE, SOMEONE, display_name
from engine.data.tokenizers import EOS_ID, UNK_ID, Punctuation, PunctuationIds, TokenIds, Tokenizer, WordTokenizer
from engine.errors import ConfigError, CorpusError

ALPHABET_SAMPLE_LINES = 200  # number of lines in which unreadable letters are counted
HASH_SLOTS = 2**19
MIN_LOOKUP_BATCH = 1_000
_HASH_SHIFT = np.uint64(65 - HASH_SLOTS.bit_length())
_HASH_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
_MAX_HASHED_BYTES = 16
_BYTE_MASKS = np.array([(1 << (8 * num_bytes)) - 1 for num_bytes in range(9)], np.uint64)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_UNREAD_LETTERS = re.compile(r"[^\W\d_a-zA-Z]+")

ScalarT = TypeVar("ScalarT", bound=np.generic)


class CorpusSplits(NamedTuple):
    train: Lines
    valid: Lines
    test: Lines


class CorpusStats(NamedTuple):
    """Statistics of all tokens of a corpus, known or unknown, without `<eos>`; of scripts: of the utterances."""

    num_tokens: int
    num_distinct_tokens: int


@dataclass(frozen=True)
class Dataset:
    """An encoded corpus: its splits and the vocabulary of the training split."""

    corpus: Corpus
    split_lines: Sequence[Int32Array]  # indices of the lines of the training, validation and test split
    tokenizer: Tokenizer
    cast: tuple[str, ...]  # speakers that can be chosen to speak; none except in dialogue mode
    mode: DataMode
    train: TokenIds
    valid: TokenIds
    test: TokenIds
    train_punctuation: PunctuationIds  # punctuation class after each token of `train` `[time]`
    train_line_indices: Int32Array  # index in the corpus of each training line that has a token `[lines]`
    train_offsets: Int64Array  # start of each of these lines in `train`, and the end of the last one `[lines + 1]`
    train_scene_offsets: Int64Array  # the same of the scenes of a dialogue; all but the first begin with an empty line
    stats: CorpusStats

    @cached_property
    def splits(self) -> CorpusSplits:
        return CorpusSplits(*map(self.corpus.lines.take, self.split_lines))

    @cached_property
    def train_lines(self) -> list[TokenIds]:
        """Training lines that have a token, in dialogue mode with the name of the speaker, without their ends."""
        starts, num_end_tokens = self.train_offsets[:-1], int(self.mode != "stream")
        if self.mode == "dialogue":
            starts = starts + len(self.tokenizer.encode(SCENE_END)) * np.isin(starts, self.train_scene_offsets[1:])
        ends = self.train_offsets[1:] - num_end_tokens
        return [self.train[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    @cached_property
    def train_source_lines(self) -> Lines:
        """Corpus line of each of `train_lines`."""
        return self.corpus.lines.take(self.train_line_indices)

    def scored_mask(self, ids: TokenIds) -> npt.NDArray[np.bool_]:
        """Return `[time]` True for the tokens of a split that count: all, but of a script the utterances only."""
        return utterance_mask(self.tokenizer, ids) if self.mode == "dialogue" else np.ones(len(ids), np.bool_)


def load_dataset(config: DataConfig, tokenizer: Tokenizer | None = None) -> Dataset:
    """Read, split and encode the corpus of `config`, in memory.

    An open vocabulary is learned from the training split, or taken over as `tokenizer`; a closed one always consists of
    words of the training split. An unusable corpus raises a CorpusError, and contradicting settings a ConfigError.
    """
    mode, is_open = config.mode, config.tokenizer in tokenizers.OPEN_VOCABULARIES
    if mode == "dialogue" and not is_open:
        raise ConfigError(
            f"mode=dialogue reads and writes a script, which tokenizer={config.tokenizer} cannot spell; "
            "use --tokenizer bpe, or --mode line"
        )
    corpus = read_corpus(config)
    lines = corpus.lines
    splits: Sequence[Int32Array] = [np.arange(*edges, dtype=np.int32) for edges in pairwise((0, *corpus.file_ends))]
    if len(splits) == 1:  # one file
        splits = split_indices(corpus.file_ends[0], config.split_seed, config.split, config.held_out)
    if is_open:
        tokenizer = tokenizer or train_tokenizer(lines.take(splits[0]), config)
        if mode == "dialogue":
            splits = [np.sort(split[[bool(lines.texts[line]) for line in split]]) for split in splits]
        encoded = [encode_open(lines, split, tokenizer, mode) for split in splits]
        stats = _count_tokens(encoded, corpus.source, len(tokenizer), tokenizer if mode == "dialogue" else None)
    else:
        encoded, stats, tokenizer = _encode_words(corpus, splits, config)
    train, valid, test = encoded
    return Dataset(
        corpus=corpus,
        split_lines=splits,
        tokenizer=tokenizer,
        cast=_choose_cast(lines.take(train.lines), config, corpus.source) if mode == "dialogue" else (),
        mode=mode,
        train=train.ids,
        valid=valid.ids,
        test=test.ids,
        train_punctuation=train.punctuation,
        train_line_indices=train.lines,
        train_offsets=train.offsets,
        train_scene_offsets=train.scene_offsets,
        stats=stats,
    )


def _choose_cast(lines: Lines, config: DataConfig, source: str) -> tuple[str, ...]:
    # The speakers with `min_speaker_lines` of the training lines, most lines first, then SOMEONE.
    names, min_lines = lines.speaker_names, config.min_speaker_lines
    counts = np.bincount(lines.speaker_ids, minlength=len(names)).tolist()
    by_count = sorted((id for id in range(len(names)) if names[id] not in ("", SOMEONE)), key=lambda id: -counts[id])
    cast = [names[id] for id in by_count if counts[id] >= min_lines]
    if not cast:
        most = f"{display_name(names[by_count[0]])} has most, {counts[by_count[0]]}" if by_count else "it names none"
        raise CorpusError(
            f"{source}: no speaker has {min_lines} lines in the training split: {most}; use more text, lower --set "
            "min_speaker_lines=N, name another column with --speaker-column, or use --mode line"
        )
    if len(cast) >= MAX_CAST_SIZE:
        raise CorpusError(
            f"{source} has {len(cast):,} speakers with {min_lines} lines, but a cast has {MAX_CAST_SIZE - 1:,} at "
            "most; raise --set min_speaker_lines=N"
        )
    return (*cast, SOMEONE)


def concatenate_lines(lines: Sequence[TokenIds], mode: Literal["line", "stream"]) -> TokenIds:
    """Join lines into one text `[time]`, with `<eos>` after every line (line mode) or at the end (stream mode)."""
    end = np.array([EOS_ID], dtype=np.int32)
    parts = [part for ids in lines for part in (ids, end)] if mode == "line" else [*lines, end]
    return np.concatenate(parts)


def batchify(ids: npt.NDArray[ScalarT], batch_size: int) -> npt.NDArray[ScalarT]:
    """Cut a text `[time]` into parallel columns `[time / batch, batch]`, as a view; the remainder is left out."""
    num_rows = len(ids) // batch_size
    return ids[: num_rows * batch_size].reshape(batch_size, num_rows).T


# Encoding


@dataclass(frozen=True)
class EncodedSplit:
    ids: TokenIds  # token ids `[time]`, with `<eos>` as the mode says
    punctuation: PunctuationIds  # punctuation class after each token `[time]`; "none" in an open vocabulary
    lines: Int32Array  # index of each line in the corpus `[lines]`; lines without a word are left out
    offsets: Int64Array  # start of each line in `ids`, and the end of the last one `[lines + 1]`
    scene_offsets: Int64Array  # the same of the scenes `[scenes + 1]`


class TokenizedBlock(NamedTuple):
    ids: TokenIds  # `[time]`; of words: their numbers in a `TokenIndexer`
    line_lengths: Int64Array  # number of tokens of each line `[lines]`
    punctuation: PunctuationIds | None  # punctuation class after each token `[time]`; None in an open vocabulary


class TokenIndexer:
    """Assigns ids to the words of `split_words`, in order of first appearance after `<unk>` and `<eos>`.

    A hash table in NumPy finds all tokens of a block at once, twice as fast as a dict. It stores tokens of up to 16
    bytes as two integers. The few others (new, longer, or with a slot that is taken) are looked up in a dict.
    """

    def __init__(self, tokenizer: tokenizers.WordTokenizerName = "words") -> None:
        self._tokenizer = tokenizer
        special = {tokenizers.UNK.encode(): UNK_ID, tokenizers.EOS.encode(): EOS_ID}
        self.ids: dict[bytes, int] = defaultdict(count(2).__next__, special)  # by token, in UTF-8
        self._hash_table = np.zeros((HASH_SLOTS, 3), np.uint64)  # two integers of a token, and its id + 1 or 0
        is_words = tokenizer == "words"
        token_bytes = b"abcdefghijklmnopqrstuvwxyz0123456789'" if is_words else bytes(set(range(256)) - set(b" \n\0"))
        self._is_token_byte = bytes(byte in token_bytes for byte in range(256))
        marks = dict.fromkeys(token_bytes + b" ", Punctuation.NONE) | {ord("\n"): Punctuation.LINE_END}
        if is_words:
            marks |= dict.fromkeys(b".!?", Punctuation.SENTENCE_END)
        other = Punctuation.COMMA if is_words else Punctuation.NONE
        self._class_of_byte = bytes(marks.get(byte, other) for byte in range(256))

    def index_block(self, text: str) -> TokenizedBlock:
        """Tokenize a block of clean lines, each ended by a line feed."""
        if self._tokenizer == "words":
            # Lower-casing turns some signs into ASCII letters (the Kelvin sign into k); others are no part of a word.
            text = text.lower()
            if not text.isascii():
                text = _NOT_ASCII.sub(lambda sign: "." if sign[0] == "…" else ",", text)
        elif not text.replace("\n", " ").isprintable():
            text = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
        raw = text.encode() + bytes(_MAX_HASHED_BYTES)  # so that 16 bytes can be read from the start of any token
        edges = np.flatnonzero(np.diff(np.frombuffer(raw.translate(self._is_token_byte), np.int8), prepend=0, append=0))
        starts, ends = edges[::2], edges[1::2]
        line_ends = np.flatnonzero(np.frombuffer(raw, np.uint8) == ord("\n"))
        line_lengths = np.diff(np.searchsorted(starts, line_ends), prepend=0)
        punctuation = np.empty(0, np.uint8)
        if len(starts):
            # The maximum also covers marks before the first token of the next line, but a line end outweighs them.
            classes = np.frombuffer(raw.translate(self._class_of_byte), np.uint8)
            punctuation = np.maximum.reduceat(classes, starts)
        next_8_bytes = np.ndarray((len(raw) - 7,), np.dtype("<u8"), raw, strides=(1,))  # at every position
        ids, begin = np.empty(len(starts), np.int32), 0
        while begin < len(starts):  # small batches at first, so that repeated new tokens are found in the hash table
            batch = slice(begin, begin + max(MIN_LOOKUP_BATCH, len(self.ids)))
            lengths = ends[batch] - starts[batch]
            first = next_8_bytes[starts[batch]] & _BYTE_MASKS[np.minimum(lengths, 8)]
            second = next_8_bytes[starts[batch] + 8] & _BYTE_MASKS[np.clip(lengths - 8, 0, 8)]
            hashes = (first * _HASH_MULTIPLIERS[0] ^ second * _HASH_MULTIPLIERS[1]) * _HASH_MULTIPLIERS[0]
            slots = (hashes >> _HASH_SHIFT).astype(np.int64)
            is_short = lengths <= _MAX_HASHED_BYTES
            entries = self._hash_table[slots]
            found = entries[:, 2].astype(np.int32) - 1
            is_known = (found >= 0) & (entries[:, 0] == first) & (entries[:, 1] == second) & is_short
            missing = np.flatnonzero(~is_known)
            spans = zip(starts[batch][missing].tolist(), ends[batch][missing].tolist(), strict=True)
            found[missing] = np.fromiter((self.ids[raw[start:end]] for start, end in spans), np.int32, len(missing))
            new = missing[(entries[missing, 2] == 0) & is_short[missing]]
            new_slots, first_use = np.unique(slots[new], return_index=True)
            new = new[first_use]
            new_ids = found[new].astype(np.uint64) + np.uint64(1)
            self._hash_table[new_slots] = np.stack([first[new], second[new], new_ids], axis=1)
            ids[batch], begin = found, batch.stop
        return TokenizedBlock(ids, line_lengths, punctuation)


def _encode_words(
    corpus: Corpus, splits: Sequence[Int32Array], config: DataConfig
) -> tuple[list[EncodedSplit], CorpusStats, WordTokenizer]:
    # Encode the splits, and replace words with fewer than `min_count` occurrences in the first one by `<unk>`.
    lines, source, mode, min_count = corpus.lines, corpus.source, config.mode, config.min_count
    name: tokenizers.WordTokenizerName = "words" if config.tokenizer == "words" else "whitespace"
    sample = "\n".join(text[:1000] for text in lines.texts[:: -(-len(lines.texts) // ALPHABET_SAMPLE_LINES)])
    unread = _UNREAD_LETTERS.findall(sample) if name == "words" else []
    if sum(map(len, unread)) > sum(map(str.isalpha, sample)) / 2:  # as in a text in another script
        raise CorpusError(
            f"{source}: most of its letters are not a to z (such as {unread[0][:20]!r}), and the words tokenizer "
            "reads no others; use --set tokenizer=whitespace"
        )
    indexer = TokenIndexer(name)
    encoded = [
        _encode(lines, split, lambda block: indexer.index_block("\n".join([*block.texts, ""])), mode)
        for split in splits
    ]
    words = [token.decode() for token in indexer.ids]
    stats = _count_tokens(encoded, source, len(words))
    counts = chunked_bincount(encoded[0].ids, len(words))
    counts[[UNK_ID, EOS_ID]] = 0
    frequent = np.flatnonzero(counts >= min_count).tolist()
    kept = [id for id in frequent if len(words[id]) <= tokenizers.MAX_TOKEN_CHARACTERS]
    max_size = tokenizers.MAX_VOCABULARY_SIZE - 2
    if not 0 < len(kept) <= max_size:
        raise CorpusError(
            f"{source}: {len(kept):,} words occur {min_count} times or more in the training split, but a model has 1 "
            f"to {max_size:,}; use more text, or another --set min_count"
        )
    new_ids = np.full(len(words), UNK_ID, np.int32)
    new_ids[[EOS_ID, *kept]] = np.arange(EOS_ID, EOS_ID + 1 + len(kept))
    for split in encoded:
        for start in range(0, len(split.ids), CHUNK_SIZE):
            part = split.ids[start : start + CHUNK_SIZE]
            part[:] = new_ids[part]
    return encoded, stats, WordTokenizer((tokenizers.UNK, tokenizers.EOS, *(words[id] for id in kept)), name)


def train_tokenizer(lines: Lines, config: DataConfig) -> Tokenizer:
    """Train the characters or bpe tokenizer that `config` names on the lines of the training split."""
    texts: Iterable[str] = lines.texts
    if config.mode == "dialogue":
        texts = (
            part for line in lines for part in (f"{display_name(line.speaker or SOMEONE)}:", utterance_text(line.text))
        )
    if config.tokenizer == "characters":
        return tokenizers.CharacterTokenizer.from_lines(texts, config.min_count)
    return tokenizers.BPETokenizer.train(texts, config.vocabulary_size)


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
            said = tokenizer.encode_lines(list(map(utterance_text, block.texts)))
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
    # Encode the lines with the indices `split` in blocks, and add `<eos>` as `mode` says.
    ids, punctuation = bytearray(), bytearray()  # grow without a copy
    kept, lengths = [split[:0]], [np.zeros(1, np.int64)]
    for start in range(0, len(split), LINE_BLOCK):
        part = split[start : start + LINE_BLOCK]
        block = encode_block(lines.take(part))
        is_kept = block.line_lengths >= (0 if block.punctuation is None else 1)
        ends = np.cumsum(block.line_lengths)[is_kept] if mode == "line" else np.empty(0, np.int64)
        ids += np.insert(block.ids, ends, EOS_ID).tobytes()
        if block.punctuation is not None:
            punctuation += np.insert(block.punctuation, ends, Punctuation.LINE_END).tobytes()
        kept.append(part[is_kept])
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


def _count_tokens(
    splits: Sequence[EncodedSplit], source: str, vocabulary_size: int, script: Tokenizer | None = None
) -> CorpusStats:
    for split, name in zip(splits, ("training", "validation", "test"), strict=True):
        if not len(split.lines):
            raise CorpusError(f"{source}: the {name} split has no word; use more text or another --split-seed")
    texts = [split.ids[utterance_mask(script, split.ids)] if script else split.ids for split in splits]
    counts = np.add.reduce([chunked_bincount(ids, vocabulary_size) for ids in texts])
    counts[EOS_ID] = 0
    return CorpusStats(num_tokens=int(counts.sum()), num_distinct_tokens=int(np.count_nonzero(counts)))
