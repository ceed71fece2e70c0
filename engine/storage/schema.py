"""Validation of data from files against dataclasses, with one-line errors that name the field."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.errors import InvalidInputError, RunError, suggest_nearest
from engine.storage.files import read_limited

T = TypeVar("T")


def read_run_text(path: Path, max_bytes: int) -> str:
    """Return the text of a UTF-8 file that a run must have, or raise a RunError."""
    try:
        return read_limited(path, max_bytes).decode()
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; the run is not complete") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; the run is damaged") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} cannot be read: not UTF-8; the run is damaged") from error


def read_run_json(type_: type[T], path: Path, max_bytes: int) -> T:
    """Return the content of a JSON file that a run must have, or raise a RunError."""
    content = read_run_text(path, max_bytes)
    try:
        return decode_json(type_, content)
    except InvalidInputError as error:
        raise RunError(f"{path} is damaged: {str(error).removesuffix('.')}; train a new run") from error


def decode_json(type_: type[T], content: bytes | str) -> T:
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
    try:
        built = msgspec.convert(data, type_, strict=True)
    except msgspec.ValidationError as error:
        # "Expected `int`, got `str` - at `$.top_k`" becomes "top_k: expected int, got str"
        message, _, where = str(error).replace("`", "").partition(" - at ")
        field = re.sub(r"^(key in )?\$\.?", "", where)
        message = message[:1].lower() + message[1:]
        raise InvalidInputError(f"{field}: {message}" if field else message) from error
    _reject_unknown_fields(built, data, "")
    return built


def _reject_unknown_fields(built: Any, data: Any, path: str) -> None:
    """Refuse keys that are no fields: msgspec ignores them for dataclasses, and a typo or an old name must be seen."""
    if is_dataclass(built):
        names = [field.name for field in fields(built)]
        for name, value in data.items():
            where = f"{path}.{name}" if path else name
            if name not in names:
                raise InvalidInputError(f"unknown field {where!r}{suggest_nearest(name, names)}")
            _reject_unknown_fields(getattr(built, name), value, where)
    elif isinstance(built, Mapping):
        for (name, value), item in zip(data.items(), built.values(), strict=True):
            _reject_unknown_fields(item, value, f"{path}.{name}")
    elif isinstance(built, (list, tuple)) and built and is_dataclass(built[0]):  # others may have millions of items
        for index, (item, value) in enumerate(zip(built, data, strict=True)):
            _reject_unknown_fields(item, value, f"{path}[{index}]")
