"""Scripts: a conversation as plain text, "Gandalf: text" on each line, and an empty line between two scenes.

Every model with an open vocabulary reads and writes this text; nothing else says who speaks. The name, the text
with its line end, and an empty line are encoded separately, so that their tokens do not depend on each other.

Files by others, such as plays and transcripts, are read in the style that their beginning shows. A name begins its
line and ends with a colon. Every word of it begins with a capital or a digit, except for small words such as "of".
In a screenplay, a name in capitals stands alone above its speech (https://fountain.io/syntax).
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain, groupby, islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Int64Array
from engine.data.speakers import SMALL_WORDS, SOMEONE, display_name, normalize_speaker
from engine.data.tokenizers import TokenIds, Tokenizer

SCENE_END = "\n"  # the empty line after a scene
SAMPLE_LINES = 2_000  # number of lines at the beginning of a file that show its style
MAX_NAME_WORDS = 6
MAX_CHAT_NAME_WORDS = 2  # of a name without capitals
MAX_HEAD_CHARACTERS = 120  # maximum length of a head: a name with the parts in brackets beside it
MIN_NAME_FRACTION = 0.05  # A text is a script if this fraction of its lines has a name.
MIN_UPPER_FRACTION = 0.9  # Only names in capitals count if this fraction of the names in title case is.
MIN_CHAT_FRACTION = 0.5  # A script is a chat, with names in any case, if this fraction of its lines has a name,
MIN_LOWER_FRACTION = 0.5  # and more than this fraction of the names begins with a small letter.
MIN_GAP_FRACTION = 0.95  # Only names after an empty line count if this fraction of them follows one.
MIN_SPEECH_FRACTION = 0.03  # A text is a screenplay if this fraction of its lines has a name that spoke before.
MIN_SPACED_FRACTION = 0.8  # Empty lines separate speeches, not scenes, if this fraction of the names follows one.

_HEAD = re.compile(r"(?:[^:(\[]+|\([^()]*\)|\[[^\[\]]*\]|[(\[])*")  # up to the first colon outside of brackets
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|[()\[\]]")
# Letters, digits, hyphens, apostrophes, slashes and ampersands. A period ends at most three letters or a title, as in
# "MRS." and "Capt.", or separates letters, as in "V.O."; after a longer word it ends a sentence.
_NAME_WORD = re.compile(
    r"#?[^\W_](?:[^\W_]|['’/&#-]|\.(?=[^\W_]))*|[&-]|(?:[^\W_]{1,3}|(?:[^\W_]\.)+[^\W_])\.|"
    r"(?i:asst|brig|capt|cmdr|comdr|corp|insp|lieut|messrs|mlle|mmes|pres|prof|sergt|supt)\."
)
_SCENE_HEADING = re.compile(r"(?:INT|EXT|EST|I/E)[./ ]|\.(?!\.)", re.IGNORECASE)
_DIRECTIONS = re.compile(r"\([^()]*\)|\[\[?[^\[\]]*\]\]?|[*_~]")  # in brackets, and marks of emphasis


@dataclass(frozen=True)
class Turn:
    """An utterance with the canonical name of its speaker: a line of a script that we write."""

    speaker: str  # canonical name of the speaker, such as "GANDALF"
    text: str


class Utterance(NamedTuple):
    """A text of a corpus and its speaker, as written there."""

    text: str
    speaker: str  # empty if the source does not name one
    section: int  # number of the film, or of the text between empty lines


def utterance_text(text: str) -> str:
    """Return the rest of a line after the name and its colon: a space, the text with single spaces, a line feed."""
    words = " ".join(text.split())
    return f" {words}\n" if words else "\n"


def turn_text(turn: Turn) -> str:
    return f"{display_name(turn.speaker)}:{utterance_text(turn.text)}"


def script_text(scenes: Iterable[Sequence[Turn]]) -> str:
    return SCENE_END.join("".join(map(turn_text, scene)) for scene in scenes)


def parse_line(line: str) -> Turn | None:
    """Return the turn of a line of a script; None if the line is empty or names no speaker."""
    head, colon, text = line.partition(":")
    speaker = normalize_speaker(head) if colon else ""
    return Turn(speaker, " ".join(text.split())) if speaker else None


def encode_speaker(tokenizer: Tokenizer, name: str) -> tuple[int, ...]:
    """Return the token ids that begin a line, such as "Gandalf:", by the canonical name of its speaker."""
    return tuple(tokenizer.encode(f"{display_name(name)}:").tolist())


def encode_turn(tokenizer: Tokenizer, turn: Turn) -> tuple[int, ...]:
    """Return the token ids of a turn: its name, text and line end. White space counts as single spaces."""
    return (*encode_speaker(tokenizer, turn.speaker), *tokenizer.encode(utterance_text(turn.text)).tolist())


def encode_turns(tokenizer: Tokenizer, turns: Sequence[Turn]) -> tuple[int, ...]:
    return tuple(id for turn in turns for id in encode_turn(tokenizer, turn))


def utterance_mask(tokenizer: Tokenizer, ids: TokenIds) -> npt.NDArray[np.bool_]:
    """Return `[time]` True for tokens of texts and their line ends, False for those up to a first colon of a line.

    Ids that begin inside a line count as its beginning.
    """
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


def split_head(line: str) -> str:
    """Return the beginning of a line up to its first colon outside of brackets, or all if there is none."""
    match = _HEAD.match(line, 0, MAX_HEAD_CHARACTERS + 1)
    return match[0] if match else ""


def split_name(line: str) -> NamedLine | None:
    """Split a line with single spaces after the name that it begins with; None if it does not begin with a name."""
    head = split_head(line)
    text = line[len(head) + 1 :]
    words = _BRACKETS.sub(" ", head).split()
    if not head.isascii():  # marks, such as vowel signs, belong to the letters before them
        words = ["".join(each for each in word if unicodedata.category(each)[0] != "M") for word in words]
    if (
        head == line[: MAX_HEAD_CHARACTERS + 1]
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
    num_lines = sum(map(bool, texts))
    found = list[tuple[NamedLine, bool]]()  # and if the line follows an empty one, or begins the script
    for text, text_before in zip(texts, ["", *texts], strict=False):
        if named := split_name(text):
            found.append((named, not text_before))
    num_upper = sum(named.case == NameCase.UPPER for named, _ in found)
    num_title = sum(named.case <= NameCase.TITLE for named, _ in found)
    num_lower = sum(named.case == NameCase.ANY for named, _ in found)
    case = NameCase.TITLE
    if num_upper and num_upper >= MIN_UPPER_FRACTION * num_title:
        case = NameCase.UPPER
    elif len(found) >= MIN_CHAT_FRACTION * num_lines and num_lower > MIN_LOWER_FRACTION * len(found):
        case = NameCase.ANY
    found = [(named, follows_gap) for named, follows_gap in found if named.case <= case]
    if len(found) < max(1, MIN_NAME_FRACTION * num_lines):
        return None
    names_stand_alone = sum(not named.text for named, _ in found) > len(found) / 2
    gaps = [follows_gap for named, follows_gap in found if not (names_stand_alone and named.text)]
    gap_fraction = sum(gaps) / len(gaps) if len(gaps) > 1 else 0.0
    names_follow_gaps = gap_fraction >= MIN_GAP_FRACTION
    if names_stand_alone and names_follow_gaps and case == NameCase.TITLE:
        case = NameCase.SENTENCE  # as in "First citizen:", which can be no sentence there
    return ScriptStyle(names_stand_alone, case, names_follow_gaps, 2 if gap_fraction >= MIN_SPACED_FRACTION else 1)


def read_utterances(lines: Iterator[str]) -> Iterator[Utterance] | None:
    """Return the utterances of a script, or None if its beginning names no speakers.

    A line without a name continues the utterance before it, or after an empty line begins another one of its speaker.
    """
    beginning = list(islice(lines, SAMPLE_LINES))
    style = detect_style(beginning)
    return None if style is None else _join_lines(chain(beginning, lines), style)


def _join_lines(lines: Iterable[str], style: ScriptStyle) -> Iterator[Utterance]:
    parts: list[str] = []  # lines of the utterance that is being read
    speaker, section, num_empty_lines, is_first = "", 0, 0, True
    for line in lines:
        text = " ".join(line.split())
        if not text:
            num_empty_lines += not is_first
            continue
        named = None
        if num_empty_lines or is_first or not style.names_follow_gaps:
            named = named_line(text, style)
        if parts and (named or num_empty_lines):
            yield Utterance(" ".join(parts), speaker, section)
            parts = []
        if num_empty_lines >= style.scene_gap:
            section += 1
        if named:
            speaker, text = named.name, named.text
        if text:
            parts.append(text)
        num_empty_lines, is_first = 0, False
    if parts:
        yield Utterance(" ".join(parts), speaker, section)


def named_line(text: str, style: ScriptStyle) -> NamedLine | None:
    named = split_name(text)
    if named is None or named.case > style.case or (named.text and style.names_stand_alone):
        return None
    return named


def read_screenplay(lines: Iterable[str]) -> Iterator[Utterance]:
    """Yield the speeches of a screenplay, which end at an empty line; all else is left out."""
    section, is_comment = 0, False
    for _, group in groupby(map(str.strip, lines), key=bool):
        head, *parts = group
        if head.startswith("@"):  # a name in any case
            head = head[1:].upper()
        named = split_name(f"{head.removesuffix('^').strip()}:")
        if is_comment or head.startswith("/*"):
            is_comment = "*/" not in " ".join([head, *parts])
        elif _SCENE_HEADING.match(head):
            section += 1
        elif named and not named.text and named.case == NameCase.UPPER:
            speech = " ".join(_DIRECTIONS.sub("", " ".join(parts)).split())
            if speech:
                yield Utterance(speech, normalize_speaker(named.name), section)


def is_screenplay(lines: Sequence[str], *, needs_scenes: bool) -> bool:
    """Return True if a text that begins with `lines` is a screenplay, with headings of scenes if it needs them."""
    speeches = list(read_screenplay(lines))
    speakers = {speech.speaker for speech in speeches}
    if needs_scenes and not any(speech.section for speech in speeches):
        return False
    return len(speeches) - len(speakers) > MIN_SPEECH_FRACTION * len(lines)  # no title returns so often


def read_scenes(script: str) -> list[list[Turn]]:
    """Return the scenes of a script in any style; SOMEONE says the lines that have no speaker.

    What `script_text` wrote is read back, but scenes of one turn become one: other programs write conversations so.
    """
    scenes = [[turn for line in scene.split("\n") if (turn := parse_line(line))] for scene in script.split("\n\n")]
    if script_text(scenes) == script:
        if len(scenes) > 1 and len(scenes) >= MIN_SPACED_FRACTION * sum(map(len, scenes)):
            scenes = [list(chain(*scenes))]
        return list(filter(None, scenes))
    lines = script.splitlines()
    utterances = read_utterances(iter(lines))
    if utterances is None:
        turns = [Turn(SOMEONE, text) for line in lines if (text := " ".join(line.split()))]
        return [turns] if turns else []
    sections = groupby(utterances, key=lambda each: each.section)
    return [[Turn(normalize_speaker(each.speaker) or SOMEONE, each.text) for each in scene] for _, scene in sections]
