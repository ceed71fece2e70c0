"""How a file that one session keeps for the next is read: strictly, and set aside where it is damaged."""

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import cache
from itertools import count
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from engine.errors import LotrError, UnusableInput

T = TypeVar("T")


def set_aside(path: Path, why: Exception) -> str:
    """Rename a damaged file to the first free `NAME.damaged-N`, so that nobody overwrites it; a line says so."""
    text = str(why) if isinstance(why, LotrError) else "it is no text"
    said = f"{path} cannot be used: {text[:200]}"
    try:
        for number in count(1):
            aside = path.with_name(f"{path.name}.damaged-{number}")
            try:
                aside.touch(exist_ok=False)  # takes the name, so that no other process does
            except FileExistsError:
                continue
            try:
                path.replace(aside)
            except OSError:
                aside.unlink()
                raise
            return f"{said}; set aside as {aside.name}"
    except OSError as error:
        return f"{said}; it cannot be set aside: {reason(error)}"
    raise AssertionError("numbers do not end")


def reason(error: BaseException | None) -> str:
    """What the system says of a failure with a file."""
    return (error.strerror if isinstance(error, OSError) else None) or "it failed"


def parse(text: str) -> Any:
    """JSON without NaN and infinity.

    Raises:
        UnusableInput: it is not JSON.
    """

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise UnusableInput("it is not JSON") from error


def check_version(version: object, known: int) -> None:
    """Refuse what a newer version wrote, whose meaning is not known here.

    Raises:
        UnusableInput: the version is newer, or none.
    """
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UnusableInput("it does not say its version")
    if version > known:
        raise UnusableInput("a newer lotr-tui wrote it")


def from_record(kind: type[T], record: object, **decoders: Callable[[Any], object]) -> T:
    """Build a dataclass from what JSON gave, each value checked against its field's type.

    Args:
        kind: the dataclass; its fields are str, int, float, Literal or one of those or None.
        record: an object with its fields; those with a default may be missing.
        decoders: for fields of other types, by name.

    Raises:
        UnusableInput: a field is missing, unknown or of another type, or the dataclass refuses a value.
    """
    if not isinstance(record, dict):
        raise UnusableInput(f"an object with the fields of {kind.__name__} is expected")
    hints, required = _fields(cast(Any, kind))
    if missing := required - record.keys():
        raise UnusableInput(f"{min(missing)} is missing")
    values = {}
    for name, value in record.items():
        if name not in hints:
            raise UnusableInput(f"unknown field {name!r}")
        if name in decoders:
            values[name] = decoders[name](value)
        elif fits(value, hints[name]):
            values[name] = value
        else:
            raise UnusableInput(f"{name} {value!r} is of the wrong type")
    return kind(**values)


def fits(value: object, hint: Any) -> bool:
    """Whether a value from JSON is of a field's type; numbers must be finite and of 64 bits."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(hint, UnionType):
        return any(fits(value, part) for part in get_args(hint))
    if isinstance(value, bool):
        return hint is bool  # for Python it is an int too
    if hint not in (int, float):
        return isinstance(value, hint)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return hint is float and isinstance(value, float) and math.isfinite(value)


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of a dataclass's fields, and the names of those that have no default."""
    required = (f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
    return get_type_hints(kind), frozenset(required)
