"""Deleting and renaming of runs, only inside the runs folder."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from engine.errors import RunError
from engine.runs.directory import (
    CONFIG_FILE,
    LOCK_FILE,
    bundled_run_name,
    check_run_name,
    is_locked,
    is_run,
    resolve_run,
    run_word,
)
from engine.storage.files import default_runs_dir
from engine.storage.lock import FileLock

LOCK_TIMEOUT = 0.2
"""Seconds to wait for the lock, which other processes hold for a moment when they check it."""


def delete_run(run_dir: Path, runs_dir: Path | None = None) -> None:
    """Delete a run of the runs folder, unless the run is being trained; a failure raises a RunError."""
    runs_dir = runs_dir or default_runs_dir()
    if name := bundled_run_name(run_dir):
        raise RunError(f"the bundled model {name!r} is part of lotr-tui and cannot be deleted")
    if run_dir.is_symlink() or run_dir.parent.resolve() != runs_dir.resolve():
        raise RunError(f"run {str(run_dir)!r} is not in {runs_dir}; only runs of that folder can be deleted")
    if not is_run(run_dir):
        raise RunError(f"{run_dir} has no {CONFIG_FILE}, so it is not a run and is not deleted")
    try:
        with _hold_run_lock(run_dir):
            shutil.rmtree(run_dir)
    except OSError as error:
        raise RunError(f"run {run_dir} cannot be deleted: {error.strerror}") from error


def rename_run(run: str, new_name: str, runs_dir: Path | None = None) -> str:
    """Rename a run of the runs folder and return a message for the user.

    Raises:
        RunError: If there is no such run in the folder, it is being trained, or the new name is invalid or taken.
    """
    runs_dir = runs_dir or default_runs_dir()
    path = resolve_run(run, runs_dir)
    if path.parent.resolve() != runs_dir.resolve():
        raise RunError(f"run {run!r} is not in {runs_dir}; only runs of that folder can be renamed")
    check_run_name(new_name)
    new_path = runs_dir / new_name
    try:
        with _hold_run_lock(path):
            if new_path.exists() or new_path.is_symlink():
                raise RunError(f"run {new_name!r} exists in {runs_dir}; choose another name")
            path.rename(new_path)
    except OSError as error:
        raise RunError(f"run {path.name!r} cannot be renamed: {error.strerror}") from error
    return f"run {path.name} is now {new_name}"


@contextlib.contextmanager
def _hold_run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run, so that no process trains it in the block; raise a RunError if one does already."""
    lock = FileLock(run_dir / LOCK_FILE, LOCK_TIMEOUT)
    try:
        acquired = not lock.path.exists() or lock.acquire()  # no lock file is created
    except OSError:  # the lock file cannot be written, so it can only be checked
        acquired = not is_locked(run_dir)
    if not acquired:
        raise RunError(f"run {run_dir.name!r} is being trained; stop it first: lotr-tui stop {run_word(run_dir)}")
    try:
        yield
    finally:
        lock.release()
