"""Folders of the application, bounded reads, atomic writes, and files that the user names."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from engine.errors import CorpusError, InvalidInputError, RunError

MAX_TEXT_FILE_BYTES = 4_000_000  # about 800,000 words; a model reads them in a minute or two


def app_home() -> Path:
    """Return the folder of runs, settings and history: `LOTR_TUI_HOME`, or the platform's data folder."""
    if chosen := os.environ.get("LOTR_TUI_HOME"):
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise RunError(f"LOTR_TUI_HOME={chosen} names an unknown user; set it to a folder") from error
    from platformdirs import user_data_path

    return user_data_path("lotr-tui", appauthor=False)


def default_runs_dir() -> Path:
    return app_home() / "runs"


def assets_dir() -> Path:
    """Return the folder of the bundled corpus and model: inside the installed package, or beside it in a checkout."""
    root = Path(__file__).resolve().parents[2]
    packaged = root / "lotr_tui" / "assets"
    return packaged if packaged.is_dir() else root / "assets"


def absolute_path(path: Path) -> Path:
    """Return an absolute path; reading one that cannot be resolved fails later, with the reason."""
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError):  # an unknown user, a link to itself, a zero byte
        return path.absolute()


def open_regular_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Return the descriptor of a regular file, or raise an OSError. Links are followed for reading only."""
    if flags != os.O_RDONLY:
        flags |= os.O_NOFOLLOW
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)  # opening a pipe may block otherwise
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


@contextmanager
def atomic_replace(path: Path, *, backup: Path | None = None, exclusive: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` when the block ends without an exception.

    Readers see the old content or the new content, also after a power failure. An old file is renamed to `backup`, if
    that is given; with `exclusive` it raises a FileExistsError.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            fsync(file.fileno())
        if exclusive:
            path.touch(exist_ok=False)
        if backup is not None:
            with suppress(FileNotFoundError):
                path.replace(backup)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def fsync(fd: int) -> None:
    if (full_fsync := getattr(fcntl, "F_FULLFSYNC", None)) is not None:  # `os.fsync` leaves it in a Mac's disk's memory
        with suppress(OSError):  # network disks and others do not support it
            fcntl.fcntl(fd, full_fsync)
            return
    os.fsync(fd)


def fsync_path(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk if the file system supports it."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fsync(fd)
        finally:
            os.close(fd)


def write_atomically(path: Path, content: bytes, backup: Path | None = None, option: str = "--runs-dir") -> None:
    """Replace `path`, which an option names, by `content` with `atomic_replace`; a failure raises a RunError."""
    try:
        with atomic_replace(path, backup=backup) as file:
            file.write(content)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; free some space or choose another {option}") from error


def check_is_new(path: Path, kind: str = "folder") -> None:
    """Raise a RunError if `path`, which should become a new folder or another kind of file, exists."""
    if path.exists() or path.is_symlink():
        raise RunError(f"{path} exists, and nothing is overwritten; choose a new {kind}")


@contextmanager
def create_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for files, which gets the name `folder` when the block ends without an exception."""
    import shutil  # takes 5 ms, and commands that only read, such as the completion, do not need it

    check_is_new(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        for file in partial.iterdir():
            fsync_path(file)
        partial.rename(folder)
        fsync_path(folder.parent)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_output(output: Path) -> None:
    """Raise an InvalidInputError if a file that a command would write is a folder or in a folder that is missing."""
    if output.exists() and not output.is_file():
        raise InvalidInputError(f"--output {output} is not a file; name a file that ends in .txt")
    if not output.parent.is_dir():
        raise InvalidInputError(f"--output {output} is in a folder that does not exist; create {output.parent}")


def check_is_file(path: Path, kind: str) -> None:
    """Raise a CorpusError unless `path` is a regular file. `kind` says which kind of file the user can name."""
    if not path.exists():
        raise CorpusError(f"{path} does not exist; check the path")
    if not path.is_file():
        raise CorpusError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}; name a {kind}")


def read_text_file(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without byte order mark, or raise a CorpusError."""
    try:
        path = path.expanduser()
        check_is_file(path, "text file")
        text = read_limited(path, MAX_TEXT_FILE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: NUL in the path; RuntimeError: unknown ~user
        raise CorpusError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if "\0" in text:
        raise CorpusError(f"{path} contains NUL bytes, so it is not text; name a text file")
    return text
