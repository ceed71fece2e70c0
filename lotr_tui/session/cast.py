"""Roles in a conversation: whom the user speaks as, who can answer, and how the names are shown."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from engine.data import speakers
from engine.data.speakers import SOMEONE, STRANGER, display_name
from engine.errors import InvalidInputError, suggest_nearest

SPEAKER_STYLES = tuple(f"speaker-{number}" for number in range(12))  # a larger cast uses them again
UNCAST_STYLE = "speaker"
MODEL_CHOOSES = "the model chooses"
A_STRANGER = "a stranger"  # the one name on the screen for who has no name
NOBODY = {"as": (A_STRANGER, "stranger", "me", "anyone", "anybody"), "to": ("anyone", "anybody")}  # typed for no name
ON_PURPOSE = "!"  # before a name that is not in the cast
MIN_NAME_WIDTH, MAX_NAME_WIDTH = 7, 12  # cells of the column of names

_GREETINGS = "hello|hi|hey|good (?:morning|day|evening|night)|goodbye|bye|farewell|thanks|thank you|dear|oh"
_TITLES = r"mrs?\.?|master|lord|lady|king|old"


class Roles(NamedTuple):
    """Canonical names of who says the prompt and who answers, in the cast or not, and the system prompt."""

    speaking_as: str = ""  # empty for a stranger
    speaker: str = ""  # empty if none is chosen
    system_prompt: str = ""  # empty for the one of the chat template


NO_ROLES = Roles()


def read_name(relation: str, typed: str, cast: Sequence[str]) -> str:
    """Return the member of the cast that a typed name means, or another name in its canonical form; empty for anyone.

    After `!`, a name may be any other; without it, only the user's, if it is not nearly one of the cast. Others raise
    an InvalidInputError.
    """
    typed = typed.strip()
    if typed.casefold() in NOBODY[relation]:
        return ""
    canonical = speakers.normalize_speaker(typed)
    if not canonical:
        return speakers.find_speaker(typed, cast)  # which says that it is no name
    if (member := speakers.find_member(canonical, cast)) is not None:
        return member
    name, people = display_name(canonical), [display_name(member) for member in cast if member != SOMEONE]
    nearest = suggest_nearest(name, people, 0.75)  # a far one is no misspelling
    is_meant = typed.startswith(ON_PURPOSE) or (relation == "as" and nearest == ".")
    if not is_meant:
        raise InvalidInputError(f"{name} is not in the cast{nearest} For a speaker outside the cast, write !{name}")
    return canonical


def describe_unknown_name(name: str, cast: Sequence[str]) -> str:
    """Return what to expect of a speaker outside the cast; empty for a member."""
    if not name or name in cast:
        return ""
    return f"{display_name(name)} is not in the cast, so the model has to imagine what such a speaker says"


def answering_cast(cast: Sequence[str], speaking_as: str, line: str = "") -> tuple[str, ...]:
    """Return whom a line of the user calls by name, or else all but the user, a stranger and the last member."""
    others = tuple(name for name in cast[:-1] if name not in (speaking_as, STRANGER)) or tuple(cast)
    called = _called_pattern(others).findall(line) if line else []
    keys = {" ".join(name.upper().split()).translate(speakers.JOINED) for name in called}
    return tuple(name for name in others if name.translate(speakers.JOINED) in keys) or others


@lru_cache(maxsize=16)
def _called_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern that finds the names by which a line calls someone, as in "Sam, wait!" and "hello sam"."""
    longest_first = sorted(names, key=len, reverse=True)
    any_name = "|".join(r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", name))) for name in longest_first)
    start = rf"(?:^|[,;:!?]|(?<!\bmr)(?<!\bmrs)\.|\b(?:{_GREETINGS}))"
    return re.compile(rf"{start}\s*(?:(?:{_TITLES})\s+)?\b({any_name})\b\s*(?=[,.;:!?]|$)", re.IGNORECASE)


def shown_name(name: str) -> str:
    """Return a canonical name as the screen shows it; strangers and someone have one name."""
    return A_STRANGER.capitalize() if name in (STRANGER, SOMEONE) else display_name(name)


def speaker_style(name: str, cast: Sequence[str]) -> str:
    """Return the name of a speaker's style, which depends on the place in the cast, so that it stays the same."""
    return SPEAKER_STYLES[cast.index(name) % len(SPEAKER_STYLES)] if name in cast else UNCAST_STYLE
