"""Paths that the user types for an export: suggestion, check before anything is written, and display."""

import os
import stat
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from engine.errors import InvalidInputError
from lotr_tui.session.json_store import os_error_reason


@dataclass(frozen=True)
class ExportTarget:
    """Absolute path that an export can be written to, and what to ask before."""

    path: Path
    """Path without links, so that a linked file is replaced and not its link."""
    exists: bool
    """True if a file would be replaced."""
    missing_folder: Path | None
    """Folder to create first, or None."""


def suggest_export_path(folder: Path, name: str) -> Path:
    """Return a path that does not exist: `name` in `folder`, with a number before its suffix if necessary.

    If the folder is gone, the path is in the current folder.
    """
    try:
        folder = folder if folder.is_dir() else current_folder()
    except OSError:  # its parent cannot be read
        folder = current_folder()
    suffix = Path(name).suffix
    names = (name if number == 1 else f"{name.removesuffix(suffix)}-{number}{suffix}" for number in count(1))
    return next(path for path in (folder / name for name in names) if not os.path.lexists(path))


def current_folder() -> Path:
    """Return the working directory, or the home folder if the working directory was deleted."""
    try:
        return Path.cwd()
    except OSError:
        return Path.home()


def check_export_target(text: str, *, is_folder: bool) -> ExportTarget:
    """Return the file that a typed path names, or with `is_folder` the new or empty folder.

    Raises:
        InvalidInputError: If nothing can be written there.
    """
    text = text.strip()
    if not text:
        raise InvalidInputError("type a path, or press esc")
    try:
        path = Path(text).expanduser().resolve()
        status = path.stat() if path.exists() else None
        is_empty = status is None or not stat.S_ISDIR(status.st_mode) or not any(path.iterdir())
    except OSError as error:
        raise InvalidInputError(f"{text} cannot be used: {os_error_reason(error)}; choose another path") from error
    except (RuntimeError, ValueError) as error:  # an unknown user, a zero byte, a lone surrogate
        raise InvalidInputError(f"{text} is not a path; choose another path") from error
    if is_folder:
        _check_folder(path, status, is_empty=is_empty)
    else:
        _check_file(path, status, is_named_folder=text.endswith(os.sep))
    folder = path if is_folder and status is not None else path.parent
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError(f"{folder} is a file, not a folder; choose another path")
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidInputError(f"{folder} cannot be written: Permission denied; choose another folder")
    return ExportTarget(path, not is_folder and status is not None, None if folder.exists() else folder)


def _check_file(path: Path, status: os.stat_result | None, *, is_named_folder: bool) -> None:
    if is_named_folder or (status is not None and stat.S_ISDIR(status.st_mode)):
        raise InvalidInputError(f"{path} is a folder; add the name of a file")
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise InvalidInputError(f"{path} is not a regular file; choose another path")


def _check_folder(path: Path, status: os.stat_result | None, *, is_empty: bool) -> None:
    if status is not None and not stat.S_ISDIR(status.st_mode):
        raise InvalidInputError(f"{path} is a file; choose a new folder")
    if not is_empty:
        raise InvalidInputError(f"{path} is not empty, and nothing in it is replaced; choose a new folder")


def abbreviate_home(path: Path) -> str:
    """Return a path for an input, with "~" for the user's home folder."""
    try:
        return f"~{os.sep}{path.relative_to(Path.home())}"
    except (RuntimeError, ValueError):  # no home folder, or a path outside it
        return str(path)
