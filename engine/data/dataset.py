"""From a corpus to the ids a model reads: split, vocabulary, and where `<eos>` stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engine.config import DataConfig
from engine.data.arrays import count, pieces
from engine.data.corpus import Corpus, Split
from engine.data.encoding import Integers, Mode, WordFacts
from engine.data.lines import Line, Lines
from engine.data.preparation import prepared
from engine.data.punctuation import PauseIds
from engine.data.vocabulary import EOS_ID, UNK_ID, Ids, Vocabulary
from engine.errors import CorpusError

Number = TypeVar("Number", bound=np.generic)


class TextLines(Sequence[Ids]):
    """The lines of a text `[time]` one by one, without `<eos>`."""

    def __init__(self, text: Ids, bounds: Integers, ends: int) -> None:
        """Cut `text` at `bounds` `[lines + 1]`; `ends`: tokens at each line's end that are left out."""
        self.text, self.bounds, self._ends = text, bounds, ends

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, place: int) -> Ids:  # type: ignore[override]
        number = range(len(self))[place]
        return self.text[int(self.bounds[number]) : int(self.bounds[number + 1]) - self._ends]


@dataclass(frozen=True)
class Dataset:
    """A corpus made ready: its split, the vocabulary of the training part, and the ids of all three.

    What grows with the text may be mapped from files, so that it need not fit into memory.
    """

    corpus: Corpus
    split: Split
    vocabulary: Vocabulary
    mode: Mode
    train_lines: TextLines
    """The training lines that have a word, one by one, so that they can be put in another order."""
    train_sources: Lines
    """What each of them was made of."""
    train: Ids
    valid: Ids
    test: Ids
    train_pauses: PauseIds
    """What stands after each token of `train`; after `<eos>` a line begins."""
    facts: WordFacts

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
    """Read, split and encode the corpus of `config`; a large one is kept so, and ready at once the next time.

    Raises:
        CorpusError: it cannot be read, is too small, or there is no room for what is made of it.
        ConfigError: there is a validation text but no test text, or the other way round.
    """
    made = prepared(config)
    corpus, tokens = made.corpus, made.tokens
    train, valid = tokens.ends
    return Dataset(
        corpus=corpus,
        split=Split(*map(corpus.lines.take, made.numbers)),
        vocabulary=made.vocabulary,
        mode=config.mode,
        train_lines=TextLines(tokens.ids[:train], tokens.bounds, int(config.mode == "line")),
        train_sources=corpus.lines.take(tokens.sources),
        train=tokens.ids[:train],
        valid=tokens.ids[train:valid],
        test=tokens.ids[valid:],
        train_pauses=tokens.pauses[:train],
        facts=made.facts,
    )


def encode_lines(lines: Sequence[Line], vocabulary: Vocabulary) -> tuple[Ids, ...]:
    """The ids of each line of a text that has a word at all."""
    encoded = (vocabulary.encode(vocabulary.tokenize(line.text)) for line in lines)
    return tuple(ids for ids in encoded if ids.size)


def join_lines(lines: Sequence[Ids], mode: Mode) -> Ids:
    """One text `[time]`: in line mode `<eos>` ends every line, in stream mode the whole."""
    end = np.array([EOS_ID], dtype=np.int32)
    joined = [piece for ids in lines for piece in (ids, end)] if mode == "line" else [*lines, end]
    return np.concatenate(joined)


def columns_of(ids: npt.NDArray[Number], batch: int) -> npt.NDArray[Number]:
    """A text cut into `batch` columns read side by side, `[time, batch]`; what does not fill a row is left out.

    It is the same memory: a window of it is to be made `int64` when it is read.
    """
    rows = len(ids) // batch
    return ids[: rows * batch].reshape(batch, rows).T


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


def summarize(dataset: Dataset) -> Summary:
    """Put together what there is to know about a dataset."""
    lines, facts = dataset.corpus.lines, dataset.facts
    spoken = count(lines.speakers, len(lines.names))
    speakers = [(lines.names[i], int(spoken[i])) for i in np.argsort(-spoken, kind="stable") if lines.names[i]]
    return Summary(
        rows=dataset.corpus.rows,
        lines=len(lines),
        words=facts.words,
        distinct_words=facts.distinct_words,
        vocabulary=len(dataset.vocabulary),
        speakers=tuple(speakers),
        longest_line=lines[facts.longest_line],
        longest_line_words=facts.longest_line_words,
        most_frequent=facts.most_frequent,
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
    unknown, ends = (sum(int(np.sum(ids[piece] == token)) for piece in pieces(len(ids))) for token in (UNK_ID, EOS_ID))
    words = len(ids) - ends
    return SplitSummary(len(lines), words, unknown / words if words else 0.0)
