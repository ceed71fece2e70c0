"""Names of speakers: their canonical form, the marks beside them, their form on the screen, and their lookup."""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from engine.errors import InvalidInputError, RunError, suggest_nearest
from engine.storage.schema import decode_json

MAX_NAME_CHARACTERS, MAX_WRITTEN_CHARACTERS = 40, 500  # of a name, and of a name as written with the marks beside it
CAST_FILE = "cast.json"
MAX_CAST_SIZE = 10_000
SOMEONE = "SOMEONE"
"""Last member of every cast, for speakers without a token of their own and for lines without a speaker."""
STRANGER = "STRANGER"  # speaker of the lines of a user who has chosen no name
SMALL_WORDS = frozenset(["a", "an", "and", "at", "by", "de", "for", "from", "in", "of", "on", "the", "to", "with"])
"""Words of a name that are not written with a capital, unless they begin it."""
MAX_SUGGESTED_NAMES = 12  # maximum number of members of the cast that an error lists

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_TAG = re.compile(r"<[^<>]*>|\[/[^\[\]]*\]|\[[a-z#@][^\[\]]*\](?=.*\[/)")
"""Tags as in HTML and in Rich, which closes a tag in brackets with a slash."""
_BRACKETS = re.compile(r"\(([^()]*)\)|\[([^\[\]]*)\]|\{([^{}]*)\}")
_ROMAN_NUMBER = re.compile(r"[IVX]{2,}")
_CAPITALS = re.compile(r"^\w'\w|(?:^|(?<=[-/&]))\w")
"""Letters of a word that are capitals: the first one, also of a part, and two in words such as "O'Brien"."""
_APOSTROPHES = str.maketrans("’‘ʼ`´", "'''''")
_MARK_WORDS = {
    "VOICE OVER": ("VOICEOVER", "VO", "V O"),
    "OFF SCREEN": ("OFFSCREEN", "OFF CAMERA", "OFFCAMERA", "OFF STAGE", "OFFSTAGE", "OFF", "OS", "O S", "OC", "O C"),
    "CONTINUED": ("CONTINUING", "CONT'D", "CONTD", "CONT D", "CONT"),
    "VOICE": (),
}
_MARKS = {spelling: mark for mark, spellings in _MARK_WORDS.items() for spelling in (mark, *spellings)}
"""Canonical mark of each spelling, in upper case, without periods and with a space for each hyphen or slash."""
_VOICE_OF_NO_NAME = re.compile(r"(?:AN?|THE|FIRST|SECOND|THIRD|ANOTHER|OTHER|.*'S|.*\d)")
"""Words that make "VOICE" after them a part of a name, as in "THE VOICE"."""


class Speaker(NamedTuple):
    """A speaker as a corpus names it."""

    name: str  # canonical name: upper case, single spaces, at most `MAX_NAME_CHARACTERS`; empty if there is none
    marks: tuple[str, ...]  # marks that were beside the name, such as "VOICE OVER", in text order


@lru_cache(maxsize=1000)
def normalize_speaker(raw: str) -> Speaker:
    """Return the canonical name of a speaker, and the marks that were separated from it.

    A name keeps its letters, digits, hyphens, apostrophes, slashes and ampersands, in upper case. Text in brackets
    beside a name is a mark, as is a known mark at its end in any spelling: "Gandalf (V.O.)" and "Gandalf Voice-over"
    are GANDALF with the mark "VOICE OVER". A name that is too long becomes empty.
    """
    raw = " ".join(raw.split())
    if len(raw) > MAX_WRITTEN_CHARACTERS:
        return Speaker("", ())
    text = " ".join(_TAG.sub(" ", _ESCAPE_SEQUENCE.sub(" ", raw)).split())
    marks = [mark for groups in _BRACKETS.findall(text) if (mark := _clean("".join(groups)))]
    words = _clean(_BRACKETS.sub(" ", text)).split()
    if not words:  # only brackets or a tag: they hold the name
        words, marks = _clean(_ESCAPE_SEQUENCE.sub(" ", raw)).split(), []
    trailing = []
    while mark := _trailing_mark(words):
        words = _clean(" ".join(words[: -len(mark.split())])).split()
        trailing.append(_MARKS[_mark_key(mark)])
    name = " ".join(words)
    marks = [_MARKS.get(_mark_key(mark), mark)[:MAX_NAME_CHARACTERS] for mark in marks]
    return Speaker(name if len(name) <= MAX_NAME_CHARACTERS else "", (*reversed(trailing), *marks))


