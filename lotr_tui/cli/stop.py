"""Asking a training in another process to stop or to save, and seeing it done."""

import time
from collections.abc import Callable
from pathlib import Path

from engine.control import Command
from engine.errors import LotrError, printable
from engine.runs.control_files import ask
from engine.runs.store import RESUME, is_written

WAIT_SECONDS = 20.0
LOOK_SECONDS = 0.1


def ask_to_stop(path: Path, *, wait: bool = True) -> str:
    """Ask the training of a run to save and stop; the line says how it went.

    Raises:
        RunError: nobody is training it, or it cannot be asked.
        LotrError: it was asked, but did not stop in time.
    """
    ask(path, Command("stop"))
    if not wait:
        return printable(f"run {path.name} is asked to save and stop")
    _wait(lambda: not is_written(path), path, "stopped")
    again = f"; go on with it: lotr-tui train --resume {path.name}" if (path / RESUME).exists() else ""
    return printable(f"run {path.name} has stopped{again}")


def ask_to_save(path: Path, *, wait: bool = True) -> str:
    """Ask the training of a run to save and go on; the line says how it went.

    Raises:
        RunError: nobody is training it, or it cannot be asked.
        LotrError: it was asked, but did not save in time.
    """
    before = _saved(path)
    ask(path, Command("checkpoint"))
    if not wait:
        return printable(f"run {path.name} is asked to save")
    _wait(lambda: _saved(path) != before or not is_written(path), path, "saved")
    return printable(f"run {path.name} {'is saved' if is_written(path) else 'has ended meanwhile'}")


def _wait(done: Callable[[], bool], path: Path, what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise LotrError(
                f"run {path.name} was asked, but has not {what} within {WAIT_SECONDS:.0f} s; it does so between two "
                f"updates. Look again with `lotr-tui status {path.name}`"
            )
        time.sleep(LOOK_SECONDS)


def _saved(path: Path) -> tuple[int, int] | None:
    """Which file it is: each saving makes another one."""
    try:
        status = (path / RESUME).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
