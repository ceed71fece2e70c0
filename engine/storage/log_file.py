"""Rotating log files: a `logging` handler that survives a full disk, and the name of a rotated file."""

import contextlib
import logging
import os
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from engine.storage.files import open_regular_file

MAX_LOG_BYTES = 2_000_000
"""Size in bytes from which a log is rotated; only one rotated file is kept."""
MAX_WAITING_BYTES = 10_000_000
"""Bytes of log lines to keep in memory while the disk is full; lines beyond that are lost."""


def rotated_path(path: Path) -> Path:
    """Return the path of the rotated file of a log: `log.1.txt` for `log.txt`."""
    return path.with_name(f"{path.stem}.1{path.suffix}")


class LogFileHandler(RotatingFileHandler):
    """Handler that appends to a log of bounded size and never raises or prints an error.

    Lines that cannot be written, as on a full disk, wait in memory and are written before the next line.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
        """Open `path`, creating it if needed; an OSError is raised if it is not a regular file."""
        self._waiting = bytearray()
        super().__init__(path, maxBytes=max_bytes, backupCount=1)
        self.namer = lambda _: str(rotated_path(path))

    def _open(self) -> TextIOWrapper:
        fd = open_regular_file(Path(self.baseFilename), os.O_RDWR | os.O_APPEND | os.O_CREAT)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":  # the last writer was killed
            self._waiting[:0] = b"\n"
        return TextIOWrapper(os.fdopen(fd, "ab"), encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        """Append the formatted record, or keep it in memory if it cannot be written."""
        line = (self.format(record) + self.terminator).encode(errors="replace")
        if len(self._waiting) + len(line) <= MAX_WAITING_BYTES:
            self._waiting += line
        self.flush()

    def flush(self) -> None:
        """Try to write the waiting lines. Rotate the file first if it has become too long."""
        with contextlib.suppress(OSError):
            if self.stream is not None and os.fstat(self.stream.fileno()).st_size > self.maxBytes:
                with contextlib.suppress(OSError):  # the log grows beyond its limit if it cannot be renamed
                    self.doRollover()
            if self.stream is None:
                self.stream = self._open()
            while self._waiting:
                # Not through the stream, whose buffer loses an unknown part of a line that does not fit.
                del self._waiting[: os.write(self.stream.fileno(), self._waiting)]