def merge_key(name: str) -> str:
    """Return a text that is the same for all canonical names that are equal up to spaces and hyphens."""
    return name.replace(" ", "").replace("-", "")


def display_name(name: str) -> str:
    """Return a canonical name as it is written in a sentence, such as "King of the Dead" or "Richard III"."""
    words = name.split()
    for index, word in enumerate(words):
        if index and word.lower() in SMALL_WORDS:
            words[index] = word.lower()
        elif not _ROMAN_NUMBER.fullmatch(word):
            words[index] = _CAPITALS.sub(lambda match: match[0].upper(), word.lower())
    return " ".join(words)


def first_to_answer(cast: Sequence[str]) -> str:
    """Return who answers until someone is named: Gandalf, or else the first of a cast who is no stranger."""
    names = [name for name in cast if name not in (STRANGER, SOMEONE)] or cast
    return "GANDALF" if "GANDALF" in names else names[0]


def find_member(canonical: str, cast: Sequence[str]) -> str | None:
    """Return the member of `cast` with a canonical name, up to spaces and hyphens; None if there is none."""
    if canonical in cast:
        return canonical
    key = merge_key(canonical)
    return next((member for member in cast if merge_key(member) == key), None)


def find_speaker(name: str, cast: Sequence[str]) -> str:
    """Return the member of `cast` that `name` means, in any case and with any marks, or raise an InvalidInputError."""
    if name in cast:
        return name
    canonical = normalize_speaker(name).name
    member = find_member(canonical, cast)
    if member is not None:
        return member
    shown = name if len(name) <= MAX_NAME_CHARACTERS else f"{name[:MAX_NAME_CHARACTERS]}…"
    nearest = suggest_nearest(canonical, [member for member in cast if member != SOMEONE]) if canonical else "."
    if nearest == ".":
        names = ", ".join(cast[:MAX_SUGGESTED_NAMES])
        nearest = f"; use one of {names}{', …' if len(cast) > MAX_SUGGESTED_NAMES else ''}"
    problem = f"speaker {shown!r} is not in the cast of this model" if canonical else f"{shown!r} is not a name"
    raise InvalidInputError(f"{problem}{nearest}")


def _clean(text: str) -> str:
    """Return `text` in upper case, with single spaces and only the characters of names."""
    kept = ""
    for character in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).upper()).translate(_APOSTROPHES):
        category = unicodedata.category(character)
        if character in "-/&'" or category[0] in "LNM":
            kept += character
        elif character != "." and category != "Cf":
            kept += " "
    words = [word if word == "&" else word.strip("-/&'") for word in kept.split()]
    return " ".join(filter(None, words)).strip("& ")


def _mark_key(text: str) -> str:
    return " ".join(re.split("[-/ ]+", text)).strip()


def _trailing_mark(words: Sequence[str]) -> str:
    """Return the mark of one or two words that ends a name of several words, or an empty text."""
    for num_words in range(min(2, len(words) - 1), 0, -1):
        mark = " ".join(words[-num_words:])
        is_name = mark == "VOICE" and _VOICE_OF_NO_NAME.fullmatch(words[-2])
        if _mark_key(mark) in _MARKS and not is_name:
            return mark
    return ""


_Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)]


@dataclass(frozen=True)
class _CastFile:
    version: Literal[1]
    cast: Annotated[list[_Name], Meta(min_length=1, max_length=MAX_CAST_SIZE)]


def cast_to_json(cast: Sequence[str]) -> str:
    """Return a cast as the content of its file in a run directory."""
    return json.dumps(asdict(_CastFile(1, list(cast))), ensure_ascii=False)


def cast_from_json(text: str, source: str) -> tuple[str, ...]:
    """Return the cast that `cast_to_json` wrote to the file `source`; damage raises a RunError."""
    try:
        cast = decode_json(_CastFile, text).cast
    except InvalidInputError as error:
        raise RunError(f"{source} is not the cast of a run: {str(error).removesuffix('.')}; train a new run") from error
    if len(set(cast)) != len(cast) or not all(name.isprintable() and name == " ".join(name.split()) for name in cast):
        raise RunError(f"{source} lists a speaker twice, or one whose name cannot be shown; the run is damaged")
    return tuple(cast)
