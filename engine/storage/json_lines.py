"""Append-only files of JSON, one object a line."""

import json
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.storage.files import open_regular_file

MAX_TORN_LINE_BYTES = 20_000_000  # of an unfinished line that is removed; a longer one is ended


class JsonLinesAppender:
    """Appender of lines to a file that no other process writes; it survives a full disk and removes a torn last line.

    What cannot be written waits in memory, up to `max_buffered_bytes`, and is written before the next line once there
    is room. An OSError is raised if the file, which is created if needed, is not a regular one that can be written.
    """

    def __init__(self, path: Path, max_buffered_bytes: int = 10_000_000) -> None:
        self.path = path
        self.problem = ""
        """Reason why lines are waiting in memory; empty if none are."""
        self._max_buffered_bytes = max_buffered_bytes
        self._waiting = bytearray()
        self._fd = open_regular_file(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        if size := os.fstat(self._fd).st_size:
            with mmap.mmap(self._fd, size, access=mmap.ACCESS_READ) as content:
                end = content.rfind(b"\n", max(0, size - MAX_TORN_LINE_BYTES)) + 1
            if end or size <= MAX_TORN_LINE_BYTES:
                os.truncate(self._fd, end)
            else:
                self._waiting += b"\n"

    @property
    def is_deleted(self) -> bool:
        return not os.fstat(self._fd).st_nlink

    def append(self, record: Any) -> None:
        """Append `record` as one line of JSON. A failure is reported in `problem`, not raised."""
        line = json.dumps(record).encode() + b"\n"
        if len(self._waiting) + len(line) <= self._max_buffered_bytes:
            self._waiting += line
        self.flush()

    def flush(self) -> None:
        """Try to write the lines that are waiting in memory."""
        size, written = os.fstat(self._fd).st_size, 0
        try:
            while written < len(self._waiting):
                written += os.write(self._fd, self._waiting[written:])
            self.problem = f"{self.path} was deleted" if self.is_deleted else ""
        except OSError as error:
            self.problem = f"cannot write {self.path}: {error.strerror}"
            with suppress(OSError):
                os.truncate(self._fd, size)  # leave no part of a line behind
                written = 0
        del self._waiting[:written]

    def close(self) -> None:
        self.flush()
        os.close(self._fd)
