"""Scripts: a conversation as plain text, "Gandalf: text" on each line, and an empty line between two scenes.

Every model with an open vocabulary reads and writes this text; nothing else says who speaks. The name, the text
with its line end, and an empty line are encoded separately, so that their tokens do not depend on each other.

Files by others, such as plays and transcripts, are read in the style that their beginning shows. A name begins its
line and ends with a colon. Every word of it begins with a capital or a digit, except for small words such as "of".
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Int64Array
from engine.data.speakers import SMALL_WORDS, SOMEONE, display_name, normalize_speaker
from engine.data.tokenizers import TokenIds, Tokenizer
from engine.errors import CorpusError

SCENE_END = "\n"  # the empty line after a scene
SAMPLE_LINES = 2_000  # number of lines at the beginning of a file that show its style
MAX_NAME_WORDS, MAX_CHAT_NAME_WORDS = 6, 2  # maximum numbers of words of a name, and of a name without capitals
MAX_HEAD_CHARACTERS = 120  # maximum length of a name with the parts in brackets beside it
# Minimum fractions: of lines that have a name; of these where names can have any case, and of names without capitals
# there; of names in capitals where all are; of names after empty lines where these separate speeches and not scenes,
# and where all names follow one.
MIN_NAME_FRACTION, MIN_CHAT_FRACTION, MIN_UPPER_FRACTION = 0.05, 0.5, 0.9
MIN_SPACED_FRACTION, MIN_GAP_FRACTION = 0.8, 0.95

Row = tuple[str, str, int]  # text, speaker as written, and number of the section: a film, or text between empty lines

_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|[()\[\]]")
# Letters, digits, hyphens, apostrophes, slashes and ampersands; a period may only abbreviate, as in "MRS." and "V.O."
_NAME_WORD = re.compile(r"[^\W_](?:[^\W_]|['’/&#-]|\.(?=[^\W_]))*|[&-]|(?:[^\W_]{1,3}|(?:[^\W_]\.)+[^\W_])\.")


@dataclass(frozen=True)
class Turn:
    """A line of a conversation."""

    speaker: str  # canonical name of the speaker, such as "GANDALF"
    text: str


def said_text(text: str) -> str:
    """Return the rest of a line after its head: a space, the text with single spaces, and a line feed."""
    words = " ".join(text.split())
    return f" {words}\n" if words else "\n"


def turn_text(turn: Turn) -> str:
    return f"{display_name(turn.speaker)}:{said_text(turn.text)}"


def script_text(scenes: Iterable[Sequence[Turn]]) -> str:
    return SCENE_END.join("".join(map(turn_text, scene)) for scene in scenes)


def parse_line(line: str) -> Turn | None:
    """Return the turn of a line of a script; None if the line is empty or names no speaker."""
    head, colon, text = line.partition(":")
    speaker = normalize_speaker(head) if colon else ""
    return Turn(speaker, " ".join(text.split())) if speaker else None


def encode_speaker(tokenizer: Tokenizer, name: str) -> tuple[int, ...]:
    """Return the token ids of the head of a line, such as "Gandalf:", by the canonical name of its speaker."""
    return tuple(tokenizer.encode(f"{display_name(name)}:").tolist())


def encode_turn(tokenizer: Tokenizer, turn: Turn) -> tuple[int, ...]:
    """Return the token ids of a turn: the head, the text and the line end. White space counts as single spaces."""
    return (*encode_speaker(tokenizer, turn.speaker), *tokenizer.encode(said_text(turn.text)).tolist())


def encode_turns(tokenizer: Tokenizer, turns: Sequence[Turn]) -> tuple[int, ...]:
    return tuple(id for turn in turns for id in encode_turn(tokenizer, turn))


def utterance_mask(tokenizer: Tokenizer, ids: TokenIds) -> npt.NDArray[np.bool_]:
    """Return `[time]` True for tokens of texts and their line ends, False for those up to a first colon of a line."""
    is_line_end = np.isin(ids, tokenizer.line_end_ids)
    starts_line = np.concatenate([[True], is_line_end[:-1]])[: len(ids)]
    line_starts = np.maximum.accumulate(np.where(starts_line, np.arange(len(ids)), 0))
    is_colon = np.isin(ids, tokenizer.colon_ids)
    num_colons_before: Int64Array = np.cumsum(is_colon) - is_colon
    mask: npt.NDArray[np.bool_] = num_colons_before > num_colons_before[line_starts]
    return mask


class NameCase(IntEnum):
    """Capitals of a name, strictest first."""

    UPPER = 0  # no small letters
    TITLE = 1  # a capital begins every word but small ones
    SENTENCE = 2  # a capital begins the name
    ANY = 3


class NamedLine(NamedTuple):
    name: str  # name as written, with the parts in brackets
    text: str  # text after the colon; empty if the name stands alone
    case: NameCase  # strictest case that the name has


class ScriptStyle(NamedTuple):
    names_stand_alone: bool  # true if nothing follows a name on its line, and the text begins on the next line
    case: NameCase  # case that every name has
    names_follow_gaps: bool  # true if an empty line comes before every name
    scene_gap: int  # number of empty lines that end a scene: two if one is between two speeches


def split_name(line: str) -> NamedLine | None:
    """Split a line with single spaces after the name that it begins with; None if it does not begin with a name."""
    head, colon, _ = line[: MAX_HEAD_CHARACTERS + 1].partition(":")
    text = line[len(head) + len(colon) :]
    words = _BRACKETS.sub(" ", head).split()
    if (
        not colon
        or text[:1] not in ("", " ")
        or not 1 <= len(words) <= MAX_NAME_WORDS
        or not all(map(_NAME_WORD.fullmatch, words))
        or not normalize_speaker(head)
        or not any(map(str.isalpha, "".join(words)))
    ):
        return None
    case = NameCase.ANY
    if all(word == word.upper() for word in words):
        case = NameCase.UPPER
    elif all(word[0] == word[0].upper() or (index and word in SMALL_WORDS) for index, word in enumerate(words)):
        case = NameCase.TITLE
    elif words[0][0] == words[0][0].upper():
        case = NameCase.SENTENCE
    elif len(words) > MAX_CHAT_NAME_WORDS:
        return None
    return NamedLine(head.strip(), text.strip(), case)


def detect_style(lines: Sequence[str]) -> ScriptStyle | None:
    """Return the style of a script that begins with `lines`, or None if the lines name no speakers."""
    texts = [" ".join(line.split()) for line in lines[:SAMPLE_LINES]]
    gaps = [True, *(not text for text in texts)]
    found = [(named, gap) for text, gap in zip(texts, gaps, strict=False) if text and (named := split_name(text))]
    num_lines, num_found = sum(map(bool, texts)), len(found)
    num_upper, num_title, num_sentence = (sum(named.case <= case for named, _ in found) for case in range(3))
    case = NameCase.TITLE
    if num_upper >= MIN_UPPER_FRACTION * num_title > 0:
        case = NameCase.UPPER
    elif num_found >= MIN_CHAT_FRACTION * num_lines and num_sentence < MIN_CHAT_FRACTION * num_found:
        case = NameCase.ANY
    found = [(named, gap) for named, gap in found if named.case <= case]
    if len(found) < max(1, MIN_NAME_FRACTION * num_lines):
        return None
    names_stand_alone = sum(not named.text for named, _ in found) > len(found) / 2
    found = [(named, gap) for named, gap in found if not (names_stand_alone and named.text)]
    gap_fraction = sum(gap for _, gap in found) / len(found) if len(found) > 1 else 0.0
    names_follow_gaps = gap_fraction >= MIN_GAP_FRACTION
    if names_stand_alone and names_follow_gaps and case == NameCase.TITLE:  # a name even if a word is small
        case = NameCase.SENTENCE
    return ScriptStyle(names_stand_alone, case, names_follow_gaps, 2 if gap_fraction >= MIN_SPACED_FRACTION else 1)


def read_utterances(lines: Iterator[str], source: str) -> Iterator[Row]:
    """Yield the utterances of a script; without names at its beginning, raise a CorpusError about the file `source`.

    A line without a name continues the utterance before it, or after an empty line begins another one of its speaker.
    """
    beginning = list(islice(lines, SAMPLE_LINES))
    style = detect_style(beginning)
    if style is None:
        raise CorpusError(
            f"{source} has no speakers, which dialogue mode needs: lines of the form 'NAME: text', or 'NAME:' before "
            "the text; use such a file, or --mode line"
        )
    parts: list[str] = []
    section = gap = 0
    speaker, is_start = "", True
    for line in chain(beginning, lines):
        text = " ".join(line.split())
        if not text:
            gap += not is_start
            continue
        named = split_name(text) if gap or is_start or not style.names_follow_gaps else None
        if named and (named.case > style.case or (named.text and style.names_stand_alone)):
            named = None
        if parts and (named or gap):
            yield " ".join(parts), speaker, section
            parts = []
        section += gap >= style.scene_gap
        if named:
            speaker, text = named.name, named.text
        parts += [text] if text else []
        gap, is_start = 0, False
    if parts:
        yield " ".join(parts), speaker, section


def read_scenes(script: str) -> list[list[Turn]]:
    """Return the scenes of a script in any style; SOMEONE says the lines that have no speaker."""
    lines = script.splitlines()
    if detect_style(lines) is None:
        return [[Turn(SOMEONE, text) for line in lines if (text := " ".join(line.split()))]]
    scenes: dict[int, list[Turn]] = {}
    for text, speaker, section in read_utterances(iter(lines), "the script"):
        scenes.setdefault(section, []).append(Turn(normalize_speaker(speaker) or SOMEONE, text))
    return list(scenes.values())
