"""Names of speakers: their canonical form, the marks beside them, their form on the screen, and their lookup."""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, Literal

from msgspec import Meta

from engine.errors import InvalidInputError, RunError, suggest_nearest
from engine.storage.files import decode, parse_json

MAX_NAME_CHARACTERS, MAX_WRITTEN_CHARACTERS = 40, 500  # of a name, and of a name as written with the marks beside it
CAST_FILE = "cast.json"
MAX_CAST_SIZE = 10_000
SOMEONE = "SOMEONE"  # last member of every cast, for speakers who are not in it and for lines without a speaker
STRANGER = "STRANGER"  # speaker of the lines of a user who has chosen no name
BEST_KNOWN = ("GANDALF", "FRODO", "SAM", "GOLLUM")
MAX_INTRODUCED_SPEAKERS = 4  # the best known, or those with most lines in the training text
SMALL_WORDS = frozenset(["a", "an", "and", "at", "by", "de", "for", "from", "in", "of", "on", "the", "to", "with"])
"""Words of a name that are not written with a capital, unless they begin it."""

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_TAG = re.compile(r"<[^<>]*>|\[/[^\[\]]*\]|\[[a-z#@][^\[\]]*\](?=.*\[/)")
"""Tags as in HTML and in Rich, which closes a tag in brackets with a slash."""
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}")
_ROMAN_NUMBER = re.compile(r"[IVX]{2,}")
_CAPITALS = re.compile(r"^\w'\w|(?:^|(?<=[-/&]))\w")
"""Letters of a word that are capitals: the first one, also of a part, and two in words such as "O'Brien"."""
JOINED = str.maketrans("", "", " -")  # translates canonical names that are equal up to spaces and hyphens to one text
_APOSTROPHES = str.maketrans("’‘ʼ`´", "'''''")
_MARKS = {
    *("VOICE OVER", "VOICEOVER", "VO", "V O", "VOICE", "CONTINUED", "CONTINUING", "CONT'D", "CONTD", "CONT D", "CONT"),
    *("OFF SCREEN", "OFFSCREEN", "OFF CAMERA", "OFFCAMERA", "OFF STAGE", "OFFSTAGE", "OFF", "OS", "O S", "OC", "O C"),
}
"""Marks of a script beside a name, in upper case, without periods and with a space for each hyphen or slash."""
_VOICE_OF_NO_NAME = re.compile(r"(?:AN?|THE|FIRST|SECOND|THIRD|ANOTHER|OTHER|.*'S|.*\d)")
"""Words that make "VOICE" after them a part of a name, as in "THE VOICE"."""


@lru_cache(maxsize=1000)
def normalize_speaker(raw: str) -> str:
    """Return the canonical name of a speaker; empty if there is none, or it has over `MAX_NAME_CHARACTERS`.

    A name keeps its letters, digits, hyphens, apostrophes, slashes and ampersands, in upper case. Text in brackets
    beside it is left out, as is a known mark at its end: "Gandalf (V.O.)" and "Gandalf Voice-over" are GANDALF.
    """
    raw = " ".join(raw.split())
    if len(raw) > MAX_WRITTEN_CHARACTERS:
        return ""
    text = " ".join(_TAG.sub(" ", _ESCAPE_SEQUENCE.sub(" ", raw)).split())
    # If there are only brackets or a tag, they hold the name.
    words = _clean(_BRACKETS.sub(" ", text)).split() or _clean(_ESCAPE_SEQUENCE.sub(" ", raw)).split()
    num_words = min(2, len(words) - 1)  # of the mark at the end of several words
    while num_words > 0:
        mark = re.sub("[-/ ]+", " ", " ".join(words[-num_words:])).strip()
        if mark in _MARKS and not (mark == "VOICE" and _VOICE_OF_NO_NAME.fullmatch(words[-2])):
            words = _clean(" ".join(words[:-num_words])).split()
            num_words = min(2, len(words) - 1)
        else:
            num_words -= 1
    name = " ".join(words)
    return name if len(name) <= MAX_NAME_CHARACTERS else ""


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


def best_known_first(cast: Sequence[str]) -> list[str]:
    """Return the people of a cast, without strangers: who answers first, then the best known, then in its order."""
    names = [name for name in cast if name not in (STRANGER, SOMEONE)] or list(cast)
    best_known = [name for name in BEST_KNOWN if name in names]
    return list(dict.fromkeys([first_to_answer(names), *best_known, *names]))


def introduced_speakers(cast: Sequence[str]) -> list[str]:
    """Return the members of a cast whom the first line of a session names."""
    return best_known_first(cast)[:MAX_INTRODUCED_SPEAKERS]


def find_member(canonical: str, cast: Sequence[str]) -> str | None:
    """Return the member of `cast` with a canonical name, up to spaces and hyphens; None if there is none."""
    if canonical in cast:
        return canonical
    key = canonical.translate(JOINED)
    return next((member for member in cast if member.translate(JOINED) == key), None)


def find_speaker(name: str, cast: Sequence[str]) -> str:
    """Return the member of `cast` that `name` means, in any case and with any marks, or raise an InvalidInputError."""
    if name in cast:
        return name
    canonical = normalize_speaker(name)
    member = find_member(canonical, cast)
    if member is not None:
        return member
    shown = name if len(name) <= MAX_NAME_CHARACTERS else f"{name[:MAX_NAME_CHARACTERS]}…"
    nearest = suggest_nearest(canonical, [member for member in cast if member != SOMEONE], 0.75) if canonical else "."
    if nearest == ".":
        nearest = f"; use one of {', '.join(cast[:12])}{', …' if len(cast) > 12 else ''}"
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
        cast = decode(_CastFile, parse_json(text)).cast
    except InvalidInputError as error:
        raise RunError(f"{source} is not the cast of a run: {str(error).removesuffix('.')}; train a new run") from error
    if len(set(cast)) != len(cast) or not all(name.isprintable() and name == " ".join(name.split()) for name in cast):
        raise RunError(f"{source} lists a speaker twice, or one whose name cannot be shown; the run is damaged")
    return tuple(cast)
