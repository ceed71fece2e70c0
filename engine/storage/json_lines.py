"""Append-only JSON-lines files: one JSON object a line."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from engine.storage.files import open_regular_file

MAX_TORN_LINE_BYTES = 20_000_000
"""Size limit of an unfinished line that is removed. The start of a longer one is not searched; the line is ended."""


class JsonLinesAppender:
    """Appender of records to a JSON-lines file that survives a full disk and repairs a torn last line.

    A record that cannot be written waits in memory, and is written before the next record once there is room.
    """

    def __init__(self, path: Path, *, exclusive: bool = True, max_buffered_bytes: int = 10_000_000) -> None:
        """Open `path`, creating it if needed, and repair a last line that a killed writer left unfinished.

        An `exclusive` appender removes a torn line, unless only its newline is missing. Otherwise the line is only
        ended, since another process may be writing it. Unwritten records beyond `max_buffered_bytes` are lost.

        Raises:
            OSError: If the file cannot be opened for writing, or is not a regular file.
        """
        self.path = path
        self.problem = ""
        """Reason why records are waiting in memory; empty if none are."""
        self._exclusive = exclusive
        self._max_buffered_bytes = max_buffered_bytes
        self._buffer = bytearray()
        self._fd = open_regular_file(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self._repair_last_line()

    @property
    def is_deleted(self) -> bool:
        """True if the file has been deleted since it was opened."""
        return not os.fstat(self._fd).st_nlink

    def append(self, record: Any) -> None:
        """Append `record` as one line of JSON. A failure is reported in `problem`, not raised."""
        line = json.dumps(record).encode() + b"\n"
        if len(self._buffer) + len(line) <= self._max_buffered_bytes:
            self._buffer += line
        self.flush()

    def flush(self) -> None:
        """Try to write the records that are waiting in memory."""
        size, written = os.fstat(self._fd).st_size, 0
        try:
            while written < len(self._buffer):
                written += os.write(self._fd, self._buffer[written:])
        except OSError as error:
            self.problem = f"cannot write {self.path}: {error.strerror}"
            if self._exclusive:
                with contextlib.suppress(OSError):
                    os.truncate(self._fd, size)  # leave no part of a line behind
                    written = 0
        else:
            self.problem = f"{self.path} was deleted" if self.is_deleted else ""
        del self._buffer[:written]

    def close(self) -> None:
        """Try once more to write the waiting records, then close the file."""
        self.flush()
        os.close(self._fd)

    def _repair_last_line(self) -> None:
        size = os.fstat(self._fd).st_size
        if not size or os.pread(self._fd, 1, size - 1) == b"\n":
            return
        line = _read_last_line(self._fd, size) if self._exclusive else None
        if line is None or _is_json(line):
            self._buffer += b"\n"
        else:
            os.truncate(self._fd, size - len(line))


def _read_last_line(fd: int, size: int, chunk_size: int = 1_000_000) -> bytes | None:
    """Return the text after the last newline of a file of `size` bytes; None beyond `MAX_TORN_LINE_BYTES`."""
    line = b""
    while len(line) < size:
        end = size - len(line)
        start = max(0, end - chunk_size)
        _, newline, after = os.pread(fd, end - start, start).rpartition(b"\n")
        line = after + line
        if newline:
            break
        if len(line) > MAX_TORN_LINE_BYTES:
            return None
    return line


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
