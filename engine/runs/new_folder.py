"""Folders that are written as a whole, and never over an existing one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import RunError
from engine.storage.files import fsync_path


def check_is_new(path: Path, kind: str = "folder") -> None:
    """Raise a RunError if `path` exists, which should become a new folder, or another kind of file."""
    if path.exists() or path.is_symlink():
        raise RunError(f"{path} exists, and nothing is overwritten; choose a new {kind}")


@contextmanager
def create_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for files, which gets the name `folder` when the block ends without an exception.

    Raises:
        RunError: If `folder` exists, or it or a file of the block cannot be written.
    """
    check_is_new(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        partial.mkdir()
        yield partial
        for file in partial.iterdir():
            fsync_path(file)
        partial.rename(folder)
        fsync_path(folder.parent)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
