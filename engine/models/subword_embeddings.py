"""Which words share letters: what lets a model learn of rare words from those that look like them."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.data.vocabulary import EOS_ID, UNK_ID, Vocabulary

SHORTEST, LONGEST = 2, 5


@dataclass(frozen=True)
class Spelling:
    """A sparse matrix `[vocabulary, groups]`: which groups of letters each word has."""

    words: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    """1 over the square root of the word's number of groups, so that long words have no longer vectors."""
    number_of_groups: int


def spelling_of(vocabulary: Vocabulary) -> Spelling:
    """The groups of 2 to 5 neighbouring letters that two words or more have, word ends marked (Bojanowski et al. 2017).

    `<unk>` and `<eos>` are not spelled.
    """
    having: defaultdict[str, list[int]] = defaultdict(list)
    for i, word in enumerate(vocabulary.words):
        if i in (UNK_ID, EOS_ID):
            continue
        marked = f"^{word}$"
        for group in sorted(
            {
                marked[begin : begin + length]
                for length in range(SHORTEST, LONGEST + 1)
                for begin in range(len(marked) - length + 1)
            }
        ):
            having[group].append(i)
    shared = [words for words in having.values() if len(words) > 1]
    words = np.array([word for group in shared for word in group], np.int64)
    groups = np.repeat(np.arange(len(shared)), [len(group) for group in shared])
    counts = np.bincount(words, minlength=len(vocabulary))
    return Spelling(words, groups, (1 / np.sqrt(counts[words])).astype(np.float32), len(shared))
