"""Datasets: the encoded splits of a corpus with their vocabulary, and a summary of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from engine.config import DataConfig
from engine.data.arrays import Int64Array, iter_slices
from engine.data.cast_summary import SpeakerPair, SpeakerSummary, summarize_cast
from engine.data.corpus import Corpus, CorpusSplits
from engine.data.encoding import CorpusStats, DataMode, EncodedCorpus
from engine.data.lines import Line, Lines
from engine.data.preparation import prepare_corpus
from engine.data.punctuation import PunctuationIds
from engine.data.script_form import SCENE_END, utterance_mask
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.errors import CorpusError

ScalarT = TypeVar("ScalarT", bound=np.generic)


class TokenLines(Sequence[TokenIds]):
    """The lines of a text as sequences of token ids, without their ends."""

    def __init__(
        self, ids: TokenIds, offsets: Int64Array, num_end_tokens: int, starts: Int64Array | None = None
    ) -> None:
        """Create a view of a text `[time]` whose lines end in `num_end_tokens` tokens that are left out.

        `offsets` `[lines + 1]` has the start of each line and the end of the last one; `starts` `[lines]` has the first
        token of each line, if an empty line may come before it.
        """
        self.ids, self.offsets, self._num_end_tokens = ids, offsets, num_end_tokens
        self._starts = offsets if starts is None else starts

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> TokenIds:  # type: ignore[override]
        line = range(len(self))[index]  # resolves negative indices and raises IndexError
        return self.ids[int(self._starts[line]) : int(self.offsets[line + 1]) - self._num_end_tokens]


@dataclass(frozen=True)
class Dataset:
    """An encoded corpus: its splits and the vocabulary of the training split.

    Arrays that grow with the text may be memory-mapped, so that a text can be larger than memory.
    """

    corpus: Corpus
    splits: CorpusSplits
    tokenizer: Tokenizer
    cast: tuple[str, ...]
    """Speakers that can be chosen to speak; none except in dialogue mode."""
    mode: DataMode
    train_lines: TokenLines
    """Training lines that have a token, for reading them in another order; in dialogue mode, lines of a script."""
    train_source_lines: Lines
    """Corpus line of each of `train_lines`."""
    train_scene_offsets: Int64Array
    """Start of each scene of `train`, and the end of the last one `[scenes + 1]`; empty except in dialogue mode.

    Every scene but the first starts with an empty line.
    """
    train: TokenIds
    valid: TokenIds
    test: TokenIds
    train_punctuation: PunctuationIds
    """Punctuation class after each token of `train` `[time]`."""
    stats: CorpusStats

    def get_split(self, name: str) -> TokenIds:
        """Return the ids `[time]` of the "train", "valid" or "test" split; another name raises a CorpusError."""
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        if name not in splits:
            raise CorpusError(f"split {name!r} is not one of train, valid, test")
        return splits[name]

    def scored_mask(self, ids: TokenIds) -> npt.NDArray[np.bool_]:
        """Return `[time]` True for the tokens of a split that count: all, but of a script the utterances only."""
        return utterance_mask(self.tokenizer, ids) if self.mode == "dialogue" else np.ones(len(ids), np.bool_)


def load_dataset(config: DataConfig, tokenizer: Tokenizer | None = None) -> Dataset:
    """Read, split and encode the corpus of `config`. The result of a large corpus is cached on disk.

    An open vocabulary is learned from the training split, or taken over as `tokenizer` from an earlier run. A closed
    vocabulary always consists of words of the training split. In dialogue mode, lines without a text are left out, and
    each split is a script in file order.

    Raises:
        CorpusError: If the corpus cannot be read, is too small, or its cache cannot be written.
        ConfigError: If there is a validation text without a test text, or the reverse, or a closed vocabulary in
            dialogue mode.
    """
    prepared = prepare_corpus(config, tokenizer)
    corpus, encoded = prepared.corpus, prepared.encoded
    train_end, valid_end = encoded.split_ends
    train = encoded.ids[:train_end]
    return Dataset(
        corpus=corpus,
        splits=CorpusSplits(*map(corpus.lines.take, prepared.split_indices)),
        tokenizer=prepared.tokenizer,
        cast=prepared.cast,
        mode=config.mode,
        train_lines=_train_lines(encoded, train, config.mode, prepared.tokenizer),
        train_source_lines=corpus.lines.take(encoded.train_line_indices),
        train_scene_offsets=encoded.train_scene_offsets,
        train=train,
        valid=encoded.ids[train_end:valid_end],
        test=encoded.ids[valid_end:],
        train_punctuation=encoded.punctuation[:train_end],
        stats=prepared.stats,
    )


def _train_lines(encoded: EncodedCorpus, train: TokenIds, mode: DataMode, tokenizer: Tokenizer) -> TokenLines:
    """Return the training lines without their ends."""
    offsets = encoded.train_line_offsets
    if mode != "dialogue":
        return TokenLines(train, offsets, num_end_tokens=int(mode == "line"))
    starts = offsets[:-1].copy()
    starts[np.searchsorted(offsets, encoded.train_scene_offsets[1:-1])] += len(tokenizer.encode(SCENE_END))
    return TokenLines(train, offsets, num_end_tokens=1, starts=starts)


def concatenate_lines(lines: Sequence[TokenIds], mode: Literal["line", "stream"]) -> TokenIds:
    """Join lines into one text `[time]`, with `<eos>` after every line (line mode) or at the end (stream mode)."""
    end = np.array([EOS_ID], dtype=np.int32)
    parts = [part for ids in lines for part in (ids, end)] if mode == "line" else [*lines, end]
    return np.concatenate(parts)


def batchify(ids: npt.NDArray[ScalarT], batch_size: int) -> npt.NDArray[ScalarT]:
    """Cut a text `[time]` into parallel columns `[time / batch, batch]`; the remainder is left out.

    The result is a view, since a text can be larger than memory. Convert a window of it to int64 for PyTorch.
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
    cast: tuple[str, ...]
    """Speakers that can be chosen to speak; none except in dialogue mode."""
    speaker_line_counts: tuple[tuple[str, int], ...]
    """Speakers and their numbers of lines, most lines first."""
    num_scenes: int
    speakers: tuple[SpeakerSummary, ...]
    """All speakers, most lines first."""
    speaker_pairs: tuple[SpeakerPair, ...]
    """The most frequent pairs of speakers of whom one speaks after the other, most frequent first."""
    marks: tuple[tuple[str, int], ...]
    """Marks that were separated from the names of speakers, with their numbers of lines, most lines first."""
    longest_line: Line
    longest_line_tokens: int
    most_frequent: tuple[tuple[str, int], ...]
    splits: dict[str, SplitSummary]
    """Summary of the "train", "valid" and "test" split."""


