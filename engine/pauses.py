"""What stands between two words: the tokenizer leaves punctuation out, but training can learn from it."""

import re

import numpy as np
import numpy.typing as npt

from engine.vocabulary import WORD, Tokenizer, tokenize

PAUSES = ("none", "comma", "sentence", "line")
"""none: white space alone; comma: any mark that ends no sentence; sentence: one that does; line: the line ends."""
NONE, COMMA, SENTENCE, LINE = range(len(PAUSES))

PauseIds = npt.NDArray[np.int64]
"""Places in `PAUSES`."""

_SENTENCE_END = re.compile(r"[.!?…]")


def pauses_of(text: str, tokenizer: Tokenizer = "words") -> PauseIds:
    """The pause after each word `[time]` of a line.

    Text that was cut into words before has its marks, if any, as words: between those there is nothing.
    """
    cut_before = tokenizer == "spaces"
    gaps = [" "] * len(tokenize(text, tokenizer)) if cut_before else WORD.split(text.lower())[1:]
    pauses = np.fromiter(map(_pause, gaps), np.int64, len(gaps))
    pauses[-1:] = LINE
    return pauses


def _pause(gap: str) -> int:
    if gap.isspace():
        return NONE
    return SENTENCE if _SENTENCE_END.search(gap) else COMMA
