"""Datasets: the encoded splits of a corpus with their vocabulary, and a summary of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from engine.config import DataConfig
from engine.data.arrays import Int32Array, Int64Array, chunked_bincount
from engine.data.cast import SpeakerPair, SpeakerSummary, choose_cast, count_pairs, summarize_speakers
from engine.data.corpus import Corpus, Line, Lines, read_corpus, split_corpus
from engine.data.encoding import (
    DataMode,
    EncodedSplit,
    encode_open,
    encode_words,
    find_scene_starts,
    limit_vocabulary,
    train_tokenizer,
)
from engine.data.scripts import SCENE_END, utterance_mask
from engine.data.tokenizers.base import EOS_ID, MAX_VOCABULARY_SIZE, TokenIds, Tokenizer, is_open_vocabulary
from engine.data.tokenizers.words import PunctuationIds, WordTokenizerName, skipped_spans
from engine.errors import ConfigError, CorpusError

ALPHABET_SAMPLE_LINES = 200  # number of lines in which unreadable letters are counted
NUM_MOST_FREQUENT = 20
MAX_PAIRS = 20  # number of pairs of speakers in a summary

ScalarT = TypeVar("ScalarT", bound=np.generic)


class TokenLines(Sequence[TokenIds]):
    """The lines of a text as sequences of token ids, without their ends."""

    def __init__(self, ids: TokenIds, offsets: Int64Array, starts: Int64Array, num_end_tokens: int) -> None:
        """Create a view of a text `[time]`; `starts` has the first token of each line, after a possible empty line."""
        self.ids, self.offsets = ids, offsets
        self._starts, self._num_end_tokens = starts, num_end_tokens

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> TokenIds:  # type: ignore[override]
        line = range(len(self))[index]  # resolves negative indices and raises IndexError
        return self.ids[int(self._starts[line]) : int(self.offsets[line + 1]) - self._num_end_tokens]


class CorpusSplits(NamedTuple):
    """The three splits of a corpus. Every line is in exactly one of them, or in a dialogue in none if it is empty."""

    train: Lines
    valid: Lines
    test: Lines


class CorpusStats(NamedTuple):
    """Statistics of all tokens of a corpus, known or unknown."""

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
    train_lines: TokenLines
    """Training lines that have a token, for reading them in another order; in dialogue mode, lines of a script."""
    train_line_indices: Int32Array  # index in the corpus of each of `train_lines`
    train_scene_offsets: Int64Array
    """Start of each scene of `train`, and the end of the last one `[scenes + 1]`; empty except in dialogue mode.

    Every scene but the first starts with an empty line.
    """
    train: TokenIds
    valid: TokenIds
    test: TokenIds
    train_punctuation: PunctuationIds  # punctuation class after each token of `train` `[time]`
    stats: CorpusStats

    @cached_property
    def splits(self) -> CorpusSplits:
        """Lines of the three splits."""
        return CorpusSplits(*map(self.corpus.lines.take, self.split_lines))

    @cached_property
    def train_source_lines(self) -> Lines:
        """Corpus line of each of `train_lines`."""
        return self.corpus.lines.take(self.train_line_indices)

    def scored_mask(self, ids: TokenIds) -> npt.NDArray[np.bool_]:
        """Return `[time]` True for the tokens of a split that count: all, but of a script the utterances only."""
        return utterance_mask(self.tokenizer, ids) if self.mode == "dialogue" else np.ones(len(ids), np.bool_)


def load_dataset(config: DataConfig, tokenizer: Tokenizer | None = None) -> Dataset:
    """Read, split and encode the corpus of `config`, in memory.

    An open vocabulary is learned from the training split, or taken over as `tokenizer` from an earlier run. A closed
    vocabulary always consists of words of the training split. In dialogue mode, lines without a text are left out, and
    each split is a script in file order.

    Raises:
        CorpusError: If the corpus cannot be read, is too small, or has no speakers in dialogue mode.
        ConfigError: If there is a validation text without a test text, or the reverse, or a closed vocabulary in
            dialogue mode.
    """
    mode = config.mode
    if mode == "dialogue" and not is_open_vocabulary(config.tokenizer):
        raise ConfigError(
            f"mode=dialogue reads and writes a script, which tokenizer={config.tokenizer} cannot spell; "
            "use --tokenizer bpe, or --mode line"
        )
    corpus = read_corpus(config)
    lines, splits = corpus.lines, split_corpus(corpus, config)
    if is_open_vocabulary(config.tokenizer):
        tokenizer = tokenizer or train_tokenizer(lines.take(splits[0]), config)
        if mode == "dialogue":
            splits = [np.sort(split[[bool(lines.texts[line]) for line in split]]) for split in splits]
            _check_not_empty(splits, corpus.source)
        encoded = [encode_open(lines, split, tokenizer, mode) for split in splits]
        stats = _count_tokens(encoded, tokenizer.tokens, tokenizer if mode == "dialogue" else None)
    else:
        name: WordTokenizerName = "words" if config.tokenizer == "words" else "whitespace"
        _check_alphabet(lines, name, corpus.source)
        encoded, words = encode_words(lines, splits, mode, name)
        _check_not_empty([split.lines for split in encoded], corpus.source)
        stats = _count_tokens(encoded, words)
        encoded, tokenizer = limit_vocabulary(encoded, words, config.min_count, name)
        _check_vocabulary_size(len(tokenizer), corpus.source, config.min_count)
    train, valid, test = encoded
    cast: tuple[str, ...] = ()
    starts, scene_offsets = train.offsets[:-1], np.empty(0, np.int64)
    if mode == "dialogue":
        cast = choose_cast(lines.take(train.lines), config.min_speaker_lines, corpus.source)
        scenes, starts = find_scene_starts(lines.scene_ids[train.lines]), starts.copy()
        starts[scenes[1:]] += len(tokenizer.encode(SCENE_END))
        scene_offsets = np.append(train.offsets[scenes], train.offsets[-1])
    return Dataset(
        corpus=corpus,
        split_lines=splits,
        tokenizer=tokenizer,
        cast=cast,
        mode=mode,
        train_lines=TokenLines(train.ids, train.offsets, starts, num_end_tokens=int(mode != "stream")),
        train_line_indices=train.lines,
        train_scene_offsets=scene_offsets,
        train=train.ids,
        valid=valid.ids,
        test=test.ids,
        train_punctuation=train.punctuation,
        stats=stats,
    )


def _count_tokens(
    splits: Sequence[EncodedSplit], tokens: Sequence[str], script_tokenizer: Tokenizer | None = None
) -> CorpusStats:
    """Count the tokens of all splits but `<eos>` (of scripts: the tokens of utterances), and find the longest line."""
    texts = [split.ids for split in splits]
    if script_tokenizer:
        texts = [ids[utterance_mask(script_tokenizer, ids)] for ids in texts]
    counts = np.add.reduce([chunked_bincount(ids, len(tokens)) for ids in texts])
    counts[EOS_ID] = 0
    lengths = np.concatenate([np.diff(split.offsets) for split in splits])
    indices = np.concatenate([split.lines for split in splits])
    return CorpusStats(
        num_tokens=int(counts.sum()),
        num_distinct_tokens=int(np.count_nonzero(counts)),
        most_frequent=tuple(
            (tokens[id], int(counts[id])) for id in np.argsort(-counts, kind="stable")[:NUM_MOST_FREQUENT]
        ),
        longest_line_index=int(indices[lengths == lengths.max()].min()),
    )


def _check_not_empty(splits: Sequence[Int32Array], source: str) -> None:
    for split, name in zip(splits, ("training", "validation", "test"), strict=True):
        if not len(split):
            raise CorpusError(f"{source}: the {name} split has no word; use more text or another --split-seed")


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


def _check_vocabulary_size(size: int, source: str, min_count: int) -> None:
    if size == 2:
        raise CorpusError(
            f"{source}: no word occurs {min_count} times in the training split; use more text or --set min_count=1"
        )
    if size > MAX_VOCABULARY_SIZE:
        raise CorpusError(
            f"{source}: {size:,} words occur {min_count} times or more, but a model has {MAX_VOCABULARY_SIZE:,} at "
            f"most; use --set min_count={min_count + 1} or more"
        )


def concatenate_lines(lines: Sequence[TokenIds], mode: Literal["line", "stream"]) -> TokenIds:
    """Join lines into one text `[time]`, with `<eos>` after every line (line mode) or at the end (stream mode)."""
    end = np.array([EOS_ID], dtype=np.int32)
    parts = [part for ids in lines for part in (ids, end)] if mode == "line" else [*lines, end]
    return np.concatenate(parts)


def batchify(ids: npt.NDArray[ScalarT], batch_size: int) -> npt.NDArray[ScalarT]:
    """Cut a text `[time]` into parallel columns `[time / batch, batch]`; the remainder is left out.

    The result is a view, since a text can be large. Convert a window of it to int64 for PyTorch.
    """
    num_rows = len(ids) // batch_size
    return ids[: num_rows * batch_size].reshape(batch_size, num_rows).T


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one split, without `<eos>`."""

    num_lines: int
    num_tokens: int
    unk_rate: float


