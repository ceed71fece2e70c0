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

    Used as a context manager, the lock is released on exit; entering raises `BlockingIOError` if another process
    still holds the lock after `timeout` seconds.
    """

    def __init__(self, path: Path, timeout: float = 0.0) -> None:
        """Prepare a lock on `path`; the file is created when the lock is acquired."""
        self.path = path
        self._timeout = timeout
        # A file object, so that the garbage collector closes it if the lock is dropped without a release.
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Take the lock, retrying for the timeout. Return False if another process keeps holding it.

        Raises:
            OSError: If the file cannot be opened for writing, or is not a regular file.
        """
        fd = open_regular_file(self.path, os.O_RDWR | os.O_CREAT)
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    return False
                time.sleep(POLL_INTERVAL)
            except BaseException:
                os.close(fd)
                raise
            else:
                self._file = os.fdopen(fd, "r+b", buffering=0)
                return True

    def write_owner(self, text: str) -> None:
        """Replace the content of the lock file by `text`, which describes the process that holds the lock."""
        assert self._file is not None, "the lock is not held"
        self._file.truncate(0)
        os.pwrite(self._file.fileno(), text.encode(errors="replace"), 0)

    def release(self) -> None:
        """Release the lock, if it is held."""
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
        fd = open_regular_file(path)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False
