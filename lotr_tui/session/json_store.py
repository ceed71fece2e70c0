"""Helpers for JSON files that one session keeps for the next: versions, failures, quarantine of damaged files."""

from itertools import count
from pathlib import Path

from engine.errors import InvalidInputError, LotrError

MAX_CAUSE_LENGTH = 200
"""Characters of a cause in the message about a damaged file, which may quote the file."""


class FailureReporter:
    """Filter that reports a repeated failure once, until the operation has succeeded again."""

    def __init__(self) -> None:
        self._reported = False

    def report(self, message: str) -> str:
        """Return `message` for the first failure, and "" for the failures that follow."""
        if self._reported:
            return ""
        self._reported = True
        return message

    def reset(self) -> None:
        """Record a success, so that the next failure is reported."""
        self._reported = False


def quarantine_file(path: Path, cause: Exception) -> str:
    """Rename a damaged file to the first free `NAME.damaged-N`, and return a line that says so.

    The file keeps its content under the new name; no other file is overwritten.
    """
    reason = str(cause) if isinstance(cause, LotrError) else "not a text file"
    message = f"{path} cannot be used: {reason[:MAX_CAUSE_LENGTH]}"
    try:
        for number in count(1):
            quarantined = path.with_name(f"{path.name}.damaged-{number}")
            try:
                quarantined.touch(exist_ok=False)  # reserves the name against other processes
            except FileExistsError:
                continue
            try:
                path.replace(quarantined)
            except OSError:
                quarantined.unlink()
                raise
            return f"{message}; set aside as {quarantined.name}"
    except OSError as error:
        return f"{message}; it cannot be set aside: {os_error_reason(error)}"
    raise AssertionError("unreachable: count() does not end")


def os_error_reason(error: BaseException | None) -> str:
    """Return the operating system's description of a file error."""
    return (error.strerror if isinstance(error, OSError) else None) or "unknown error"


def check_version(version: object, supported: int) -> None:
    """Refuse the version number of a file that another release of lotr-tui wrote in another format.

    Raises:
        InvalidInputError: If `version` is not `supported`.
    """
    if type(version) is not int or version < 1:
        raise InvalidInputError(f"version is missing or not a whole number; expected {supported}")
    if version > supported:
        raise InvalidInputError(f"written by a newer lotr-tui (format {version}); update lotr-tui to read it")
    if version < supported:
        raise InvalidInputError(f"written by an older lotr-tui (format {version}); use that release to read it")
