"""`lotr-tui stop`: ask a training in another process to stop or to save, and wait for it."""

import time
from collections.abc import Callable
from pathlib import Path

from engine.control import ControlCommand
from engine.errors import LotrError, printable
from engine.runs.control_files import send_command
from engine.runs.directory import RESUME_FILE, is_locked, run_word

TIMEOUT = 20.0
"""Seconds to wait for the training to obey."""
POLL_INTERVAL = 0.1


def request_stop(path: Path, *, wait: bool = True) -> str:
    """Ask the training of the run in `path` to save and stop. Return a line about the outcome.

    Raises:
        RunError: If no process trains the run, or its directory cannot be written.
        LotrError: If the training did not stop in time.
    """
    send_command(path, ControlCommand("stop"))
    if not wait:
        return printable(f"run {path.name} was asked to save and stop")
    _wait_until(lambda: not is_locked(path), path, "stopped")
    hint = f"; resume it: lotr-tui train --resume {run_word(path)}" if (path / RESUME_FILE).exists() else ""
    return printable(f"run {path.name} has stopped{hint}")


def request_checkpoint(path: Path, *, wait: bool = True) -> str:
    """Ask the training of the run in `path` to save and continue. Return a line about the outcome."""
    previous = _checkpoint_id(path)
    send_command(path, ControlCommand("checkpoint"))
    if not wait:
        return printable(f"run {path.name} was asked to save")
    _wait_until(lambda: _checkpoint_id(path) != previous or not is_locked(path), path, "saved")
    return printable(f"run {path.name} {'is saved' if is_locked(path) else 'has ended'}")


def _wait_until(condition: Callable[[], bool], path: Path, outcome: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise LotrError(
                f"run {path.name} has not {outcome} within {TIMEOUT:.0f} s; it does so between two steps. "
                f"Check again with `lotr-tui status {run_word(path)}`"
            )
        time.sleep(POLL_INTERVAL)


def _checkpoint_id(path: Path) -> tuple[int, int] | None:
    """Return inode and modification time of the checkpoint file, which change with every save."""
    try:
        status = (path / RESUME_FILE).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
