"""A disk that is filled and freed again: a small file system in memory, mounted where only its process sees it."""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSIDE = "LOTR_TUI_FAULTS_MAY_MOUNT"
"""Set in a process that is alone with what it mounts."""
WAYS = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
"""As root, and as anybody where the system lets them."""
MOUNT = ("mount", "-t", "tmpfs", "-o", "size=16m", "none")


class SmallDisk:
    """A file system of 16 MB with a file that takes the room of others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, leave: int) -> None:
        """Leave so many bytes."""
        with self._filler.open("wb") as file:
            while True:
                system = os.statvfs(self.path)
                size = system.f_bavail * system.f_frsize - leave
                if size <= 0:
                    return
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError as error:  # others write meanwhile
                    if error.errno != errno.ENOSPC:
                        raise
                else:
                    return

    def free(self) -> None:
        """Delete what takes the room."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    """Such a disk in a new folder `path`; for a process that `begin_alone` began.

    Raises:
        CalledProcessError: nothing can be mounted.
    """
    path.mkdir()
    subprocess.run([*MOUNT, str(path)], check=True, capture_output=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def way_to_mount() -> list[str] | None:
    """What to put before a command so that it can mount something which nobody else sees; None where that cannot be."""
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                subprocess.run([*way, *MOUNT, folder], check=True, capture_output=True)
            except (FileNotFoundError, subprocess.CalledProcessError):
                continue
            return way
    return None


def begin_alone(module: str) -> None:
    """Begin this command again where it can mount a disk, unless it was.

    Raises:
        SystemExit: nothing can be mounted here.
    """
    if INSIDE in os.environ:
        return
    way = way_to_mount()
    if way is None:
        sys.exit("no file system can be mounted here, as by `unshare --user --map-root-user --mount`; nothing is tried")
    os.environ[INSIDE] = "1"
    os.execvp(way[0], [*way, sys.executable, "-m", module, *sys.argv[1:]])
