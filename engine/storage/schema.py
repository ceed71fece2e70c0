"""Validation of data from files against dataclasses, with one-line errors that name the field."""

import dataclasses
import re
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from engine.errors import InvalidInputError, suggest_nearest

T = TypeVar("T")


def decode_json(type_: type[T], content: bytes | str) -> T:
    """Parse JSON and build a `type_` from it with `decode`. NaN and infinity are refused."""
    return decode(type_, parse_json(content))


def parse_json(content: bytes | str) -> Any:
    """Parse JSON without NaN and infinity; other content raises an InvalidInputError."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError("not valid JSON") from error


def decode(type_: type[T], data: object) -> T:
    """Build a `type_` (a dataclass, or a container of dataclasses) from parsed JSON, checking every value.

    Raises:
        InvalidInputError: If a field is missing, unknown, of another type or out of range.
    """
    _reject_unknown_fields(type_, data, "")
    try:
        return msgspec.convert(data, type_, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidInputError(_describe(error)) from error


def _reject_unknown_fields(type_: Any, data: object, path: str) -> None:
    """Refuse keys that are no fields: msgspec ignores them for dataclasses, and a typo or an old name must be seen."""
    if isinstance(data, dict) and (hints := _dataclass_hints(type_)) is not None:
        for name, value in data.items():
            where = f"{path}.{name}" if path else str(name)
            if name not in hints:
                raise InvalidInputError(f"unknown field {where!r}{suggest_nearest(str(name), hints)}")
            _reject_unknown_fields(hints[name], value, where)
    elif isinstance(data, dict) and get_origin(type_) is Mapping:
        for name, value in data.items():
            _reject_unknown_fields(get_args(type_)[1], value, f"{path}.{name}" if path else str(name))
    elif isinstance(data, list) and _is_sequence_of_dataclasses(type_):
        for index, item in enumerate(data):
            _reject_unknown_fields(get_args(type_)[0], item, f"{path}[{index}]")


@cache
def _is_sequence_of_dataclasses(type_: Any) -> bool:
    """Return True for a list or tuple of dataclasses; the items of others need no check, and may be millions."""
    return get_origin(type_) in (list, tuple) and _dataclass_hints(get_args(type_)[0]) is not None


@cache
def _dataclass_hints(type_: Any) -> dict[str, Any] | None:
    """Return the field types of a dataclass, or of the dataclass in an optional type; None for any other type."""
    if get_origin(type_) is types.UnionType:
        type_ = next((option for option in get_args(type_) if dataclasses.is_dataclass(option)), None)
    return get_type_hints(type_) if isinstance(type_, type) and dataclasses.is_dataclass(type_) else None


def _describe(error: msgspec.ValidationError) -> str:
    """Turn msgspec's message ("Expected `int`, got `str` - at `$.top_k`") into "top_k: expected int, got str"."""
    message, _, where = str(error).replace("`", "").partition(" - at ")
    field = re.sub(r"^(key in )?\$\.?", "", where)
    message = message[:1].lower() + message[1:]
    return f"{field}: {message}" if field else message
