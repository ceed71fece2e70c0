"""Files on disk: folders of the application, bounded reads, atomic writes, locks and files of appended lines."""

import errno
import fcntl
import json
import mmap
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from engine.errors import CorpusError, InvalidInputError, RunError

MAX_TEXT_FILE_BYTES = 4_000_000  # about 800,000 words; a model reads them in a minute or two
MAX_TORN_LINE_BYTES = 20_000_000  # of an unfinished line that is removed; a longer one is ended
LOCK_POLL_INTERVAL = 0.01  # seconds


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
    """Return the folder of the bundled corpus and models: inside the installed package, or beside it in a checkout."""
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
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise OSError(errno.ELOOP, "symbolic links are not followed for writing", str(path)) from error
        raise
    if not stat.S_ISREG(mode := os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is a folder" if stat.S_ISDIR(mode) else "not a regular file", str(path))
    return fd


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most `max_bytes` bytes; a larger file raises an OSError."""
    with os.fdopen(open_regular_file(path), "rb") as file:
        # The size is known before reading, but a file can grow.
        if os.fstat(file.fileno()).st_size > max_bytes or len(content := file.read(max_bytes + 1)) > max_bytes:
            raise OSError(errno.EFBIG, f"larger than the limit of {max_bytes:,} bytes", str(path))
    return content


def read_text_file(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without byte order mark, or raise a CorpusError."""
    try:
        text = read_limited(path.expanduser(), MAX_TEXT_FILE_BYTES).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise CorpusError(f"{path} does not exist; check the path") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: NUL in the path; RuntimeError: unknown ~user
        raise CorpusError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if "\0" in text:
        raise CorpusError(f"{path} contains NUL bytes, so it is not text; name a text file")
    return text


@contextmanager
def atomic_replace(path: Path, *, backup: Path | None = None, exclusive: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` as a whole when the block ends without an exception.

    An old file is renamed to `backup`, if that is given; with `exclusive` it raises a FileExistsError.
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


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files by name into a new folder, which appears once it is complete, or into an empty one.

    A folder with files, or one that cannot be written, raises a RunError.
    """
    import shutil  # takes 5 ms, and commands that only read, such as the completion, do not need it

    is_empty = folder.is_dir() and not any(folder.iterdir())
    if not is_empty:
        check_is_new(folder)
    partial = (folder if is_empty else folder.parent) / f".{folder.name}.{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        for name, content in contents.items():
            (partial / name).write_bytes(content)
            fsync_path(partial / name)
        if is_empty:
            for name in contents:
                (partial / name).rename(folder / name)
        else:
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


class FileLock:
    """Exclusive `flock` on a file; entering it raises `BlockingIOError` if it is held for `timeout` seconds."""

    # The library filelock takes 30 ms to import, and its fallback for `flock` leaves a lock behind a killed process.

    def __init__(self, path: Path, timeout: float = 0.0) -> None:
        self.path, self._timeout = path, timeout
        self._file: IO[bytes] | None = None  # the garbage collector closes it if the lock is dropped

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
            time.sleep(LOCK_POLL_INTERVAL)

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


class JsonLinesAppender:
    """Appender of lines to a file that no other process writes; a torn last line is removed.

    What a full disk refuses waits in memory, up to `max_buffered_bytes`, and is written before the next line.
    """

    def __init__(self, path: Path, max_buffered_bytes: int = 10_000_000) -> None:
        self.path, self._max_buffered_bytes = path, max_buffered_bytes
        self.problem = ""  # reason why lines are waiting in memory
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
