"""Lines of a script that is typed or shown, each with the name of its speaker, and the tokens of the lines."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from engine.data.arrays import Int32Array
from engine.data.scripts import MAX_HEAD_CHARACTERS, split_name
from engine.data.speakers import find_member, normalize_speaker
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer

LINE_END_PATTERN = "\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"
LINE_END = re.compile(LINE_END_PATTERN)
"""Line ends as in `str.splitlines`."""


class LabelledLine(NamedTuple):
    """Line of a text, with the name that it begins with. All places are indices of characters of the text."""

    speaker: str
    """Member of the cast who says the line; the last member for another name; empty if the line has no name."""
    start: int
    """First character of the name, or of the text if there is no name."""
    text_start: int
    """First character of the text, without white space before it."""
    text_end: int
    """Place after the last character of the text, without white space after it."""
    end: int
    """Start of the line end."""
    next_start: int
    """Start of the next line. It equals `end` if the text ends with this line."""

    @property
    def is_blank(self) -> bool:
        """True for a line without name and text."""
        return not self.speaker and self.text_start == self.text_end


def labelled_lines(text: str, cast: Sequence[str]) -> Iterator[LabelledLine]:
    """Yield the lines of a text, of which some begin with the name of a speaker and a colon.

    A name is a member of `cast` in any case and with any marks, or any other name in capitals, as in "MAN ON WALL:".
    """
    start = 0
    for line_end, next_start in [*(match.span() for match in LINE_END.finditer(text)), (len(text), len(text))]:
        line = text[start:line_end]
        speaker, name_length = read_label(line, cast)
        said = line[name_length:]
        text_start = start + name_length + len(said) - len(said.lstrip())
        text_end = max(text_start, start + len(line.rstrip()))
        first = start + len(line) - len(line.lstrip()) if speaker else text_start
        yield LabelledLine(speaker, first, text_start, text_end, line_end, next_start)
        start = next_start


def read_label(line: str, cast: Sequence[str]) -> tuple[str, int]:
    """Return the member of `cast` whose name a line begins with, and the length of the name with its colon.

    The last member stands for other names. A line without a name returns an empty name and 0.
    """
    head, colon, rest = line[: MAX_HEAD_CHARACTERS + 2].partition(":")
    if not colon or not (rest == "" or rest[0].isspace()):
        return "", 0
    length = len(head) + len(colon)
    member = find_member(normalize_speaker(head).name, cast)
    if member is not None:
        return member, length
    named = split_name(" ".join(line[:length].split()))
    return (cast[-1], length) if named is not None and named.case == "upper" else ("", 0)


class ScriptTokens(NamedTuple):
    """Tokens of the texts of a script, with their spans. The tokens of the speakers are apart."""

    start_offsets: Int32Array
    """Index `[tokens]` of the first character of each token."""
    end_offsets: Int32Array
    """Index `[tokens]` after the last character of each token."""
    ids: TokenIds
    """Token ids `[tokens]`."""
    line_speakers: Int32Array
    """Token `[tokens]` of the speaker whose line starts with each token, and -1 for all others."""
    label_spans: Int32Array
    """Start and end `[labels, 2]` of each name with its colon and the white space after it."""


def encode_script(text: str, tokenizer: Tokenizer) -> ScriptTokens:
    """Return the tokens of a script, for a tokenizer with a cast.

    A line without a name is said by the last member of the cast. `<eos>` ends each line that has a line end, and empty
    lines between two others end a scene: they are one more `<eos>`.
    """
    spans: list[tuple[int, int, int]] = []
    speakers: list[int] = []
    labels: list[tuple[int, int]] = []
    scene_end: tuple[int, int] | None = None
    for line in labelled_lines(text, tokenizer.cast):
        if line.is_blank:
            scene_end = (line.end, line.next_start) if spans else None
            continue
        said = [
            (line.text_start + start, line.text_start + end, id)
            for start, end, id in tokenizer.spans(text[line.text_start : line.text_end])
        ]
        if line.next_start > line.end and (said or line.speaker):
            said.append((line.end, line.next_start, EOS_ID))
        if line.speaker:
            labels.append((line.start, line.text_start))
        if not said:
            continue
        if scene_end is not None:
            spans.append((*scene_end, EOS_ID))
            speakers.append(-1)
            scene_end = None
        spans += said
        speakers += [tokenizer.speaker_id(line.speaker or tokenizer.cast[-1]), *[-1] * (len(said) - 1)]
    starts, ends, ids = map(np.ascontiguousarray, np.array(spans, np.int32).reshape(-1, 3).T)
    return ScriptTokens(starts, ends, ids, np.array(speakers, np.int32), np.array(labels, np.int32).reshape(-1, 2))