def summarize_dataset(dataset: Dataset) -> DatasetSummary:
    """Count the lines, tokens and speakers of a dataset."""
    lines, stats = dataset.corpus.lines, dataset.stats
    cast = summarize_cast(lines)
    split_lines = {"train": dataset.splits.train, "valid": dataset.splits.valid, "test": dataset.splits.test}
    return DatasetSummary(
        num_rows=dataset.corpus.num_rows,
        num_lines=len(lines),
        num_tokens=stats.num_tokens,
        num_distinct_tokens=stats.num_distinct_tokens,
        vocabulary_size=len(dataset.tokenizer),
        cast=dataset.cast,
        speaker_line_counts=tuple((speaker.name, speaker.num_lines) for speaker in cast.speakers),
        num_scenes=cast.num_scenes,
        speakers=cast.speakers,
        speaker_pairs=cast.pairs,
        marks=dataset.corpus.marks,
        longest_line=lines[stats.longest_line_index],
        longest_line_tokens=stats.longest_line_tokens,
        most_frequent=stats.most_frequent,
        splits={
            name: _summarize_split(lines, dataset.get_split(name), dataset.tokenizer)
            for name, lines in split_lines.items()
        },
    )


def _summarize_split(lines: Sequence[Line], ids: TokenIds, tokenizer: Tokenizer) -> SplitSummary:
    num_ends = _count(ids, EOS_ID)
    num_unknown = 0 if tokenizer.unk_id is None else _count(ids, tokenizer.unk_id)
    num_tokens = len(ids) - num_ends
    return SplitSummary(len(lines), num_tokens, unk_rate=num_unknown / num_tokens if num_tokens else 0.0)


def _count(ids: TokenIds, token: int) -> int:
    return sum(int(np.sum(ids[chunk] == token)) for chunk in iter_slices(len(ids)))
