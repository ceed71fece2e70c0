"""Lines of a script that is typed or shown, each with the name of its speaker, and the tokens of the lines."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from engine.data.arrays import Int32Array
from engine.data.script_form import SCENE_END, encode_speaker
from engine.data.scripts import MAX_HEAD_CHARACTERS, split_name
from engine.data.speakers import SOMEONE, find_member, normalize_speaker
from engine.data.tokenizers.base import TokenIds, Tokenizer

LINE_END_PATTERN = "\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"
LINE_END = re.compile(LINE_END_PATTERN)
"""Line ends as in `str.splitlines`."""


class LabelledLine(NamedTuple):
    """Line of a text, with the name that it begins with. All places are indices of characters of the text."""

    speaker: str
    """Canonical name of the speaker of the line, as in the cast if it is a member; empty if none is named."""
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
    After a name alone on its line, the lines up to the next name or blank line are of this speaker.
    """
    start, name_alone = 0, ""
    for line_end, next_start in [*(match.span() for match in LINE_END.finditer(text)), (len(text), len(text))]:
        line = text[start:line_end]
        speaker, name_length = read_label(line, cast)
        said = line[name_length:]
        text_start = start + name_length + len(said) - len(said.lstrip())
        text_end = max(text_start, start + len(line.rstrip()))
        first = start + len(line) - len(line.lstrip()) if speaker else text_start
        if speaker or text_start == text_end:
            name_alone = speaker if text_start == text_end else ""
        else:
            speaker = name_alone
        yield LabelledLine(speaker, first, text_start, text_end, line_end, next_start)
        start = next_start


def read_label(line: str, cast: Sequence[str]) -> tuple[str, int]:
    """Return the canonical name that a line begins with, and the length of the name as written with its colon.

    A line without a name returns an empty name and 0.
    """
    head, colon, rest = line[: MAX_HEAD_CHARACTERS + 2].partition(":")
    if not colon or not (rest == "" or rest[0].isspace()):
        return "", 0
    length = len(head) + len(colon)
    name = normalize_speaker(head).name
    member = find_member(name, cast)
    if member is not None:
        return member, length
    named = split_name(" ".join(line[:length].split()))
    return (name, length) if named is not None and named.case == "upper" else ("", 0)


class ScriptTokens(NamedTuple):
    """Tokens of the texts of a script, with their spans. The tokens of the names are apart."""

    start_offsets: Int32Array
    """Index `[tokens]` of the first character of each token."""
    end_offsets: Int32Array
    """Index `[tokens]` after the last character of each token."""
    ids: TokenIds
    """Token ids `[tokens]`."""
    heads: dict[int, tuple[int, ...]]
    """Token ids that come before the first token of each line, by its index: the name of the speaker, and before a new
    scene an empty line."""
    speakers: dict[int, str]
    """Canonical name of the speaker of each line, by the index of its first token."""
    label_spans: Int32Array
    """Start and end `[labels, 2]` of each name with its colon and the white space after it."""


def encode_script(text: str, tokenizer: Tokenizer, cast: Sequence[str]) -> ScriptTokens:
    """Return the tokens of a script as a model reads them, however its names are written.

    A line without a name is said by SOMEONE, and empty lines between two others end a scene. A name alone on its line
    has no tokens. The tokens of a text begin with the space before it, which is no part of their spans. A line without
    a line end has none among its tokens.
    """
    spans: list[tuple[int, int, int]] = []
    heads: dict[int, tuple[int, ...]] = {}
    speakers: dict[int, str] = {}
    labels: list[tuple[int, int]] = []
    scene_end: tuple[int, ...] = ()
    for line in labelled_lines(text, cast):
        if line.is_blank:
            scene_end = tuple(tokenizer.encode(SCENE_END).tolist()) if spans else ()
            continue
        said = text[line.text_start : line.text_end]
        has_end = line.next_start > line.end
        if line.start < line.text_start:
            labels.append((line.start, line.text_start))
        if not said:
            continue
        written = f" {said}" + ("\n" if has_end else "")
        speaker = line.speaker or SOMEONE
        heads[len(spans)] = (*scene_end, *encode_speaker(tokenizer, speaker))
        speakers[len(spans)] = speaker
        scene_end = ()
        # Place in the text of each character of `written`, and of its end.
        first = line.text_start - 1
        starts = [max(line.text_start, first + index) for index in range(len(written) + 1)]
        ends = [*starts[:-1], line.next_start if has_end else starts[-1]]
        if has_end:
            starts[len(written) - 1] = line.end
        spans += [(starts[start], ends[end], id) for start, end, id in tokenizer.spans(written)]
    starts_of_tokens, ends_of_tokens, ids = map(np.ascontiguousarray, np.array(spans, np.int32).reshape(-1, 3).T)
    label_spans = np.array(labels, np.int32).reshape(-1, 2)
    return ScriptTokens(starts_of_tokens, ends_of_tokens, ids, heads, speakers, label_spans)
