"""Datasets: the encoded splits of a corpus with their vocabulary and cast."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from engine.config import DataConfig, DataMode
from engine.data.arrays import Int32Array, Int64Array, chunked_bincount
from engine.data.corpus import Corpus, Lines, read_corpus, split_indices
from engine.data.encoding import EncodedSplit, encode_open, encode_words, limit_vocabulary, train_tokenizer
from engine.data.scripts import SCENE_END, utterance_mask
from engine.data.speakers import MAX_CAST_SIZE, SOMEONE, display_name
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer, is_open_vocabulary
from engine.data.tokenizers.words import PunctuationIds, WordTokenizerName, skipped_spans
from engine.errors import ConfigError, CorpusError

ALPHABET_SAMPLE_LINES = 200  # number of lines in which unreadable letters are counted
NUM_MOST_FREQUENT = 20

ScalarT = TypeVar("ScalarT", bound=np.generic)


class CorpusSplits(NamedTuple):
    train: Lines
    valid: Lines
    test: Lines


class CorpusStats(NamedTuple):
    """Statistics of all tokens of a corpus, known or unknown, without `<eos>`; of scripts: of the utterances."""

    num_tokens: int
    num_distinct_tokens: int
    most_frequent: tuple[tuple[str, int], ...]
    longest_line_index: int  # index of the first line in the corpus that has most tokens


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
    train_scene_offsets: (
        Int64Array  # in dialogue mode, the same of the scenes; all but the first start with an empty line
    )
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
    mode, is_open = config.mode, is_open_vocabulary(config.tokenizer)
    if mode == "dialogue" and not is_open:
        raise ConfigError(
            f"mode=dialogue reads and writes a script, which tokenizer={config.tokenizer} cannot spell; "
            "use --tokenizer bpe, or --mode line"
        )
    corpus = read_corpus(config)
    lines = corpus.lines
    splits: Sequence[Int32Array] = [np.arange(*edges, dtype=np.int32) for edges in pairwise((0, *corpus.file_ends))]
    if len(splits) == 1:  # one file
        splits = split_indices(len(lines), config.split_seed, config.split, config.held_out)
    if is_open:
        tokenizer = tokenizer or train_tokenizer(lines.take(splits[0]), config)
        if mode == "dialogue":
            splits = [np.sort(split[[bool(lines.texts[line]) for line in split]]) for split in splits]
        encoded = [encode_open(lines, split, tokenizer, mode) for split in splits]
        stats = _count_tokens(encoded, corpus.source, tokenizer.tokens, tokenizer if mode == "dialogue" else None)
    else:
        name: WordTokenizerName = "words" if config.tokenizer == "words" else "whitespace"
        _check_alphabet(lines, name, corpus.source)
        encoded, words = encode_words(lines, splits, mode, name)
        stats = _count_tokens(encoded, corpus.source, words)
        tokenizer = limit_vocabulary(encoded, words, config.min_count, name, corpus.source)
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


def _count_tokens(
    splits: Sequence[EncodedSplit], source: str, tokens: Sequence[str], script: Tokenizer | None = None
) -> CorpusStats:
    for split, name in zip(splits, ("training", "validation", "test"), strict=True):
        if not len(split.lines):
            raise CorpusError(f"{source}: the {name} split has no word; use more text or another --split-seed")
    texts = [split.ids[utterance_mask(script, split.ids)] if script else split.ids for split in splits]
    counts = np.add.reduce([chunked_bincount(ids, len(tokens)) for ids in texts])
    counts[EOS_ID] = 0
    lengths = np.concatenate([np.diff(split.offsets) for split in splits])
    indices = np.concatenate([split.lines for split in splits])
    most_frequent = np.argsort(-counts, kind="stable")[:NUM_MOST_FREQUENT].tolist()
    return CorpusStats(
        num_tokens=int(counts.sum()),
        num_distinct_tokens=int(np.count_nonzero(counts)),
        most_frequent=tuple((tokens[id], int(counts[id])) for id in most_frequent),
        longest_line_index=int(indices[lengths == lengths.max()].min()),
    )


def _check_alphabet(lines: Lines, tokenizer: WordTokenizerName, source: str) -> None:
    """Raise a CorpusError if the tokenizer skips most letters of a text, as in a text in another script."""
    step = -(-len(lines) // ALPHABET_SAMPLE_LINES)
    sample = "\n".join(text[:1000] for text in lines.texts[::step])
    skipped = [word for _, _, word in skipped_spans(sample, tokenizer) if word.isalpha()]
    if sum(map(len, skipped)) > sum(map(str.isalpha, sample)) / 2:
        raise CorpusError(
            f"{source}: most of its letters are not a to z (such as {skipped[0][:20]!r}), and the words tokenizer "
            "reads no others; use --set tokenizer=whitespace"
        )


def _choose_cast(lines: Lines, config: DataConfig, source: str) -> tuple[str, ...]:
    """Return the speakers with `min_speaker_lines` of the training lines, most lines first, then SOMEONE."""
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
