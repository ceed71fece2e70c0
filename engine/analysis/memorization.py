"""Passages of generated text that are copied from the training text, found with a suffix array.

Passages consist of whole words. In a closed vocabulary, these are its tokens. In an open one, they are the words as
written, with upper and lower case, and the runs of punctuation between them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.analysis.tokenized_text import TokenizedText, written_words
from engine.data.arrays import Int32Array, Int64Array
from engine.data.dataset import Dataset, concatenate_lines
from engine.data.lines import Line
from engine.data.tokenizers.base import EOS_ID, UNK_ID, TokenIds, Tokenizer
from engine.errors import CorpusError

MIN_PASSAGE_LENGTH = 4
"""Minimum words of a passage, without punctuation; three words in a row often occur in both texts by chance."""
MAX_OCCURRENCES = 5
"""Maximum number of occurrences that are listed for a passage."""
MAX_INDEXED_WORDS = 8_000_000
"""Maximum words of an indexed training text; the index takes about 85 bytes of memory per word."""
_KEY_BYTES = 4
"""Bytes per word in a sort key."""


@dataclass(frozen=True)
class Occurrence:
    """Position of a passage in the training text."""

    line_index: int
    """Index of the line in `Dataset.train_lines`."""
    offset: int
    """Number of words in the line before the passage, runs of punctuation included."""
    text: str
    """The whole line as written in the corpus."""
    speaker: str
    """Speaker of the line; empty if the corpus has no speakers."""


@dataclass(frozen=True)
class Passage:
    """A run of words that also occurs in the training text, and that cannot be extended by a word on either side.

    It begins with a word, and may end in punctuation.
    """

    start: int
    length: int
    """Number of words, runs of punctuation included."""
    num_words: int
    """Number of words without punctuation, at least `MIN_PASSAGE_LENGTH`."""
    num_occurrences: int
    occurrences: tuple[Occurrence, ...]
    """The first `MAX_OCCURRENCES` occurrences, in the order of the training text."""


@dataclass(frozen=True)
class MemorizationReport:
    """The copied passages of a text."""

    passages: tuple[Passage, ...]
    """All passages, sorted by start. Passages may overlap, but none contains another."""
    memorized_mask: npt.NDArray[np.bool_]
    """`[words]`: True for words that are part of a passage."""
    num_words: int
    """Number of words, without punctuation and line ends."""
    num_novel_words: int
    """Number of these words that are outside all passages, unknown ones included."""

    @property
    def novel_fraction(self) -> float:
        """Fraction of words outside all passages; 0 for an empty text."""
        return self.num_novel_words / self.num_words if self.num_words else 0.0


class TrainingIndex:
    """A suffix array over the training text, in which any sequence of words is found by bisection.

    Passages never cross the end of a line, not even in stream mode, where the shuffled split decides which line comes
    next. Passages never contain `<unk>`, which can stand for any word.
    """

    def __init__(
        self, lines: Sequence[TokenIds], sources: Sequence[Line], word_to_id: dict[str, int] | None = None
    ) -> None:
        """Index the word ids `[words]` of each line; `sources` has the corpus line that each of them was encoded from.

        `word_to_id` has the ids of the written words of an open vocabulary; by default, ids are those of the tokens.

        Raises:
            CorpusError: If the lines have more than `MAX_INDEXED_WORDS` words.
            ValueError: If the numbers of lines and sources differ.
        """
        if len(lines) != len(sources):
            raise ValueError(f"{len(lines)} lines but {len(sources)} sources")
        self._sources, self._word_to_id = sources, word_to_id
        lengths = np.array([len(line) for line in lines])
        _check_size(int(lengths.sum()))
        self._line_starts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
        self._max_line_length = int(lengths.max())
        self._ids = concatenate_lines(lines, "line")
        self._sort_key = _to_sort_key(self._ids)
        self._suffix_array = build_suffix_array(self._ids, self._max_line_length)
        self._suffixes = self._suffix_array.data  # a memoryview yields Python integers, with which bisection is faster

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "TrainingIndex":
        """Index the training split of a dataset; one that is too long raises a CorpusError."""
        if not dataset.tokenizer.is_open:
            return cls(dataset.train_lines, dataset.train_source_lines)
        word_to_id: dict[str, int] = {}
        lines, num_words = [], 0
        for line in dataset.train_source_lines:
            lines.append(_encode_line(line.text, word_to_id))
            num_words += len(lines[-1])
            _check_size(num_words)
        return cls(lines, dataset.train_source_lines, word_to_id)

    def find_copied(self, tokens: TokenizedText) -> MemorizationReport:
        """Find the copied passages of a tokenized text."""
        if self._word_to_id is None:
            return self.find_passages(tokens.ids)
        known, words = self._word_to_id, [tokens.word(index) for index in range(tokens.num_words)]
        ids = np.array([EOS_ID if word.endswith("\n") else known.get(word, UNK_ID) for word in words], np.int32)
        return self.find_passages(ids, tokens.has_letters)

    def find_passages(
        self, ids: Sequence[int] | TokenIds, has_letters: npt.NDArray[np.bool_] | None = None
    ) -> MemorizationReport:
        """Find the copied passages of a text `[words]`; `<eos>` and `<unk>` separate passages.

        `has_letters` `[words]` is False for runs of punctuation, which do not count as words.
        """
        tokens = np.asarray(ids, np.int32)
        is_word = tokens != EOS_ID if has_letters is None else has_letters
        num_words_before = np.append(0, np.cumsum(is_word))
        sort_key = _to_sort_key(tokens)
        passages = []
        memorized = np.zeros(len(tokens), np.bool_)
        for begin, end in _segments(tokens):
            last_stop = begin
            for start in range(begin, end - MIN_PASSAGE_LENGTH + 1):
                if last_stop == end:
                    break  # all later matches are inside the last passage
                if not is_word[start]:
                    continue  # a passage begins with a word, but may end in punctuation
                segment_key = sort_key[_KEY_BYTES * start : _KEY_BYTES * end]
                length = self._match_length(tokens[start:end], segment_key)
                num_words = int(num_words_before[start + length] - num_words_before[start])
                if num_words >= MIN_PASSAGE_LENGTH and start + length > last_stop:
                    passages.append(self._make_passage(start, num_words, segment_key[: _KEY_BYTES * length]))
                    last_stop = start + length
                    memorized[start:last_stop] = True
        num_novel_words = int(np.count_nonzero(is_word & ~memorized))
        return MemorizationReport(tuple(passages), memorized, int(num_words_before[-1]), num_novel_words)

    def _match_length(self, ids: TokenIds, sort_key: bytes) -> int:
        """Return the length of the longest prefix of `ids` that occurs in the training text."""
        prefix = sort_key[: _KEY_BYTES * self._max_line_length]
        position = bisect_left(self._suffixes, prefix, key=lambda start: self._key_at(start, len(prefix)))
        # The suffix with the longest common prefix is next to the position where `ids` would be inserted.
        neighbours = self._suffixes[max(0, position - 1) : position + 1]
        return max(_common_prefix_length(ids, self._ids[start : start + len(ids)]) for start in neighbours)

    def _make_passage(self, start: int, num_words: int, sort_key: bytes) -> Passage:
        size = len(sort_key)
        first = bisect_left(self._suffixes, sort_key, key=lambda start: self._key_at(start, size))
        last = bisect_right(self._suffixes, sort_key, first, key=lambda start: self._key_at(start, size))
        positions = np.sort(self._suffix_array[first:last])[:MAX_OCCURRENCES]
        return Passage(
            start=start,
            length=size // _KEY_BYTES,
            num_words=num_words,
            num_occurrences=last - first,
            occurrences=tuple(self._make_occurrence(int(position)) for position in positions),
        )

    def _key_at(self, start: int, size: int) -> bytes:
        return self._sort_key[_KEY_BYTES * start : _KEY_BYTES * start + size]

    def _make_occurrence(self, position: int) -> Occurrence:
        line_index = int(np.searchsorted(self._line_starts, position, side="right")) - 1
        source = self._sources[line_index]
        return Occurrence(line_index, position - int(self._line_starts[line_index]), source.text, source.speaker)


def occurrence_span(occurrence: Occurrence, passage: Passage, tokenizer: Tokenizer) -> tuple[int, int]:
    """Return the start and end of a passage in the text of its occurrence, given the tokenizer of the model."""
    words = written_words(occurrence.text) if tokenizer.is_open else tokenizer.spans(occurrence.text)
    spans = [(word.start, word.end) for word in words][occurrence.offset : occurrence.offset + passage.length]
    return spans[0][0], spans[-1][1]


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


def _check_size(num_words: int) -> None:
    if num_words > MAX_INDEXED_WORDS:
        raise CorpusError(
            f"the training text has {num_words:,} words or more; copied passages are found in at most "
            f"{MAX_INDEXED_WORDS:,}, so use a model trained on less text"
        )


def _encode_line(text: str, word_to_id: dict[str, int]) -> TokenIds:
    """Return the ids `[words]` of the written words of a line, and add new words to `word_to_id`."""
    first_id = EOS_ID + 1
    ids = [
        EOS_ID if kind == "line_end" else word_to_id.setdefault(text[start:end], first_id + len(word_to_id))
        for start, end, kind in written_words(text)
    ]
    return np.array(ids, np.int32)


def _to_sort_key(ids: TokenIds) -> bytes:
    """Return `_KEY_BYTES` bytes per word that sort like the ids; bytes compare much faster than arrays."""
    return ids.astype(">u4").tobytes()


def _segments(ids: TokenIds) -> Iterator[tuple[int, int]]:
    """Yield start and end of each run of words without `<eos>` and `<unk>`."""
    start = 0
    for end in [*np.flatnonzero((ids == EOS_ID) | (ids == UNK_ID)).tolist(), len(ids)]:
        yield start, end
        start = end + 1


def _common_prefix_length(first: TokenIds, second: TokenIds) -> int:
    size = min(len(first), len(second))
    different = np.flatnonzero(first[:size] != second[:size])
    return int(different[0]) if len(different) else size
