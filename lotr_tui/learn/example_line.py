"""Line that a figure starts with: the default one, or one of the user's corpus."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from engine.data.tokenizers.base import Tokenizer

LINE_WORDS = range(6, 12)
"""Numbers of words of a line that is an example as a whole."""
START_WORDS = 5
"""Words of an example that is the start of a longer line."""
MAX_LINES = 1000
"""Lines of the corpus that are tried."""


def find_example(
    default: str,
    lines: Iterable[str],
    tokenizer: Tokenizer,
    is_suitable: Callable[[str], bool] = lambda line: True,
    *,
    start_words: int | None = None,
) -> str:
    """Return the first suitable line of words that a model knows.

    Without one, return the first line of such words, or else the first line of ordinary length.

    Args:
        default: Line in the words of the bundled dialogues, which is tried first.
        lines: Lines of the corpus.
        tokenizer: Tokens of the model.
        is_suitable: Function that returns True if the chapter can show with the line what it is about.
        start_words: Number of words to take from the start of a longer line; None for whole lines of ordinary length.
    """
    known: str | None = None
    unknown: str | None = None
    for candidate in chain([default], _candidates(islice(lines, MAX_LINES), start_words)):
        if not tokenizer.unknown_spans(candidate):
            if is_suitable(candidate):
                return candidate
            known = known or candidate
        elif candidate != default:
            unknown = unknown or candidate
    return known or unknown or default


def _candidates(lines: Iterable[str], start_words: int | None) -> Iterator[str]:
    """Yield the lines of ordinary length, or the starts of the longer ones if `start_words` is their length."""
    for line in lines:
        words = line.split()
        if start_words is None:
            if len(words) in LINE_WORDS:
                yield line
        elif len(words) > start_words:
            yield " ".join(words[:start_words])
