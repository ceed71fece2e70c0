"""Advisory file lock that tells other processes who is writing."""

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from engine.storage.files import open_regular_file

POLL_INTERVAL = 0.01
"""Seconds between attempts to take a lock that another process holds."""


class FileLock:
    """Exclusive `flock` on a file. The kernel releases the lock however its process ends.

    Entering it as a context manager raises `BlockingIOError` if another process still holds the lock after `timeout`
    seconds. The library filelock has neither a text of the owner nor a check that the file is a regular one.
    """

    def __init__(self, path: Path, timeout: float = 0.0) -> None:
        self.path = path
        self._timeout = timeout
        # A file object, so that the garbage collector closes it if the lock is dropped without a release.
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Take the lock, retrying for the timeout; return False if another process keeps holding it."""
        file = os.fdopen(open_regular_file(self.path, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.close()
                    return False
                time.sleep(POLL_INTERVAL)
            else:
                self._file = file
                return True

    def write_owner(self, text: str) -> None:
        """Replace the content of the file, whose lock is held, by a description of this process."""
        assert self._file is not None
        self._file.truncate(0)
        os.pwrite(self._file.fileno(), text.encode(errors="replace"), 0)

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> "FileLock":
        if not self.acquire():
            raise BlockingIOError(f"{self.path} is locked by another process")
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Return True if a process holds the lock on `path`. A missing or unreadable file is not locked."""
    try:
        with os.fdopen(open_regular_file(path), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
