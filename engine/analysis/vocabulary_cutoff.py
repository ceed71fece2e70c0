"""Vocabularies of words by cut-off: their sizes, and how much of a held-out text they do not know."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from engine.data.tokenizers.base import EOS, UNK
from engine.data.tokenizers.words import WordTokenizer, WordTokenizerName, split_words


class VocabularyCutoffs:
    """Counts of the words of a training text, from which vocabularies with any cut-off are made.

    The cut-off is the number of occurrences in the training text that a word of the vocabulary has at least.
    """

    def __init__(self, train: Iterable[str], held_out: Iterable[str], name: WordTokenizerName = "words") -> None:
        """Count the words of a training text, given as lines, and look up the words of a held-out text."""
        self._name = name
        self._counts = Counter(word for line in train for word in split_words(line, name))
        held_out_counts = [self._counts[word] for line in held_out for word in split_words(line, name)]
        self._sorted_held_out_counts = np.sort(np.array(held_out_counts, np.int64))
        self._sorted_counts = np.sort(np.array(list(self._counts.values()), np.int64))

    @property
    def num_held_out_words(self) -> int:
        """Number of words of the held-out text."""
        return len(self._sorted_held_out_counts)

    def vocabulary_size(self, cutoff: int) -> int:
        """Return the number of words with at least `cutoff` occurrences, without the special tokens."""
        return len(self._sorted_counts) - int(np.searchsorted(self._sorted_counts, cutoff))

    def unknown_rate(self, cutoff: int) -> float:
        """Return the fraction of the words of the held-out text that are unknown; 0 for an empty text."""
        num_unknown = int(np.searchsorted(self._sorted_held_out_counts, cutoff))
        return num_unknown / max(1, self.num_held_out_words)

    def tokenizer(self, cutoff: int) -> WordTokenizer:
        """Return the tokenizer of a vocabulary, with its words in order of first appearance."""
        words = (word for word, count in self._counts.items() if count >= cutoff and word not in (UNK, EOS))
        return WordTokenizer((UNK, EOS, *words), self._name)
