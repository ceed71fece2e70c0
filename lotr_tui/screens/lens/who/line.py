"""Line of the lens whose speaker is guessed, and the lines before it."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.analysis.tokenized_text import LabelledLine, labelled_lines
from engine.data.scripts import Turn

MAX_WORDS = 300
"""Maximum number of words of a line that are read."""
MAX_CONTEXT_LINES = 40
"""Maximum number of lines before it that are read."""


@dataclass(frozen=True)
class UnknownLine:
    """Line whose speaker is guessed."""

    text: str = ""
    """The line as written, without the name of its speaker, cut after `MAX_WORDS` words."""
    speaker: str = ""
    """Canonical name of who says it as written; empty if it has no name."""
    context: tuple[Turn, ...] = ()
    """Lines of the same scene before it, whose names are known; the last ones of a longer scene."""
    is_complete: bool = False
    """True if the line has ended, so that its end counts too."""


def line_at(text: str, cast: Sequence[str], cursor: int) -> UnknownLine:
    """Return the line at the character `cursor` of a script, or the nearest line before that is not blank.

    A text without any name of a speaker is one line without context.
    """
    lines = list(labelled_lines(text, cast))
    if not any(line.speaker for line in lines):
        return UnknownLine(cut_words(" ".join(text.split())))
    written = [index for index, line in enumerate(lines) if not line.is_blank]
    index = next((index for index in reversed(written) if _start_of_line(lines, index) <= cursor), written[0])
    first = index
    while first > 0 and not lines[first - 1].is_blank:
        first -= 1
    line = lines[index]
    return UnknownLine(
        cut_words(text[line.text_start : line.text_end]),
        line.speaker,
        tuple(
            Turn(before.speaker or cast[-1], text[before.text_start : before.text_end])
            for before in lines[max(first, index - MAX_CONTEXT_LINES) : index]
            if before.text_start < before.text_end  # no name alone
        ),
        is_complete=line.next_start > line.end,
    )


def cut_words(text: str) -> str:
    """Return the first `MAX_WORDS` words of a line."""
    words = text.split(maxsplit=MAX_WORDS)
    return text.removesuffix(words[-1]).rstrip() if len(words) > MAX_WORDS else text


def _start_of_line(lines: Sequence[LabelledLine], index: int) -> int:
    return lines[index - 1].next_start if index else 0
