"""JSON files that one session keeps for the next: versions, failures, quarantine of damaged files."""

from itertools import count
from pathlib import Path
from typing import TypeVar

from engine.errors import InvalidInputError, LotrError
from engine.storage.files import decode, parse_json

MAX_CAUSE_LENGTH = 200  # of a cause in the message about a damaged file, which may quote the file

T = TypeVar("T")


class FailureReporter:
    """Filter that reports a repeated failure once, until the operation has succeeded again."""

    def __init__(self) -> None:
        self._has_failed = False

    def report(self, message: str) -> str:
        """Return the message of the first failure; "" for the failures that follow, and for a success without one."""
        is_repeated, self._has_failed = self._has_failed, bool(message)
        return "" if is_repeated else message


def quarantine_file(path: Path, cause: Exception) -> str:
    """Rename a damaged file to the first free `NAME.damaged-N`, and return a line that says so."""
    reason = str(cause) if isinstance(cause, LotrError) else "not a text file"
    message = f"{path} cannot be used: {reason[:MAX_CAUSE_LENGTH]}"
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
    try:
        quarantined = next(name for name in names if not name.exists())
        path.replace(quarantined)
    except OSError as error:
        return f"{message}; it cannot be set aside: {os_error_reason(error)}"
    return f"{message}; set aside as {quarantined.name}"


def os_error_reason(error: BaseException | None) -> str:
    """Return the operating system's description of a file error, or of the one that caused it."""
    cause = error if isinstance(error, OSError) or error is None else error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or "unknown error"


def decode_versioned(type_: type[T], text: str, version: int) -> T:
    """Read an object of JSON with a `version`; another version, and a wrong field, raise an InvalidInputError."""
    record = parse_json(text)
    if not isinstance(record, dict):
        raise InvalidInputError("expected an object of JSON")
    check_version(record.pop("version", None), version)
    return decode(type_, record)


def check_version(version: object, supported: int) -> None:
    """Refuse the version of a file that another release of lotr-tui wrote, by an InvalidInputError."""
    if type(version) is not int or version < 1:
        raise InvalidInputError(f"version is missing or not a whole number; expected {supported}")
    if version > supported:
        raise InvalidInputError(f"written by a newer lotr-tui (format {version}); update lotr-tui to read it")
    if version < supported:
        raise InvalidInputError(f"written by an older lotr-tui (format {version}); use that release to read it")
