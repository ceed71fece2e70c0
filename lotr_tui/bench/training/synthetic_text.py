"""Generated texts with the word frequencies of real ones.

`python -m lotr_tui.bench.training.synthetic_text FILE NUM_BYTES [NUM_DISTINCT_WORDS]` writes a text.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.data.arrays import Int64Array

MAX_DISTINCT_WORDS = 500_000
"""Size of the vocabulary that words are sampled from; a text of 110 MB has most of them."""
WORDS_PER_LINE = 10
WORDS_PER_CHUNK = 100_000


def write_synthetic_text(path: Path, num_bytes: int, num_distinct_words: int = 0) -> None:
    """Write a text whose word frequencies follow the law of Zipf (1935) and Mandelbrot (1953).

    The last chunk of the text can exceed `num_bytes`. With `num_distinct_words=0`, the number of distinct words grows
    with the text, as in real texts.
    """
    rng = np.random.default_rng(0)
    vocabulary_size = num_distinct_words or MAX_DISTINCT_WORDS
    frequencies = (np.arange(vocabulary_size) + 2.7) ** -1.3
    cumulative_probs = np.cumsum(frequencies / frequencies.sum())
    words = [_pseudo_word(rank) for rank in range(vocabulary_size)]
    punctuation = np.array(["", ",", ".", "?"])
    with path.open("w") as file:
        if num_distinct_words:
            file.write(_to_lines(words))
        while file.tell() < num_bytes:
            ranks: Int64Array = np.searchsorted(cumulative_probs, rng.random(WORDS_PER_CHUNK))
            marks = punctuation[rng.choice(len(punctuation), len(ranks), p=[0.85, 0.08, 0.06, 0.01])]
            file.write(_to_lines([words[i] + mark for i, mark in zip(ranks.tolist(), marks.tolist(), strict=True)]))


def _to_lines(words: Sequence[str]) -> str:
    starts = range(0, len(words), WORDS_PER_LINE)
    return "\n".join(" ".join(words[start : start + WORDS_PER_LINE]) for start in starts) + "\n"


def _pseudo_word(rank: int) -> str:
    """Return a pronounceable word; frequent words are short."""
    syllables: list[str] = []
    while not syllables or rank:
        rank, syllable = divmod(rank, 70)
        syllables.append("bdfghklmnprstv"[syllable // 5] + "aeiou"[syllable % 5])
    return "".join(syllables)


if __name__ == "__main__":
    write_synthetic_text(Path(sys.argv[1]), *map(int, sys.argv[2:]))
