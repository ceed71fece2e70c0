"""Passages of generated text that are copied from the training text.

A text is a sequence of items: the tokens of a closed vocabulary, or else written words, runs of punctuation and line
ends. Words are the items that are neither punctuation nor line ends.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.analysis.tokenized_text import WRITTEN_WORD, TokenizedText
from engine.data.arrays import Int32Array
from engine.data.corpus import Line
from engine.data.dataset import Dataset, concatenate_lines
from engine.data.tokenizers import EOS_ID, UNK_ID, TokenIds, Tokenizer
from engine.errors import CorpusError

MIN_PASSAGE_LENGTH = 4  # words; three in a row often occur in both texts by chance
MAX_OCCURRENCES = 5  # A passage lists its first occurrences only.
MAX_INDEXED_ITEMS = 8_000_000  # The index takes about 30 bytes of memory per item of the training text.
_HASH_FACTOR = 0x9E3779B97F4A7C15


class Occurrence(NamedTuple):
    line_index: int  # index of the line in `Dataset.train_lines`
    offset: int  # number of items in the line before the passage
    text: str  # the whole line as written in the corpus
    speaker: str  # empty if the corpus has no speakers


class Passage(NamedTuple):  # a run of items that cannot be extended; it begins with a word
    start: int
    length: int  # number of items
    num_words: int  # at least `MIN_PASSAGE_LENGTH`
    num_occurrences: int
    occurrences: tuple[Occurrence, ...]  # the first `MAX_OCCURRENCES` occurrences, in the order of the training text


class MemorizationReport(NamedTuple):
    passages: tuple[Passage, ...]  # all passages, sorted by start. Passages may overlap, but none contains another.
    num_words: int
    novel_fraction: float  # fraction of these words outside all passages, unknown ones included; 0 for an empty text


class TrainingIndex:
    """The places of all runs of `MIN_PASSAGE_LENGTH` items in the training text, by a hash of each run.

    Passages stay in a line and contain no `<unk>`. More than `MAX_INDEXED_ITEMS` items raise a CorpusError.
    """

    def __init__(
        self, lines: Sequence[TokenIds], sources: Sequence[Line], id_of_written: dict[str, int] | None = None
    ) -> None:
        """Index the ids `[items]` of each line; `id_of_written` are the ids of items that are no tokens."""
        self._sources, self._id_of_written = sources, id_of_written
        lengths = np.array([len(line) for line in lines])
        _check_size(int(lengths.sum()))
        self._line_starts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
        self._ids = concatenate_lines(lines, "line")
        hashes = _hash_runs(self._ids)
        self._places = np.argsort(hashes, kind="stable").astype(np.int32)
        self._sorted_hashes = hashes[self._places]

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "TrainingIndex":
        if not dataset.tokenizer.is_open:
            return cls(dataset.train_lines, dataset.train_source_lines)
        id_of_written: dict[str, int] = {}
        lines, num_items = [], 0
        for line in dataset.train_source_lines:
            ids = []
            for match in WRITTEN_WORD.finditer(line.text):
                next_id = EOS_ID + 1 + len(id_of_written)  # smaller ids are <unk> and <eos>
                ids.append(EOS_ID if _is_line_end(match) else id_of_written.setdefault(match[0], next_id))
            lines.append(np.array(ids, np.int32))
            num_items += len(ids)
            _check_size(num_items)
        return cls(lines, dataset.train_source_lines, id_of_written)

    def find_copied(self, tokens: TokenizedText) -> MemorizationReport:
        """Return the copied passages of a text; `tokens` are of the tokenizer whose training text this is."""
        ids = tokens.ids
        if self._id_of_written is not None:
            ids = np.full(tokens.num_words, UNK_ID, np.int32)
            for index in range(tokens.num_words):
                for match in WRITTEN_WORD.finditer(tokens.word(index)):  # one, without any white space around it
                    ids[index] = EOS_ID if _is_line_end(match) else self._id_of_written.get(match[0], UNK_ID)
        return self.find_passages(ids, tokens.counts_as_word)

    def find_passages(self, ids: TokenIds, is_word: npt.NDArray[np.bool_]) -> MemorizationReport:
        """Return the copied passages of items `[items]`, of which some are words."""
        num_words_before = np.append(0, np.cumsum(is_word))
        hashes, passages, memorized = _hash_runs(ids), [], np.zeros(len(ids), np.bool_)
        for begin, end in _segments(ids):
            last_stop = begin  # A match that does not stop after it is inside the last passage, so stops always grow.
            for start in range(begin, end - MIN_PASSAGE_LENGTH + 1):
                if last_stop == end:
                    break
                if not is_word[start]:
                    continue  # a passage begins with a word, but may end in punctuation
                places, length = self._find_longest(ids[start:end], hashes[start])
                num_words = int(num_words_before[start + length] - num_words_before[start])
                if num_words >= MIN_PASSAGE_LENGTH and start + length > last_stop:
                    occurrences = tuple(map(self._make_occurrence, places[:MAX_OCCURRENCES].tolist()))
                    passages.append(Passage(start, length, num_words, len(places), occurrences))
                    last_stop = start + length
                    memorized[start:last_stop] = True
        num_all_words, num_novel_words = int(num_words_before[-1]), int(np.count_nonzero(is_word & ~memorized))
        return MemorizationReport(tuple(passages), num_all_words, num_novel_words / max(1, num_all_words))

    def _find_longest(self, ids: TokenIds, run_hash: np.uint64) -> tuple[Int32Array, int]:
        first = np.searchsorted(self._sorted_hashes, run_hash)
        places, length = self._places[first : np.searchsorted(self._sorted_hashes, run_hash, side="right")], 0
        # The training text ends in <eos>, which is not among `ids`.
        while length < len(ids) and len(longer := places[self._ids[places + length] == ids[length]]):
            places, length = longer, length + 1
        return places, length

    def _make_occurrence(self, place: int) -> Occurrence:
        line_index = int(np.searchsorted(self._line_starts, place, side="right")) - 1
        source = self._sources[line_index]
        return Occurrence(line_index, place - int(self._line_starts[line_index]), source.text, source.speaker)


def occurrence_span(occurrence: Occurrence, passage: Passage, tokenizer: Tokenizer) -> tuple[int, int]:
    """Return the start and end of a passage in the text of its occurrence, given the tokenizer of the model."""
    if tokenizer.is_open:
        spans = [match.span() for match in WRITTEN_WORD.finditer(occurrence.text)]
    else:
        spans = [(word.start, word.end) for word in tokenizer.spans(occurrence.text)]
    return spans[occurrence.offset][0], spans[occurrence.offset + passage.length - 1][1]


def _hash_runs(ids: TokenIds) -> npt.NDArray[np.uint64]:
    num_runs = max(0, len(ids) - MIN_PASSAGE_LENGTH + 1)
    hashes = np.zeros(num_runs, np.uint64)
    for offset in range(MIN_PASSAGE_LENGTH):
        hashes = hashes * np.uint64(_HASH_FACTOR) + ids[offset : offset + num_runs].astype(np.uint64)
    return hashes


def _is_line_end(match: re.Match[str]) -> bool:
    return match.lastgroup == "line_end"


def _check_size(num_items: int) -> None:
    if num_items > MAX_INDEXED_ITEMS:
        raise CorpusError(
            f"the training text has {num_items:,} words or more; copied passages are found in at most "
            f"{MAX_INDEXED_ITEMS:,}, so use a model trained on less text"
        )


def _segments(ids: TokenIds) -> Iterator[tuple[int, int]]:
    start = 0
    for end in [*np.flatnonzero((ids == EOS_ID) | (ids == UNK_ID)).tolist(), len(ids)]:
        yield start, end
        start = end + 1
