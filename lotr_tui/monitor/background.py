"""Trainings that outlive the terminal they were started in."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.errors import TrainingError, printable
from engine.runs.store import is_written
from engine.runtime.process import place, torchrun
from engine.storage.files import open_file
from engine.storage.log_file import MOST_BYTES, make_way

CONSOLE = "console.txt"
"""What a training in the background prints, in its run directory."""
STARTS_SECONDS = 60.0
"""Waited at most for the other process to take over."""
LOOK_SECONDS = 0.1


def hand_over(path: Path) -> str:
    """Have a process in a session of its own go on with the run that nobody trains now; returns a line about it.

    One of several processes has as many go on.

    Raises:
        TrainingError: it did not take over; the run stays as it was left.
    """
    command = [*torchrun(place().size), "lotr_tui", "train", "--resume", str(path), "--no-tui"]
    try:
        file = _open_console(path)
    except OSError as error:
        raise TrainingError(
            f"run {path.name} cannot go on in the background: {path / CONSOLE} cannot be written: {error.strerror}"
        ) from error
    with os.fdopen(file, "ab") as console:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
        )
    deadline = time.monotonic() + STARTS_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if is_written(path):
            name = printable(path.name)
            return f"run {name} goes on in the background, as process {process.pid}\n{how_to_come_back(name)}"
        time.sleep(LOOK_SECONDS)
    process.kill()
    raise TrainingError(
        f"run {path.name} could not go on in the background; {path / CONSOLE} says why. "
        f"Go on with it: lotr-tui train --resume {path.name}"
    )


def shorten_console(path: Path) -> None:
    """In the background, where the console of the run has become too long: begin another, and keep the one before."""
    console = path / CONSOLE
    with suppress(OSError):  # it grows until there is room, or somebody mends the folder
        status = os.fstat(1)
        if status.st_size > MOST_BYTES and os.path.samestat(status, console.lstat()):
            make_way(console)
            file = _open_console(path)
            for output in (1, 2):
                os.dup2(file, output)
            os.close(file)


def _open_console(path: Path) -> int:
    return open_file(path / CONSOLE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def how_to_come_back(name: str) -> str:
    """Lines that tell how to see and to end a training from another terminal."""
    return f"see it from any terminal: lotr-tui attach {name}\nsave and end it:          lotr-tui stop {name}"


def dies_with_its_terminal() -> bool:
    """Whether no tmux or screen keeps the terminal alive when the connection is lost."""
    return not (os.environ.get("TMUX") or os.environ.get("STY"))


def leave_terminal() -> None:
    """The terminal is gone: write to it no more, and do not be told again."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for file in (0, 1, 2):
        os.dup2(nowhere, file)
    os.close(nowhere)


def on_signals(actions: dict[signal.Signals, Callable[[], None]]) -> None:
    """Do something at each of these signals, whatever the main thread is at."""
    for number, action in actions.items():
        signal.signal(number, lambda *_, action=action: action())
