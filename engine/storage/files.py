"""Folders of the application, bounded reads and atomic writes."""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from engine.errors import RunError


def app_home() -> Path:
    """Return the folder of runs, settings and history: `LOTR_TUI_HOME`, or the platform's data folder.

    Raises:
        RunError: If `LOTR_TUI_HOME` names the home folder of an unknown user.
    """
    if chosen := os.environ.get("LOTR_TUI_HOME"):
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise RunError(f"LOTR_TUI_HOME={chosen} names an unknown user; set it to a folder") from error
    from platformdirs import user_data_path

    return user_data_path("lotr-tui", appauthor=False)


def default_runs_dir() -> Path:
    """Return the folder of runs that is used without `--runs-dir`."""
    return app_home() / "runs"


def cache_dir() -> Path:
    """Return the folder of prepared corpora. Its content can be deleted and is then computed again."""
    return app_home() / "cache"


def assets_dir() -> Path:
    """Return the folder of the bundled corpus and model: inside the installed package, or beside it in a checkout."""
    root = Path(__file__).resolve().parents[2]
    packaged = root / "lotr_tui" / "assets"
    return packaged if packaged.is_dir() else root / "assets"


def absolute_path(path: Path) -> Path:
    """Return `path` as an absolute path, so that it means the same from any folder.

    A path that cannot be resolved is returned unresolved; reading it then fails with the reason.
    """
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError):  # an unknown user, a link to itself, a zero byte
        return path.absolute()


def open_regular_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its descriptor.

    Pipes are refused because opening one may block. Links are followed for reading only.

    Raises:
        OSError: If the file cannot be opened, or is not a regular file.
    """
    if flags != os.O_RDONLY:
        flags |= os.O_NOFOLLOW
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink() and flags & os.O_NOFOLLOW:
            raise OSError(errno.ELOOP, "symbolic links are not followed for writing", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    return fd


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most `max_bytes` bytes; a larger file raises an OSError."""
    with os.fdopen(open_regular_file(path), "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than the limit of {max_bytes:,} bytes")
    return content


@contextlib.contextmanager
def atomic_replace(path: Path, *, backup: Path | None = None, exclusive: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` when the block ends without an exception.

    Readers see the old content or the new content, never a part, also after a power failure. An old file is renamed to
    `backup`, if that is given.

    Raises:
        FileExistsError: If `exclusive` is set and the file exists.
        OSError: If the folder cannot be written. The old file is then unchanged.
    """
    import tempfile  # takes 7 ms, and commands that only read, such as the completion, do not need it

    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            yield cast(IO[bytes], file)
            file.flush()
            fsync(file.fileno())
        temporary.chmod(0o644)
        if exclusive:
            _link_exclusive(temporary, path)
        else:
            if backup is not None:
                with contextlib.suppress(FileNotFoundError):
                    path.replace(backup)
            temporary.replace(path)
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def _link_exclusive(temporary: Path, path: Path) -> None:
    """Give `temporary` the name `path`, or raise FileExistsError if the name is taken."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # FAT and some network file systems have no hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        temporary.replace(path)


def fsync(fd: int) -> None:
    """Flush an open file to the disk, on macOS also from the memory of the disk, where `os.fsync` leaves it."""
    full_fsync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_fsync is not None:
        with contextlib.suppress(OSError):  # network disks and others do not support it
            fcntl.fcntl(fd, full_fsync)
            return
    os.fsync(fd)


def fsync_path(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk if the file system supports it."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fsync(fd)
        finally:
            os.close(fd)


def write_atomically(path: Path, content: bytes, backup: Path | None = None) -> None:
    """Replace `path` by `content` with `atomic_replace`; a failure raises a RunError."""
    try:
        with atomic_replace(path, backup=backup) as file:
            file.write(content)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; free some space or choose another --runs-dir"
        ) from error
