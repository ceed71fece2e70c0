"""Validation of data from files against dataclasses, with one-line errors that name the field."""

import dataclasses
import re
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from engine.errors import InvalidInputError, RunError, suggest_nearest
from engine.storage.files import read_limited

T = TypeVar("T")


def read_run_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a file that a run must have, or raise a RunError."""
    try:
        return read_limited(path, max_bytes)
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; the run is not complete") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; the run is damaged") from error


def read_run_json(type_: type[T], path: Path, max_bytes: int) -> T:
    """Return the content of a JSON file that a run must have, or raise a RunError."""
    content = read_run_file(path, max_bytes)
    try:
        return decode_json(type_, content)
    except InvalidInputError as error:
        raise RunError(f"{path} is damaged: {str(error).removesuffix('.')}; train a new run") from error


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
    """Build a `type_` (a dataclass, or a container of dataclasses) from parsed JSON.

    A field that is missing, unknown, of another type or out of range raises an InvalidInputError.
    """
    _reject_unknown_fields(type_, data, "")
    try:
        return msgspec.convert(data, type_, strict=True)
    except msgspec.ValidationError as error:
        # "Expected `int`, got `str` - at `$.top_k`" becomes "top_k: expected int, got str"
        message, _, where = str(error).replace("`", "").partition(" - at ")
        field = re.sub(r"^(key in )?\$\.?", "", where)
        message = message[:1].lower() + message[1:]
        raise InvalidInputError(f"{field}: {message}" if field else message) from error


def _reject_unknown_fields(type_: Any, data: object, path: str) -> None:
    """Refuse keys that are no fields: msgspec ignores them for dataclasses, and a typo or an old name must be seen."""
    hints = _dataclass_hints(type_)
    if isinstance(data, dict) and (hints is not None or get_origin(type_) is Mapping):
        for name, value in data.items():
            where = f"{path}.{name}" if path else str(name)
            if hints is not None and name not in hints:
                raise InvalidInputError(f"unknown field {where!r}{suggest_nearest(str(name), hints)}")
            _reject_unknown_fields(get_args(type_)[1] if hints is None else hints[name], value, where)
    elif isinstance(data, list) and get_origin(type_) in (list, tuple):
        item_type = get_args(type_)[0]
        if _dataclass_hints(item_type) is not None:  # the items of others need no check, and may be millions
            for index, item in enumerate(data):
                _reject_unknown_fields(item_type, item, f"{path}[{index}]")


@cache
def _dataclass_hints(type_: Any) -> dict[str, Any] | None:
    """Return the field types of a dataclass, or of the dataclass in an optional type; None for any other type."""
    if get_origin(type_) is types.UnionType:
        type_ = next((option for option in get_args(type_) if dataclasses.is_dataclass(option)), None)
    return get_type_hints(type_) if isinstance(type_, type) and dataclasses.is_dataclass(type_) else None
