"""Character n-grams that words share, so that a model can learn about rare words from words that look like them."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from engine.data.arrays import Float32Array, Int64Array
from engine.data.tokenizers.base import EOS_ID, Tokenizer

MIN_SUBWORD_LENGTH, MAX_SUBWORD_LENGTH = 2, 5


@dataclass(frozen=True)
class SubwordMatrix:
    """Sparse matrix `[vocabulary, subwords]` of the subwords in each word, as row, column and value of `[entries]`."""

    token_ids: Int64Array
    subword_ids: Int64Array
    values: Float32Array
    """Value of each entry `[entries]`: 1 / sqrt(subwords of the word), so that long words get no longer vectors."""
    num_subwords: int


def build_subword_matrix(tokenizer: Tokenizer) -> SubwordMatrix:
    """Collect the subwords of 2 to 5 characters that occur in two words or more (Bojanowski et al. 2017).

    `^` marks the start and `$` the end of a word. `<unk>` and `<eos>` have no subwords.
    """
    words_with: defaultdict[str, list[int]] = defaultdict(list)
    for token_id, word in enumerate(tokenizer.tokens):
        if token_id not in (tokenizer.unk_id, EOS_ID):
            for subword in sorted(_subwords(word)):
                words_with[subword].append(token_id)
    shared = [token_ids for token_ids in words_with.values() if len(token_ids) > 1]
    rows = np.array([token_id for token_ids in shared for token_id in token_ids], np.int64)
    columns = np.repeat(np.arange(len(shared)), [len(token_ids) for token_ids in shared])
    counts = np.bincount(rows, minlength=len(tokenizer))
    return SubwordMatrix(
        token_ids=rows,
        subword_ids=columns,
        values=(1 / np.sqrt(counts[rows])).astype(np.float32),
        num_subwords=len(shared),
    )


def _subwords(word: str) -> set[str]:
    marked = f"^{word}$"
    return {
        marked[start : start + length]
        for length in range(MIN_SUBWORD_LENGTH, MAX_SUBWORD_LENGTH + 1)
        for start in range(len(marked) - length + 1)
    }
