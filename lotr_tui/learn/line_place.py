"""Place of a cursor between the words of a line."""

from dataclasses import dataclass

from engine.data.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class LinePlace:
    """The words before a place in a line, and the word there."""

    ids: tuple[int, ...]
    """Ids of the words before the place."""
    token: int | None
    """Id of the word at the place; None at the end of the line."""
    written: str
    """The word at the place as it is written; "" at the end of the line."""


def find_place(tokenizer: Tokenizer, line: str, cursor: int) -> LinePlace:
    """Return the place of a cursor: at the word on the cursor, or else at the next word.

    Args:
        tokenizer: Words of a model.
        line: The text.
        cursor: Index of the character on the cursor; the length of the text at its end.
    """
    spans = tokenizer.spans(line)
    index = sum(span.end <= cursor for span in spans)
    ids = tuple(span.id for span in spans[:index])
    if index == len(spans):
        return LinePlace(ids, None, "")
    word = spans[index]
    return LinePlace(ids, word.id, line[word.start : word.end])
