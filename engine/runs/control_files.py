"""Commands from other processes to a training, exchanged through a file in the run directory."""

import json
import os
from contextlib import closing
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
        raise RunError(
            f"cannot write {path}: {error.strerror}; only the owner of the run can send it commands"
        ) from error


class CommandFileReader:
    """Incremental reader of the commands of other processes, used as a source of a `CommandQueue`."""

    def __init__(self, run_dir: Path, offset: int = 0) -> None:
        """Read the commands of `run_dir` after the first `offset` bytes, which an earlier training received."""
        self._path = run_dir / COMMANDS_FILE
        self._offset = offset

    def __call__(self) -> list[ControlCommand]:
        """Return the commands since the last call. Invalid lines are skipped."""
        size = self._file_size()
        if size <= self._offset:
            self._offset = size  # smaller if the file was truncated
            return []
        try:
            with os.fdopen(open_regular_file(self._path), "rb") as file:
                file.seek(self._offset)
                content = file.read(MAX_READ_BYTES)
        except OSError:
            return []
        complete_lines = content[: content.rfind(b"\n") + 1]
        is_endless_line = not complete_lines and len(content) == MAX_READ_BYTES
        self._offset += len(content if is_endless_line else complete_lines)
        return [command for line in complete_lines.splitlines() if (command := _parse_command(line)) is not None]

    def _file_size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def _parse_command(line: bytes) -> ControlCommand | None:
    try:
        row = json.loads(line)
        return ControlCommand(row["kind"], row["value"])
    except (ValueError, KeyError, TypeError, RecursionError, InvalidInputError):
        return None
