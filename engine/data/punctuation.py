"""Punctuation classes: the marks between two words, which the `words` tokenizer leaves out of the text."""

import numpy as np
import numpy.typing as npt

PUNCTUATION_CLASSES = ("none", "comma", "sentence", "line")
"""Names of the classes, weakest first; the strongest mark between two words decides.

none: white space only; comma: any mark that does not end a sentence; sentence: a mark that does; line: the end of the
line. Text of the `whitespace` tokenizer keeps its marks as tokens, so only "none" and "line" occur in it.
"""
NONE, COMMA, SENTENCE_END, LINE_END = range(len(PUNCTUATION_CLASSES))

PunctuationIds = npt.NDArray[np.uint8]  # indices into `PUNCTUATION_CLASSES`
