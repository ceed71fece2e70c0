"""Advisory file lock that tells other processes who is writing.

The library filelock takes 30 ms to import, and where there is no `flock` it leaves a lock behind a killed process.
"""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from engine.storage.files import open_regular_file

POLL_INTERVAL = 0.01  # seconds between attempts to take a lock that another process holds


class FileLock:
    """Exclusive `flock` on a file. The kernel releases the lock however its process ends.

    Entering it as a context manager raises `BlockingIOError` if another process still holds the lock after `timeout`
    seconds.
    """

    def __init__(self, path: Path, timeout: float = 0.0) -> None:
        self.path, self._timeout = path, timeout
        # A file object, so that the garbage collector closes it if the lock is dropped without a release.
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Take the lock, retrying for the timeout; return False if another process keeps holding it."""
        file = os.fdopen(open_regular_file(self.path, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)
        deadline = time.monotonic() + self._timeout
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._file = file
                return True
            if time.monotonic() >= deadline:
                file.close()
                return False
            time.sleep(POLL_INTERVAL)

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
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False
