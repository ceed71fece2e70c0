"""Roles in a conversation: whom the user speaks as, and who can answer."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from engine.data.speakers import (
    SOMEONE,
    STRANGER,
    display_name,
    find_member,
    find_speaker,
    merge_key,
    normalize_speaker,
)
from engine.errors import suggest_nearest


class Roles(NamedTuple):
    """Roles in a turn: who says the prompt, and who answers."""

    speaking_as: str = ""
    """Canonical name that the user speaks as, in the cast or not; empty for a stranger."""
    speaker: str = ""
    """Canonical name that the model speaks as, in the cast or not; empty if none is chosen."""
    system_prompt: str = ""
    """Text that tells a model with a chat template who it is; empty for the one of the template."""


NO_ROLES = Roles()
"""A turn whose roles are not chosen."""
_GREETINGS = "hello|hi|hey|good (?:morning|day|evening|night)|goodbye|bye|farewell|thanks|thank you|dear|oh"
_NOT_WORD = re.compile(r"\W+")
_TITLES = r"mrs?\.?|master|lord|lady|king|old"


def read_name(typed: str, cast: Sequence[str]) -> str:
    """Return the speaker that a typed name means: the member of the cast, or else any name in its canonical form.

    Raises:
        InvalidInputError: If the text is no name.
    """
    canonical = normalize_speaker(typed)
    return find_member(canonical, cast) or canonical or find_speaker(typed, cast)


def describe_unknown_name(name: str, cast: Sequence[str]) -> str:
    """Return what to expect of a speaker outside the cast, with the nearest name of the cast; empty for a member."""
    if not name or name in cast:
        return ""
    nearest = suggest_nearest(name, [member for member in cast if member != SOMEONE])
    hint = nearest.rstrip(".")
    return f"{display_name(name)} is not in the cast, so the model has to imagine what such a speaker says{hint}"


def answering_cast(cast: Sequence[str], speaking_as: str, line: str = "") -> tuple[str, ...]:
    """Return the members of the cast that the model chooses from after a line of the user.

    These are the members that the line calls by name, or else all but the user, a stranger and the last member. A cast
    without other members is returned as it is.
    """
    users = (speaking_as, STRANGER)
    others = tuple(name for name in cast[:-1] if name not in users) or tuple(cast)
    called = _called_pattern(others).findall(line) if line else []
    keys = {merge_key(" ".join(name.upper().split())) for name in called}
    return tuple(name for name in others if merge_key(name) in keys) or others


def named_speaker(cast: Sequence[str], text: str) -> str:
    """Return the first member of a cast whose name is in a text, such as "You are Gandalf"; empty if there is none."""
    words = _NOT_WORD.split(text.casefold())
    found = [name for name in cast if set(_NOT_WORD.split(name.casefold())) <= set(words)]
    return min(found, key=lambda name: words.index(_NOT_WORD.split(name.casefold())[0]), default="")


@lru_cache(maxsize=16)
def _called_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern that finds the names by which a line calls someone, as in "Sam, wait!" and "hello sam"."""
    longest_first = sorted(names, key=len, reverse=True)
    any_name = "|".join(r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", name))) for name in longest_first)
    start = rf"(?:^|[,;:!?]|(?<!\bmr)(?<!\bmrs)\.|\b(?:{_GREETINGS}))"
    return re.compile(rf"{start}\s*(?:(?:{_TITLES})\s+)?\b({any_name})\b\s*(?=[,.;:!?]|$)", re.IGNORECASE)


def describe_choice(speaker: str, prob: float | None) -> str:
    """Return who chose a speaker: "Gollum by your choice" or "Gandalf by the model, 31 %"; empty without a speaker."""
    if not speaker:
        return ""
    name = display_name(speaker)
    return f"{name} by your choice" if prob is None else f"{name} by the model, {100 * prob:.0f} %"
