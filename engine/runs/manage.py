"""Runs deleted and renamed: those of the runs folder, and nothing outside it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from engine.errors import RunError
from engine.runs.store import CONFIG, LOCK, check_name, resolve
from engine.storage.files import assets_folder, open_file, runs_folder, take_lock

LOCK_SECONDS = 0.2
"""Tried at most: whoever looks whether it is taken has it for a moment."""


def remove(path: Path, folder: Path | None = None) -> None:
    """Delete a run of the runs folder.

    Raises:
        RunError: it is being written, or is not ours to delete.
    """
    folder = folder or runs_folder()
    if path == assets_folder() / "model":
        raise RunError("the bundled model is part of lotr-tui and stays")
    if path.is_symlink() or path.parent.resolve() != folder.resolve():
        raise RunError(f"run {str(path)!r} is not in {folder}; only the runs there can be deleted")
    if not (path / CONFIG).is_file():
        raise RunError(f"{path} is no run, so it is not deleted: it has no {CONFIG}")
    try:
        with _not_trained(path):
            shutil.rmtree(path)
    except OSError as error:
        raise RunError(f"run {path} cannot be deleted: {error.strerror}") from error


def rename(run: str, name: str, folder: Path | None = None) -> str:
    """Give a run of the runs folder another name; returns a line about it.

    Raises:
        RunError: there is no such run there, it is being trained, or the name is taken or none.
    """
    folder = folder or runs_folder()
    path = resolve(run, folder)
    if path.parent.resolve() != folder.resolve():
        raise RunError(f"run {run!r} is not in {folder}; only the runs there can be renamed")
    check_name(name)
    new = folder / name
    try:
        with _not_trained(path):
            if new.exists() or new.is_symlink():
                raise RunError(f"run {name!r} exists in {folder}; choose another name")
            path.rename(new)
    except OSError as error:
        raise RunError(f"run {path.name!r} cannot be renamed: {error.strerror}") from error
    return f"run {path.name} is now {name}"


@contextlib.contextmanager
def _not_trained(path: Path) -> Iterator[None]:
    """Have the lock of a run, so that nobody begins to train it in the meantime.

    Raises:
        RunError: it is being trained.
    """
    try:
        lock = os.fdopen(open_file(path / LOCK))
    except OSError:  # it has none that could be had
        yield
        return
    with lock:
        if not take_lock(lock, LOCK_SECONDS):
            raise RunError(f"run {path.name!r} is being trained; stop it first: lotr-tui stop {path.name}")
        yield
