"""Append-only files of lines: JSON objects, and logs of bounded size."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from engine.storage.files import open_regular_file

MAX_TORN_LINE_BYTES = 20_000_000
"""Size limit of an unfinished line that is removed; a longer one is ended."""
MAX_LOG_BYTES = 2_000_000
"""Size from which a log is rotated; only one rotated file is kept."""


def rotated_path(path: Path) -> Path:
    """Return the path of the rotated file of a log: `log.1.txt` for `log.txt`."""
    return path.with_name(f"{path.stem}.1{path.suffix}")


class JsonLinesAppender:
    """Appender of lines to a file that survives a full disk and repairs a torn last line.

    What cannot be written waits in memory, and is written before the next line once there is room.
    """

    def __init__(
        self, path: Path, *, exclusive: bool = True, max_bytes: int | None = None, max_buffered_bytes: int = 10_000_000
    ) -> None:
        """Open `path`, creating it if needed; an OSError is raised if it is not a regular file that can be written.

        An `exclusive` appender removes a torn last line, unless only its newline is missing. Otherwise the line is only
        ended, since another process may be writing it. A file of more than `max_bytes` is rotated. Unwritten lines
        beyond `max_buffered_bytes` are lost.
        """
        self.path = path
        self.problem = ""
        """Reason why lines are waiting in memory; empty if none are."""
        self._exclusive, self._max_bytes, self._max_buffered_bytes = exclusive, max_bytes, max_buffered_bytes
        self._waiting = bytearray()
        self._open()

    @property
    def is_deleted(self) -> bool:
        return not os.fstat(self._fd).st_nlink

    def append(self, record: Any) -> None:
        """Append `record` as one line of JSON. A failure is reported in `problem`, not raised."""
        self.append_text(json.dumps(record))

    def append_text(self, text: str) -> None:
        line = text.encode(errors="replace") + b"\n"
        if len(self._waiting) + len(line) <= self._max_buffered_bytes:
            self._waiting += line
        self.flush()

    def flush(self) -> None:
        """Try to write the lines that are waiting in memory."""
        size, written = os.fstat(self._fd).st_size, 0
        if self._max_bytes is not None and size > self._max_bytes:
            with contextlib.suppress(OSError):  # the file grows beyond its limit if it cannot be renamed
                self.path.replace(rotated_path(self.path))
                long_file, size = self._fd, 0
                self._open()
                os.close(long_file)
        try:
            while written < len(self._waiting):
                written += os.write(self._fd, self._waiting[written:])
        except OSError as error:
            self.problem = f"cannot write {self.path}: {error.strerror}"
            if self._exclusive:
                with contextlib.suppress(OSError):
                    os.truncate(self._fd, size)  # leave no part of a line behind
                    written = 0
        else:
            self.problem = f"{self.path} was deleted" if self.is_deleted else ""
        del self._waiting[:written]

    def close(self) -> None:
        self.flush()
        os.close(self._fd)

    def _open(self) -> None:
        self._fd = fd = open_regular_file(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        size = os.fstat(fd).st_size
        if not size or os.pread(fd, 1, size - 1) == b"\n":
            return
        if self._exclusive and (line := _read_last_line(fd, size)) is not None:
            try:
                json.loads(line)
            except (ValueError, RecursionError):
                os.truncate(fd, size - len(line))
                return
        self._waiting[:0] = b"\n"


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