@dataclass(frozen=True)
class DatasetSummary:
    """Summary of a dataset, as `lotr-tui data info` shows it."""

    num_rows: int
    num_lines: int
    num_tokens: int
    num_distinct_tokens: int
    vocabulary_size: int
    cast: tuple[str, ...]  # speakers that can be chosen to speak; none except in dialogue mode
    speaker_line_counts: tuple[tuple[str, int], ...]  # speakers and their numbers of lines, most lines first
    num_scenes: int
    speakers: tuple[SpeakerSummary, ...]  # all speakers, most lines first
    speaker_pairs: tuple[SpeakerPair, ...]
    """The most frequent pairs of speakers of whom one speaks after the other, most frequent first."""
    marks: tuple[tuple[str, int], ...]
    """Marks that were separated from the names of speakers, with their numbers of lines, most lines first."""
    longest_line: Line
    longest_line_tokens: int
    most_frequent: tuple[tuple[str, int], ...]
    splits: dict[str, SplitSummary]  # summary of the "train", "valid" and "test" split


def summarize_dataset(dataset: Dataset) -> DatasetSummary:
    """Count the lines, tokens and speakers of a dataset."""
    lines, stats, unk_id = dataset.corpus.lines, dataset.stats, dataset.tokenizer.unk_id
    longest, pairs = lines[stats.longest_line_index], count_pairs(lines)
    speakers = summarize_speakers(lines, pairs)
    splits = {}
    for name, part in zip(CorpusSplits._fields, dataset.split_lines, strict=True):
        ids = getattr(dataset, name)
        num_tokens = int(np.count_nonzero(ids != EOS_ID))
        num_unknown = 0 if unk_id is None else int(np.count_nonzero(ids == unk_id))
        splits[name] = SplitSummary(len(part), num_tokens, num_unknown / max(1, num_tokens))
    return DatasetSummary(
        num_rows=dataset.corpus.num_rows,
        num_lines=len(lines),
        num_tokens=stats.num_tokens,
        num_distinct_tokens=stats.num_distinct_tokens,
        vocabulary_size=len(dataset.tokenizer),
        cast=dataset.cast,
        speaker_line_counts=tuple((speaker.name, speaker.num_lines) for speaker in speakers),
        num_scenes=len(np.unique(lines.scene_ids)),
        speakers=speakers,
        speaker_pairs=tuple(pairs[:MAX_PAIRS]),
        marks=dataset.corpus.marks,
        longest_line=longest,
        longest_line_tokens=len(dataset.tokenizer.encode(longest.text)),
        most_frequent=stats.most_frequent,
        splits=splits,
    )
