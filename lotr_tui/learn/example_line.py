"""First words of a line that a figure starts with."""

from collections.abc import Iterable
from itertools import islice

from engine.data.tokenizers.base import Tokenizer

EXAMPLE_WORDS = 5
MAX_LINES = 1000


def find_line_start(example: str, tokenizer: Tokenizer, lines: Iterable[str]) -> str:
    """Return `example` if a model knows its words, or else the start of one of the first lines of its corpus.

    Args:
        example: Line in the words of the bundled dialogues.
        tokenizer: Tokens of the model.
        lines: Lines of the corpus.
    """
    if not tokenizer.unknown_spans(example):
        return example
    for line in islice(lines, MAX_LINES):
        words = line.split()
        start = " ".join(words[:EXAMPLE_WORDS])
        if len(words) > EXAMPLE_WORDS and not tokenizer.unknown_spans(start):
            return start
    return example
