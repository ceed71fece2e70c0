"""What stands between two words: the tokenizer leaves punctuation out, but training can learn from it."""

import numpy as np
import numpy.typing as npt

PAUSES = ("none", "comma", "sentence", "line")
"""none: white space alone; comma: any mark that ends no sentence; sentence: one that does; line: the line ends.

By weight: where several marks stand between two words, the last of these counts. Text that was cut into words before
has its marks, if any, as words, and no pauses but the ends of lines.
"""
NONE, COMMA, SENTENCE, LINE = range(len(PAUSES))

PauseIds = npt.NDArray[np.uint8]
"""Places in `PAUSES`."""
