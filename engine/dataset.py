"""From a corpus to the ids a model reads: split, vocabulary, and where `<eos>` stands."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from engine import corpus as reading
from engine.config import BUNDLED, DataConfig
from engine.corpus import Corpus, Line, Split
from engine.errors import ConfigError, CorpusError
from engine.files import assets_folder
from engine.pauses import LINE, PauseIds, pauses_of
from engine.vocabulary import EOS_ID, UNK_ID, Ids, Vocabulary, tokenize

Mode = Literal["line", "stream"]


@dataclass(frozen=True)
class Dataset:
    """A corpus made ready: its split, the vocabulary of the training part, and the ids of all three."""

    corpus: Corpus
    split: Split
    vocabulary: Vocabulary
    mode: Mode
    train_lines: tuple[Ids, ...]
    """The training lines one by one, without `<eos>`, so that they can be put in another order."""
    train: Ids
    valid: Ids
    test: Ids

    @cached_property
    def train_pauses(self) -> tuple[PauseIds, ...]:
        """What stands after each word of `train_lines`, in the text that they were made from."""
        pauses = (pauses_of(line.text, self.vocabulary.tokenizer) for line in self.split.train)
        return tuple(its for its in pauses if its.size)

    def part(self, name: str) -> Ids:
        """The ids `[time]` of "train", "valid" or "test".

        Raises:
            CorpusError: no such split.
        """
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        if name not in parts:
            raise CorpusError(f"split {name!r} is none of train, valid, test")
        return parts[name]


def prepare(config: DataConfig) -> Dataset:
    """Read, split and encode the corpus of `config`.

    Raises:
        CorpusError: it cannot be read, or is too small.
        ConfigError: there is a validation text but no test text, or the other way round.
    """
    if bool(config.valid_corpus) != bool(config.test_corpus):
        raise ConfigError("valid_corpus and test_corpus belong together; give both or neither")
    if config.valid_corpus:
        parts = [read(config, path) for path in (config.corpus, config.valid_corpus, config.test_corpus)]
        corpus, split = reading.merge(parts), Split(*(part.lines for part in parts))
    else:
        corpus = read(config)
        split = reading.split(corpus.lines, config.split_seed)
    training_words = (word for line in split.train for word in tokenize(line.text, config.tokenizer))
    vocabulary = Vocabulary.from_words(training_words, config.min_count, config.tokenizer)
    if len(vocabulary) == 2:
        raise CorpusError(
            f"{corpus.source}: no word is seen {config.min_count} times in the training split; "
            "more text is needed, or --set min_count=1"
        )
    train_lines, valid_lines, test_lines = (
        encode_lines(part, vocabulary) for part in (split.train, split.valid, split.test)
    )
    if not (valid_lines and test_lines):
        raise CorpusError(
            f"{corpus.source}: the validation or test split has no word; more text is needed, or another --split-seed"
        )
    train, valid, test = (join_lines(lines, config.mode) for lines in (train_lines, valid_lines, test_lines))
    return Dataset(corpus, split, vocabulary, config.mode, train_lines, train, valid, test)


def read(config: DataConfig, name: str | None = None) -> Corpus:
    """Read the corpus that `config` names, or another file in the same way."""
    name = config.corpus if name is None else name
    if name == BUNDLED:
        path = assets_folder() / "dialogues.csv"
        return reading.read_csv(path, "dialog", "char", config.min_characters)
    path = Path(name)
    if config.corpus_format == "text":
        return reading.read_text(path, config.min_characters)
    return reading.read_csv(path, config.text_column, config.speaker_column, config.min_characters)


def encode_lines(lines: Sequence[Line], vocabulary: Vocabulary) -> tuple[Ids, ...]:
    """The ids of each line that has a word at all."""
    encoded = (vocabulary.encode(vocabulary.tokenize(line.text)) for line in lines)
    return tuple(ids for ids in encoded if ids.size)


def join_lines(lines: Sequence[Ids], mode: Mode) -> Ids:
    """One text `[time]`: in line mode `<eos>` ends every line, in stream mode the whole."""
    end = np.array([EOS_ID], dtype=np.int32)
    pieces = [piece for ids in lines for piece in (ids, end)] if mode == "line" else [*lines, end]
    return np.concatenate(pieces)


def join_pauses(lines: Sequence[PauseIds], mode: Mode) -> PauseIds:
    """What stands after each token of the text `[time]` that `join_lines` makes; after `<eos>` a line begins."""
    end = np.array([LINE])
    pieces = [piece for its in lines for piece in (its, end)] if mode == "line" else [*lines, end]
    return np.concatenate(pieces)


def columns_of(ids: Ids | PauseIds, batch: int) -> npt.NDArray[np.int64]:
    """A text cut into `batch` columns read side by side, `[time, batch]`; what does not fill a row is left out."""
    rows = len(ids) // batch
    return np.ascontiguousarray(ids[: rows * batch].astype(np.int64).reshape(batch, rows).T)


def count_characters(lines: Sequence[Line], vocabulary: Vocabulary) -> int:
    """Characters of the words of `lines`, unknown words at their own length, and one after each word."""
    return sum(len(word) + 1 for line in lines for word in vocabulary.tokenize(line.text))


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one part of the split; `<eos>` is not counted."""

    lines: int
    words: int
    unk_share: float


@dataclass(frozen=True)
class Summary:
    """What `data info` shows of a dataset."""

    rows: int
    lines: int
    words: int
    distinct_words: int
    vocabulary: int
    speakers: tuple[tuple[str, int], ...]
    """Speakers and their lines, most talkative first."""
    longest_line: Line
    longest_line_words: int
    most_frequent: tuple[tuple[str, int], ...]
    splits: dict[str, SplitSummary]


def summarize(dataset: Dataset, most: int = 20) -> Summary:
    """Count what there is to know about a dataset; `most` frequent words."""
    lines = dataset.corpus.lines
    tokenized = [dataset.vocabulary.tokenize(line.text) for line in lines]
    counts = Counter(word for words in tokenized for word in words)
    longest = max(range(len(lines)), key=lambda i: len(tokenized[i]))
    speakers = Counter(line.speaker for line in lines if line.speaker)
    return Summary(
        rows=dataset.corpus.rows,
        lines=len(lines),
        words=counts.total(),
        distinct_words=len(counts),
        vocabulary=len(dataset.vocabulary),
        speakers=tuple(speakers.most_common()),
        longest_line=lines[longest],
        longest_line_words=len(tokenized[longest]),
        most_frequent=tuple(counts.most_common(most)),
        splits={
            name: _summarize_split(part, dataset.part(name))
            for name, part in (
                ("train", dataset.split.train),
                ("valid", dataset.split.valid),
                ("test", dataset.split.test),
            )
        },
    )


def _summarize_split(lines: Sequence[Line], ids: Ids) -> SplitSummary:
    words = ids[ids != EOS_ID]
    return SplitSummary(len(lines), len(words), float(np.mean(words == UNK_ID)) if len(words) else 0.0)
