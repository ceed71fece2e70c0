"""Passages of generated text that are copied from the training text, found with a suffix array."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Int32Array, Int64Array
from engine.data.dataset import Dataset, concatenate_lines
from engine.data.lines import Line
from engine.data.vocabulary import EOS_ID, UNK_ID, TokenIds
from engine.errors import CorpusError

MIN_PASSAGE_LENGTH = 4
"""Minimum tokens of a passage; three tokens in a row often occur in both texts by chance."""
MAX_OCCURRENCES = 5
"""Maximum number of occurrences that are listed for a passage."""
MAX_INDEXED_TOKENS = 8_000_000
"""Maximum tokens of an indexed training text; the index takes about 85 bytes of memory per token."""
_KEY_BYTES = 4
"""Bytes per token in a sort key."""


@dataclass(frozen=True)
class Occurrence:
    """Position of a passage in the training text."""

    line_index: int
    """Index of the line in `Dataset.train_lines`."""
    offset: int
    """Number of tokens in the line before the passage."""
    text: str
    """The whole line as written in the corpus."""
    speaker: str
    """Speaker of the line; empty if the corpus has no speakers."""


@dataclass(frozen=True)
class Passage:
    """A run of tokens that also occurs in the training text, and that cannot be extended on either side."""

    start: int
    length: int
    """Number of tokens, at least `MIN_PASSAGE_LENGTH`."""
    num_occurrences: int
    occurrences: tuple[Occurrence, ...]
    """The first `MAX_OCCURRENCES` occurrences, in the order of the training text."""


@dataclass(frozen=True)
class MemorizationReport:
    """The copied passages of a text."""

    passages: tuple[Passage, ...]
    """All passages, sorted by start. Passages may overlap, but none contains another."""
    memorized_mask: npt.NDArray[np.bool_]
    """`[time]`: True for tokens that are part of a passage."""
    num_tokens: int
    """Number of tokens other than `<eos>`."""

    @property
    def novel_fraction(self) -> float:
        """Fraction of tokens outside all passages, `<unk>` included; 0 for an empty text."""
        return 1 - int(self.memorized_mask.sum()) / self.num_tokens if self.num_tokens else 0.0


class TrainingIndex:
    """A suffix array over the training text, in which any sequence of tokens is found by bisection.

    Passages never cross the end of a line, not even in stream mode, where the shuffled split decides which line comes
    next. Passages never contain `<unk>`, which can stand for any word.
    """

    def __init__(self, lines: Sequence[TokenIds], sources: Sequence[Line]) -> None:
        """Index the token ids `[time]` of each line; `sources` has the corpus line that each of them was encoded from.

        Raises:
            CorpusError: If the lines have more than `MAX_INDEXED_TOKENS` tokens.
            ValueError: If the numbers of lines and sources differ.
        """
        if len(lines) != len(sources):
            raise ValueError(f"{len(lines)} lines but {len(sources)} sources")
        self._sources = sources
        lengths = np.array([len(line) for line in lines])
        if (num_tokens := int(lengths.sum())) > MAX_INDEXED_TOKENS:
            raise CorpusError(
                f"the training text has {num_tokens:,} tokens; copied passages are found in at most "
                f"{MAX_INDEXED_TOKENS:,}, so use a model trained on less text"
            )
        self._line_starts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
        self._max_line_length = int(lengths.max())
        self._ids = concatenate_lines(lines, "line")
        self._sort_key = _to_sort_key(self._ids)
        self._suffix_array = build_suffix_array(self._ids, self._max_line_length)
        self._suffixes = self._suffix_array.data  # a memoryview yields Python integers, with which bisection is faster

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "TrainingIndex":
        """Index the training split of a dataset."""
        return cls(dataset.train_lines, dataset.train_source_lines)

    def find_passages(self, ids: Sequence[int] | TokenIds) -> MemorizationReport:
        """Find the copied passages of a text `[time]`; `<eos>` and `<unk>` separate passages."""
        tokens = np.asarray(ids, np.int32)
        sort_key = _to_sort_key(tokens)
        passages = []
        memorized = np.zeros(len(tokens), np.bool_)
        for begin, end in _segments(tokens):
            last_stop = begin
            for start in range(begin, end - MIN_PASSAGE_LENGTH + 1):
                if last_stop == end:
                    break  # all later matches are inside the last passage
                segment_key = sort_key[_KEY_BYTES * start : _KEY_BYTES * end]
                length = self._match_length(tokens[start:end], segment_key)
                if length >= MIN_PASSAGE_LENGTH and start + length > last_stop:
                    passages.append(self._make_passage(start, segment_key[: _KEY_BYTES * length]))
                    last_stop = start + length
                    memorized[start:last_stop] = True
        return MemorizationReport(tuple(passages), memorized, int((tokens != EOS_ID).sum()))

    def _match_length(self, ids: TokenIds, sort_key: bytes) -> int:
        """Return the length of the longest prefix of `ids` that occurs in the training text."""
        prefix = sort_key[: _KEY_BYTES * self._max_line_length]
        position = bisect_left(self._suffixes, prefix, key=lambda start: self._key_at(start, len(prefix)))
        # The suffix with the longest common prefix is next to the position where `ids` would be inserted.
        neighbours = self._suffixes[max(0, position - 1) : position + 1]
        return max(_common_prefix_length(ids, self._ids[start : start + len(ids)]) for start in neighbours)

    def _make_passage(self, start: int, sort_key: bytes) -> Passage:
        size = len(sort_key)
        first = bisect_left(self._suffixes, sort_key, key=lambda start: self._key_at(start, size))
        last = bisect_right(self._suffixes, sort_key, first, key=lambda start: self._key_at(start, size))
        positions = np.sort(self._suffix_array[first:last])[:MAX_OCCURRENCES]
        return Passage(
            start=start,
            length=size // _KEY_BYTES,
            num_occurrences=last - first,
            occurrences=tuple(self._make_occurrence(int(position)) for position in positions),
        )

    def _key_at(self, start: int, size: int) -> bytes:
        return self._sort_key[_KEY_BYTES * start : _KEY_BYTES * start + size]

    def _make_occurrence(self, position: int) -> Occurrence:
        line_index = int(np.searchsorted(self._line_starts, position, side="right")) - 1
        source = self._sources[line_index]
        return Occurrence(line_index, position - int(self._line_starts[line_index]), source.text, source.speaker)


def build_suffix_array(ids: TokenIds, min_depth: int) -> Int32Array:
    """Return the positions `[time]` of a text, sorted by the tokens that start there.

    The sort compares at least the first `min_depth` tokens. It uses prefix doubling (Manber and Myers 1993): sorted by
    n tokens, the rank of the suffix n tokens later sorts by 2n. Each round sorts only the suffixes that are still tied
    (Larsson and Sadakane 2007).
    """
    size = len(ids)
    order = np.arange(size)
    # The rank of a suffix is the first index in `order` of all suffixes tied with it; initially, the token id.
    # The end of the text ranks before every token.
    rank = np.append(ids.astype(np.int64), -1)
    scale = max(size, int(ids.max(initial=0))) + 2
    tied: Int64Array = np.arange(size)  # indices in `order` that are not final yet
    depth = 1
    while len(tied) and depth < max(min_depth, 2):
        positions = order[tied]
        keys = rank[positions] * scale + rank[np.minimum(positions + depth, size)]
        within = np.argsort(keys)
        positions, keys = positions[within], keys[within]
        order[tied] = positions
        is_first = np.append(True, keys[1:] != keys[:-1])
        rank[positions] = tied[np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))]
        tied = tied[~(is_first & np.append(is_first[1:], True))]
        depth *= 2
    return order.astype(np.int32)


def _to_sort_key(ids: TokenIds) -> bytes:
    """Return `_KEY_BYTES` bytes per token that sort like the ids; bytes compare much faster than arrays."""
    return ids.astype(">u4").tobytes()


def _segments(ids: TokenIds) -> Iterator[tuple[int, int]]:
    """Yield start and end of each run of tokens without `<eos>` and `<unk>`."""
    start = 0
    for end in [*np.flatnonzero((ids == EOS_ID) | (ids == UNK_ID)).tolist(), len(ids)]:
        yield start, end
        start = end + 1


def _common_prefix_length(first: TokenIds, second: TokenIds) -> int:
    size = min(len(first), len(second))
    different = np.flatnonzero(first[:size] != second[:size])
    return int(different[0]) if len(different) else size
