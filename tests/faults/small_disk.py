"""A disk that can be filled and freed: a small file system in memory, mounted for one process only."""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMESPACE_VARIABLE = "LOTR_TUI_TESTS_MOUNT_NAMESPACE"
"""Environment variable that is set in a process that has a new mount namespace."""
UNSHARE_COMMANDS = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
"""Commands that start another one in a new mount namespace: for root, and for other users if the system permits it."""
MOUNT_COMMAND = ("mount", "-t", "tmpfs", "-o", "size=16m", "none")


class SmallDisk:
    """File system of 16 MB, with a file that takes up space."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, free_bytes: int) -> None:
        """Take up all space but `free_bytes`."""
        with self._filler.open("wb") as file:
            while True:
                file_system = os.statvfs(self.path)
                size = file_system.f_bavail * file_system.f_frsize - free_bytes
                if size <= 0:
                    return
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError as error:  # another process has written meanwhile
                    if error.errno != errno.ENOSPC:
                        raise
                else:
                    return

    def free(self) -> None:
        """Free the space that `fill` took up."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    """Mount a small disk at the new folder `path`, in a process that `restart_in_mount_namespace` has started.

    Raises:
        CalledProcessError: If nothing can be mounted.
    """
    path.mkdir()
    subprocess.run([*MOUNT_COMMAND, str(path)], check=True, capture_output=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def find_unshare_command() -> list[str] | None:
    """Return the command that starts another one where it can mount file systems; None if the system forbids it."""
    for command in UNSHARE_COMMANDS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                subprocess.run([*command, *MOUNT_COMMAND, folder], check=True, capture_output=True)
            except (FileNotFoundError, subprocess.CalledProcessError):
                continue
            return command
    return None


def restart_in_mount_namespace(module: str) -> None:
    """Restart this command in a new mount namespace, unless it has one already.

    Raises:
        SystemExit: If the system does not permit it.
    """
    if NAMESPACE_VARIABLE in os.environ:
        return
    command = find_unshare_command()
    if command is None:
        sys.exit("no file system can be mounted here; run as root, or allow `unshare --user --map-root-user --mount`")
    os.environ[NAMESPACE_VARIABLE] = "1"
    os.execvp(command[0], [*command, sys.executable, "-m", module, *sys.argv[1:]])
