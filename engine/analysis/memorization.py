"""Memorised or new: which words of a reply stand in the training text just so, one after the other."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.data.dataset import Dataset, join_lines
from engine.data.lines import Line
from engine.data.vocabulary import EOS_ID, UNK_ID, Ids
from engine.errors import CorpusError

LEAST = 4
"""Words that make a passage: three in a row are often the same by chance."""
PLACES = 5
"""How many of the places where a passage stands are told."""

MOST_WORDS = 8_000_000
"""Of a training text that is sorted; that takes some 85 bytes a word."""

Integers = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Place:
    """Where in the training text a passage stands."""

    line: int
    """The line's number in `Dataset.train_lines`."""
    offset: int
    """Words of the line before the passage."""
    text: str
    """The whole line, as the corpus has it."""
    speaker: str
    """Empty where the corpus does not say."""


@dataclass(frozen=True)
class Passage:
    """Words of a reply that stand in a row in the training text; one more word on either side does not."""

    start: int
    """Position in the reply."""
    length: int
    """Words, `LEAST` or more."""
    occurrences: int
    """In how many places it stands."""
    places: tuple[Place, ...]
    """The first `PLACES` of them, in the order of the training text."""


@dataclass(frozen=True)
class Memorised:
    """What of a reply is in the training text."""

    passages: tuple[Passage, ...]
    """All that there are, by their start. They may overlap, but none lies within another."""
    known: npt.NDArray[np.bool_]
    """`[time]`: whether a token is part of a passage."""
    words: int
    """Tokens that are not `<eos>`."""

    @property
    def new(self) -> float:
        """The share of words that are in no passage; 0 where there is no word. `<unk>` always is in none."""
        return 1 - int(self.known.sum()) / self.words if self.words else 0.0

    def at(self, position: int) -> Passage | None:
        """The longest passage that a position of the reply is part of; of equal ones the first."""
        there = [item for item in self.passages if item.start <= position < item.start + item.length]
        return max(there, key=lambda item: item.length, default=None)


class TrainingIndex:
    """A suffix array over the training text: any words are found in it by bisection (Manber and Myers 1993).

    A passage never goes beyond a line's end, in stream mode neither: there the next line is often only
    put behind it by the shuffle of the split. Nor does it hold an `<unk>`, which may stand for any word.
    """

    def __init__(self, lines: Sequence[Ids], sources: Sequence[Line]) -> None:
        """Sort all that begins at any word of the training text.

        Args:
            lines: ids `[time]` of each line, at least one.
            sources: what each was made of.

        Raises:
            CorpusError: they are more than `MOST_WORDS`.
        """
        if len(lines) != len(sources):
            raise ValueError(f"{len(lines)} lines of {len(sources)} sources")
        self._sources = sources
        lengths = np.array([len(line) for line in lines])
        if (words := int(lengths.sum())) > MOST_WORDS:
            raise CorpusError(f"up to {MOST_WORDS:,} words can be sorted in memory, and these are {words:,}")
        self._starts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
        self._longest = int(lengths.max())
        self._text = join_lines(lines, "line")
        self._comparable = _comparable(self._text)
        self._order = sort_suffixes(self._text, self._longest)
        self._places = self._order.data  # hands out Python's own integers, which bisection is faster with

    @classmethod
    def of(cls, dataset: Dataset) -> "TrainingIndex":
        """The index of a dataset's training split."""
        return cls(dataset.train_lines, dataset.train_sources)

    def find(self, ids: Sequence[int] | Ids) -> Memorised:
        """Find a reply's passages; `<eos>` and `<unk>` in `ids` end them."""
        tokens = np.asarray(ids, np.int32)
        comparable = _comparable(tokens)
        passages = []
        known = np.zeros(len(tokens), np.bool_)
        for begin, end in _stretches(tokens):
            reached = begin
            for start in range(begin, end - LEAST + 1):
                if reached == end:
                    break  # whatever starts later lies within the last passage
                stop = start + self._match(tokens[start:end], comparable[4 * start : 4 * end])
                if stop >= start + LEAST and stop > reached:
                    passages.append(self._passage(start, comparable[4 * start : 4 * stop]))
                    known[start:stop] = True
                    reached = stop
        return Memorised(tuple(passages), known, int((tokens != EOS_ID).sum()))

    def _match(self, words: Ids, comparable: bytes) -> int:
        """How many of `words`, from the first on, stand in the training text."""
        text, size = self._comparable, 4 * min(len(words), self._longest)
        place = bisect_left(self._places, comparable[:size], key=lambda start: text[4 * start : 4 * start + size])
        # What shares most with them stands next to where they would stand.
        neighbours = self._places[max(0, place - 1) : place + 1]
        return max(_common(words, self._text[start : start + len(words)]) for start in neighbours)

    def _passage(self, start: int, comparable: bytes) -> Passage:
        text, size = self._comparable, len(comparable)
        first = bisect_left(self._places, comparable, key=lambda start: text[4 * start : 4 * start + size])
        last = bisect_right(self._places, comparable, first, key=lambda start: text[4 * start : 4 * start + size])
        found = np.sort(self._order[first:last])[:PLACES]
        return Passage(start, size // 4, last - first, tuple(self._place(int(begin)) for begin in found))

    def _place(self, begin: int) -> Place:
        line = int(np.searchsorted(self._starts, begin, side="right")) - 1
        source = self._sources[line]
        return Place(line, begin - int(self._starts[line]), source.text, source.speaker)


def sort_suffixes(text: Ids, depth: int) -> Places:
    """The positions `[time]` of a text in the order of what begins there, by its first `depth` words at least.

    Prefix doubling (Manber and Myers 1993), done again only for those that still begin alike (Larsson and
    Sadakane 2007): sorted by n words, the rank of what follows n words later sorts them by 2n.
    """
    size = len(text)
    order = np.arange(size)
    # A rank is the first place of all that begin alike; at first, the word. The end comes before any word.
    rank = np.append(text.astype(np.int64), -1)
    scale = max(size, int(text.max(initial=0))) + 2
    alike: Integers = np.arange(size)  # places in `order` that are not settled yet
    sorted_by = 1
    while len(alike) and sorted_by < max(depth, 2):
        positions = order[alike]
        keys = rank[positions] * scale + rank[np.minimum(positions + sorted_by, size)]
        within = np.argsort(keys)
        positions, keys = positions[within], keys[within]
        order[alike] = positions
        first = np.append(True, keys[1:] != keys[:-1])
        rank[positions] = alike[np.maximum.accumulate(np.where(first, np.arange(len(keys)), 0))]
        alike = alike[~(first & np.append(first[1:], True))]
        sorted_by *= 2
    return order.astype(np.int32)


def _comparable(ids: Ids) -> bytes:
    """Four bytes a word, which compare as the ids do, and far faster than arrays."""
    return ids.astype(">u4").tobytes()


def _stretches(ids: Ids) -> Iterator[tuple[int, int]]:
    """Begin and end of what stands between `<eos>` and `<unk>`."""
    begin = 0
    for end in [*np.flatnonzero((ids == EOS_ID) | (ids == UNK_ID)).tolist(), len(ids)]:
        yield begin, end
        begin = end + 1


def _common(first: Ids, second: Ids) -> int:
    """How many words two texts begin with alike."""
    size = min(len(first), len(second))
    different = np.flatnonzero(first[:size] != second[:size])
    return int(different[0]) if len(different) else size
