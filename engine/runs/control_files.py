"""What another process asks of a training: lines that it adds to a file of the run directory."""

import json
import os
from contextlib import closing
from pathlib import Path

from engine.control import Command
from engine.errors import RunError, UnusableInput
from engine.runs.store import REQUESTS, is_written
from engine.storage.files import Appender, open_file

MOST_BYTES = 100_000
"""Read at once; whoever writes more than that between two looks does not mean well."""


def ask(path: Path, command: Command) -> None:
    """Ask something of the training of a run, whichever process it is in.

    Raises:
        RunError: nobody is training it, or its directory cannot be written to.
    """
    if not is_written(path):
        raise RunError(
            f"run {path.name!r} is not being trained, so there is nothing to {command.what.replace('_', ' ')}"
        )
    line = json.dumps({"what": command.what, "value": command.value}) + "\n"
    try:
        with closing(Appender(path / REQUESTS)) as requests:
            requests.write(line)
            if requests.problem:
                raise RunError(f"{requests.problem}; run {path.name!r} is not asked")
    except OSError as error:
        raise RunError(f"cannot write {path / REQUESTS}: {error.strerror}; only its owner can steer a run") from error


class Requests:
    """Reads what is asked. What was asked before a training began was asked of another one."""

    def __init__(self, path: Path, begin: int = 0) -> None:
        """Follow the file of a run directory, from so many bytes on."""
        self._path = path / REQUESTS
        self._read = begin

    def __call__(self) -> list[Command]:
        """What was asked since the last call; what is no command is passed over."""
        size = self._size()
        if size <= self._read:
            self._read = size  # it may have been emptied
            return []
        try:
            with os.fdopen(open_file(self._path), "rb") as file:
                file.seek(self._read)
                lines = file.read(MOST_BYTES)
        except OSError:
            return []
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole) if whole or len(lines) < MOST_BYTES else len(lines)
        return [command for line in whole.splitlines() if (command := _command(line)) is not None]

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def _command(line: bytes) -> Command | None:
    try:
        row = json.loads(line)
        return Command(row["what"], row["value"])
    except (ValueError, KeyError, TypeError, RecursionError, UnusableInput):
        return None
