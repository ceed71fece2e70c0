"""Commands from other processes to a training, exchanged through a file in the run directory."""

import json
import os
from contextlib import closing, suppress
from pathlib import Path

from engine.control import ControlCommand
from engine.errors import InvalidInputError, RunError
from engine.runs.directory import COMMANDS_FILE, is_locked
from engine.storage.files import open_regular_file
from engine.storage.json_lines import JsonLinesAppender

MAX_READ_BYTES = 100_000
"""Bytes per read; a longer line without an end is skipped."""


def send_command(run_dir: Path, command: ControlCommand) -> None:
    """Send a command to the process that trains a run; a RunError is raised if there is none."""
    if not is_locked(run_dir):
        raise RunError(f"run {run_dir.name!r} is not being trained, so there is nothing to {command.kind}")
    path = run_dir / COMMANDS_FILE
    try:
        # Not exclusive: several processes may send commands at the same time.
        with closing(JsonLinesAppender(path, exclusive=False)) as appender:
            appender.append({"kind": command.kind, "value": command.value})
            if appender.problem:
                raise RunError(f"{appender.problem}; the command was not sent to run {run_dir.name!r}")
    except OSError as error:
        remedy = "only the owner of the run can send it commands"
        raise RunError(f"cannot write {path}: {error.strerror}; {remedy}") from error


class CommandFileReader:
    """Incremental reader of the commands of other processes, used as a source of a `CommandQueue`."""

    def __init__(self, run_dir: Path, offset: int = 0) -> None:
        """Read the commands of `run_dir` after the first `offset` bytes, which an earlier training received."""
        self._path = run_dir / COMMANDS_FILE
        self._offset = offset

    def __call__(self) -> list[ControlCommand]:
        """Return the commands since the last call. Invalid lines are skipped."""
        try:
            with os.fdopen(open_regular_file(self._path), "rb") as file:
                self._offset = min(self._offset, os.fstat(file.fileno()).st_size)  # smaller if it was truncated
                file.seek(self._offset)
                content = file.read(MAX_READ_BYTES)
        except OSError:
            self._offset = 0
            return []
        is_endless_line = b"\n" not in content and len(content) == MAX_READ_BYTES
        end = len(content) if is_endless_line else content.rfind(b"\n") + 1
        self._offset += end
        commands = []
        for line in content[:end].splitlines():
            with suppress(ValueError, KeyError, TypeError, RecursionError, InvalidInputError):
                row = json.loads(line)
                commands.append(ControlCommand(row["kind"], row["value"]))
        return commands
