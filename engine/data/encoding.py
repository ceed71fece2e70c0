"""The words of a corpus as numbers, and these as the ids of its splits; what grows with it may be kept in files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Growing, count, lines_in_pieces, places_of
from engine.data.lines import Lines, Numbers
from engine.data.punctuation import LINE, PauseIds
from engine.data.vocabulary import EOS, EOS_ID, UNK, UNK_ID, Ids, Tokenizer, Vocabulary
from engine.data.word_index import WordIndex

Mode = Literal["line", "stream"]
MOST_FREQUENT = 20

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class WordFacts:
    """What was counted in all lines of a corpus, known words or not."""

    words: int
    distinct_words: int
    most_frequent: tuple[tuple[str, int], ...]
    longest_line: int
    """Its number."""
    longest_line_words: int


@dataclass(frozen=True)
class Tokens:
    """The three splits' texts one after the other, and where they are cut."""

    ids: Ids
    pauses: PauseIds
    bounds: Integers
    """Where each training line that has a word begins, and the last one ends."""
    sources: Numbers
    """Its number in the corpus."""
    ends: tuple[int, int]
    """Where the texts of train and valid end."""


class CorpusWords:
    """All words of a corpus as numbers, in file order."""

    def __init__(self, lines: Lines, tokenizer: Tokenizer, folder: Path | None) -> None:
        """Index all `lines`; what grows with them goes into `folder`, or stays in memory.

        Raises:
            OSError: the folder cannot be written; so too when there are tokens.
        """
        self._folder, self._tokenizer = folder, tokenizer
        index = WordIndex(tokenizer)
        ids = Growing(np.int32, folder and folder / "words")
        pauses = Growing(np.uint8, folder and folder / "marks")
        lengths = Growing(np.int32)
        for block in lines.blocks():
            indexed = index.read(block)
            ids.add(indexed.ids)
            pauses.add(indexed.pauses)
            lengths.add(indexed.lengths.astype(np.int32))
        self.lengths = lengths.array()
        """Words of each line."""
        self._words = index.words
        self._ids, self._pauses = ids.array(), pauses.array()
        self._bounds = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def vocabulary(self, lines: Numbers, min_count: int) -> tuple[Vocabulary, Ids]:
        """The words seen `min_count` times or more in `lines`, in the order that they come in there.

        A text that was prepared for language models has `<unk>` and `<eos>` in it already; they are those.

        Returns:
            Them, and the id of each word of the corpus.
        """
        counts = np.zeros(len(self._words), np.int64)
        seen = np.zeros(len(self._words), np.bool_)
        order = [np.empty(0, np.int32)]
        for some in lines_in_pieces(self._bounds, lines):
            words = self._ids[places_of(self._bounds, some)]
            counts += count(words, len(counts))
            new, first = np.unique(words[~seen[words]], return_index=True)
            order.append(new[np.argsort(first)])
            seen[new] = True
        appeared = np.concatenate(order)
        special = {UNK: UNK_ID, EOS: EOS_ID}
        kept = [
            number for number in appeared[counts[appeared] >= min_count].tolist() if self._words[number] not in special
        ]
        ids = np.full(len(self._words), UNK_ID, np.int32)
        ids[np.array(kept, np.int64)] = np.arange(len(special), len(special) + len(kept))
        if self._tokenizer == "spaces" and EOS in self._words:
            ids[self._words.index(EOS)] = EOS_ID
        return Vocabulary((UNK, EOS, *(self._words[number] for number in kept)), self._tokenizer), ids

    def tokens(self, parts: Sequence[Numbers], ids_of: Ids, mode: Mode) -> Tokens:
        """The texts of `parts`, the numbers of the lines of each split that have a word, with `<eos>`."""
        ids = Growing(np.int32, self._folder and self._folder / "ids")
        pauses = Growing(np.uint8, self._folder and self._folder / "pauses")
        ends = []
        for part in parts:
            for some in lines_in_pieces(self._bounds, part):
                places = places_of(self._bounds, some)
                line_ends = np.cumsum(self.lengths[some]) if mode == "line" else np.empty(0, np.int64)
                ids.add(np.insert(ids_of[self._ids[places]], line_ends, EOS_ID))
                pauses.add(np.insert(self._pauses[places], line_ends, LINE))
            if mode == "stream":
                ids.add(np.array([EOS_ID], np.int32))
                pauses.add(np.array([LINE], np.uint8))
            ends.append(ids.size)
        lengths = self.lengths[parts[0]].astype(np.int64) + (mode == "line")
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        return Tokens(ids.array(), pauses.array(), bounds, parts[0], (ends[0], ends[1]))

    def facts(self) -> WordFacts:
        """What was counted in all lines."""
        counts = count(self._ids, len(self._words))
        frequent = np.argsort(-counts, kind="stable")[:MOST_FREQUENT]
        longest = int(np.argmax(self.lengths))
        return WordFacts(
            words=len(self._ids),
            distinct_words=len(self._words),
            most_frequent=tuple((self._words[number], int(counts[number])) for number in frequent),
            longest_line=longest,
            longest_line_words=int(self.lengths[longest]),
        )
