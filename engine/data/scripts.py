"""Scripts: plain texts that name their speakers, as plays and transcripts do.

A name ends with a colon, after which the line or a white space follows. It begins its line and has at most six words
and `MAX_NAME_CHARACTERS`, besides parts in brackets. Words are of letters, digits, hyphens, apostrophes, slashes and
ampersands; a period may only abbreviate, as in "MRS." and "V.O.". Every word begins with a capital or a digit, except
for small words such as "of". The beginning of a file shows which names it has: only capitals or not, on a line of their
own or before the text, after empty lines or not. Only the first word needs a capital if all names stand alone after
empty lines. If most lines have names without capitals, as in a chat, names of one or two words can have any case.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal, NamedTuple, get_args

from engine.data.script_form import Turn
from engine.data.speakers import SMALL_WORDS, SOMEONE, normalize_speaker
from engine.errors import CorpusError

SAMPLE_LINES = 2_000
"""Number of lines at the beginning of a file that show its style."""
MAX_NAME_WORDS = 6
MAX_CHAT_NAME_WORDS = 2
"""Maximum number of words of a name without capitals."""
MAX_HEAD_CHARACTERS = 120
"""Maximum length of a name with the parts in brackets beside it."""
MIN_NAME_FRACTION = 0.05
"""Minimum fraction of the lines at the beginning of a script that have a name."""
MIN_CHAT_FRACTION = 0.5
"""Minimum fraction of lines with a name, and of names without capitals, in a script whose names can have any case."""
MIN_UPPER_FRACTION = 0.9
"""Minimum fraction of names in capitals that shows that all names are."""
MIN_SPACED_FRACTION = 0.8
"""Minimum fraction of names after empty lines in a script whose empty lines separate speeches, not scenes."""
MIN_GAP_FRACTION = 0.95
"""Minimum fraction of names after empty lines that shows that all names are."""

_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|[()\[\]]")
_NAME_WORD = re.compile(r"[^\W_](?:[^\W_]|['’/&#-]|\.(?=[^\W_]))*|[&-]|(?:[^\W_]{1,3}|(?:[^\W_]\.)+[^\W_])\.")

NameCase = Literal["upper", "title", "sentence", "any"]
"""upper: no small letters; title: a capital begins every word but small ones; sentence: a capital begins the name;
any: whatever case. Strictest first."""


class NamedLine(NamedTuple):
    """A line that begins with the name of its speaker."""

    name: str
    """Name as written, with the parts in brackets."""
    text: str
    """Text after the colon; empty if the name stands alone."""
    case: NameCase
    """Strictest case that the name has."""


class Utterance(NamedTuple):
    """One utterance of a script."""

    text: str
    speaker: str
    """Name as written; empty before the first name."""
    section: int
    """Number of the scene."""


@dataclass(frozen=True)
class ScriptStyle:
    """Form in which a script names its speakers."""

    names_stand_alone: bool
    """True if nothing follows a name on its line, and the text begins on the next line."""
    case: NameCase
    """Case that every name has."""
    names_follow_gaps: bool
    """True if an empty line comes before every name."""
    scene_gap: int
    """Number of empty lines that end a scene: two if one is between two speeches."""

    def read_name(self, line: str, *, follows_gap: bool) -> NamedLine | None:
        """Return the name and the text of a line with single spaces, or None if it does not begin with a name."""
        if self.names_follow_gaps and not follows_gap:
            return None
        named = split_name(line)
        if named is None or (self.names_stand_alone and named.text) or not _is_as_strict(named.case, self.case):
            return None
        return named


def split_name(line: str) -> NamedLine | None:
    """Split a line with single spaces after the name that it begins with; None if it does not begin with a name."""
    head, colon, text = line[: MAX_HEAD_CHARACTERS + 1].partition(":")
    text = line[len(head) + len(colon) :]
    if not colon or not (text == "" or text[0] == " "):
        return None
    words = _BRACKETS.sub(" ", head).split()
    if not 1 <= len(words) <= MAX_NAME_WORDS or not all(map(_NAME_WORD.fullmatch, words)):
        return None
    if not normalize_speaker(head).name or not any(map(str.isalpha, "".join(words))):
        return None
    case: NameCase = "any"
    if all(word == word.upper() for word in words):
        case = "upper"
    elif all(word[0] == word[0].upper() or (index and word in SMALL_WORDS) for index, word in enumerate(words)):
        case = "title"
    elif words[0][0] == words[0][0].upper():
        case = "sentence"
    elif len(words) > MAX_CHAT_NAME_WORDS:
        return None
    return NamedLine(head.strip(), text.strip(), case)


def detect_style(lines: Sequence[str]) -> ScriptStyle | None:
    """Return the style of a script that begins with `lines`, or None if the lines name no speakers."""
    texts = [" ".join(line.split()) for line in lines[:SAMPLE_LINES]]
    follows_gap = [index == 0 or not texts[index - 1] for index in range(len(texts))]
    found = [(named, gap) for text, gap in zip(texts, follows_gap, strict=True) if text and (named := split_name(text))]
    num_lines = sum(map(bool, texts))
    if not found or len(found) < MIN_NAME_FRACTION * num_lines:
        return None
    by_case = {
        case: [(named, gap) for named, gap in found if _is_as_strict(named.case, case)] for case in get_args(NameCase)
    }
    case: NameCase = "title"
    if len(by_case["upper"]) >= MIN_UPPER_FRACTION * len(by_case["title"]) > 0:
        case = "upper"
    elif len(found) >= MIN_CHAT_FRACTION * num_lines and len(by_case["sentence"]) < MIN_CHAT_FRACTION * len(found):
        case = "any"
    found = by_case[case]
    if len(found) < max(1, MIN_NAME_FRACTION * num_lines):
        return None
    num_alone = sum(not named.text for named, _ in found)
    names_stand_alone = num_alone > len(found) / 2
    found = [(named, gap) for named, gap in found if not (names_stand_alone and named.text)]
    num_after_gaps = sum(gap for _, gap in found)
    names_follow_gaps = num_after_gaps >= MIN_GAP_FRACTION * len(found) and len(found) > 1
    if names_stand_alone and names_follow_gaps and case == "title":  # such a line is a name even if a word is small
        case = "sentence"
    return ScriptStyle(
        names_stand_alone=names_stand_alone,
        case=case,
        names_follow_gaps=names_follow_gaps,
        scene_gap=2 if num_after_gaps >= MIN_SPACED_FRACTION * len(found) and len(found) > 1 else 1,
    )


def read_utterances(lines: Iterator[str], source: str) -> Iterator[Utterance]:
    """Yield the utterances of a script, given by its lines.

    A line without a name continues the utterance before it, or after an empty line begins another one of the same
    speaker. Lines before the first name have no speaker.

    Raises:
        CorpusError: If the beginning names no speakers. The message names the file `source`.
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
        named = style.read_name(text, follows_gap=gap > 0 or is_start)
        if parts and (named or gap):
            yield Utterance(" ".join(parts), speaker, section)
            parts = []
        section += gap >= style.scene_gap
        if named:
            speaker, text = named.name, named.text
        parts += [text] if text else []
        gap, is_start = 0, False
    if parts:
        yield Utterance(" ".join(parts), speaker, section)


def read_scenes(script: str) -> list[list[Turn]]:
    """Return the scenes of a script in any style, with canonical names.

    Lines before the first name are SOMEONE's, and so are all lines of a text that names no speakers.
    """
    lines = script.splitlines()
    if detect_style(lines) is None:
        return [[Turn(SOMEONE, text) for line in lines if (text := " ".join(line.split()))]]
    scenes: list[list[Turn]] = []
    last_section = -1
    for utterance in read_utterances(iter(lines), "the script"):
        if utterance.section != last_section:
            scenes.append([])
        last_section = utterance.section
        scenes[-1].append(Turn(normalize_speaker(utterance.speaker).name or SOMEONE, utterance.text))
    return scenes


def _is_as_strict(case: NameCase, limit: NameCase) -> bool:
    order: tuple[NameCase, ...] = get_args(NameCase)
    return order.index(case) <= order.index(limit)
