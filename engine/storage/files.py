"""Files on disk: folders of the application, bounded reads, JSON, atomic writes, locks and files of appended lines."""

import errno
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from engine.errors import InvalidInputError, RunError, suggest_nearest

MAX_TORN_LINE_BYTES = 1_000_000  # of an unfinished line that is removed; a longer one is ended
T = TypeVar("T")


def app_home() -> Path:
    """Return the folder of runs, settings and history: `LOTR_TUI_HOME`, or the platform's data folder."""
    if chosen := os.environ.get("LOTR_TUI_HOME"):
        try:
            return absolute_path(Path(chosen).expanduser())
        except RuntimeError as error:  # otherwise, each working directory would get a folder of that name
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
    follow = 0 if flags == os.O_RDONLY else os.O_NOFOLLOW
    fd = os.open(path, flags | follow | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)  # opening a pipe may block otherwise
    if not stat.S_ISREG(mode := os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is a folder" if stat.S_ISDIR(mode) else "not a regular file", str(path))
    return fd


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most `max_bytes` bytes; a larger file raises an OSError."""
    with os.fdopen(open_regular_file(path), "rb") as file:
        if os.fstat(file.fileno()).st_size > max_bytes or len(content := file.read(max_bytes + 1)) > max_bytes:
            raise OSError(errno.EFBIG, f"larger than the limit of {max_bytes:,} bytes", str(path))
    return content


def parse_json(content: bytes | str) -> Any:
    """Parse JSON without NaN and infinity; other content raises an InvalidInputError."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError("not valid JSON") from error


def decode(type_: type[T], data: object) -> T:
    """Build a dataclass, or a container of some, from JSON; a missing or wrong field raises an InvalidInputError."""
    try:
        built = msgspec.convert(data, type_, strict=True)
    except msgspec.ValidationError as error:
        # "Expected `int`, got `str` - at `$.top_k`" becomes "top_k: expected int, got str"
        message, _, where = str(error).replace("`", "").partition(" - at ")
        field = re.sub(r"^(key in )?\$\.?", "", where)
        message = message[:1].lower() + message[1:]
        raise InvalidInputError(f"{field}: {message}" if field else message) from error
    # msgspec ignores keys that are no fields of a dataclass, and a typo or an old name must be seen.
    nested: list[tuple[str, Any, Any]] = [("", built, data)]
    for path, record, values in nested:
        if isinstance(record, dict):
            nested += [(f"{path}{name}.", each, values[name]) for name, each in record.items() if is_dataclass(each)]
        elif is_dataclass(record):
            names = [field.name for field in fields(record)]
            for name in values:
                if name not in names:
                    raise InvalidInputError(f"unknown field {path + name!r}{suggest_nearest(name, names)}")
                nested.append((f"{path}{name}.", getattr(record, name), values[name]))
    return built


@contextmanager
def atomic_replace(path: Path, *, exclusive: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` when the block ends; with `exclusive`, an old file is an error."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            _fsync(file.fileno())
        if exclusive:
            path.touch(exist_ok=False)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    with suppress(OSError):  # not all file systems can flush the names in a folder
        fd = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _fsync(fd)
        finally:
            os.close(fd)


def _fsync(fd: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # on macOS, fsync leaves data in the cache of the drive, which loses power too
        with suppress(OSError):  # not all file systems can
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def write_atomically(path: Path, content: bytes, option: str = "--runs-dir") -> None:
    """Replace `path`, which an option names, by `content` with `atomic_replace`; a failure raises a RunError."""
    try:
        with atomic_replace(path) as file:
            file.write(content)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; free some space or choose another {option}") from error


def check_new_folder(folder: Path) -> None:
    """Raise a RunError unless `folder` is new or empty."""
    try:
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder} exists, and nothing is overwritten; choose a new folder")
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; choose another folder") from error


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files by name into a new or an empty folder, and none of them after a failure, which raises a RunError."""
    check_new_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content, option="folder")
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; choose another folder") from error
    except BaseException:
        for name in contents:
            (folder / name).unlink(missing_ok=True)
        raise


def lock_file(path: Path, timeout: float = 0.0) -> IO[bytes]:
    """Open a file with an exclusive `flock` until it is closed, or raise a BlockingIOError after `timeout` seconds."""
    # The library filelock takes 30 ms to import, and its fallback for `flock` leaves a lock behind a killed process.
    file = os.fdopen(open_regular_file(path, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if not isinstance(error, BlockingIOError) or time.monotonic() >= deadline:
                file.close()
                raise
            time.sleep(0.01)


class JsonLinesAppender:
    """Appender of lines to a file without a torn last one; what a full disk refuses waits in memory for the next."""

    def __init__(self, path: Path, max_buffered_bytes: int = 10_000_000) -> None:
        self.path, self._max_buffered_bytes = path, max_buffered_bytes
        self.problem = ""  # reason why lines are waiting in memory
        self._waiting = b""
        self._fd = open_regular_file(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        start = max(0, os.fstat(self._fd).st_size - MAX_TORN_LINE_BYTES)
        end = os.pread(self._fd, MAX_TORN_LINE_BYTES, start).rfind(b"\n") + 1
        if end or not start:
            os.truncate(self._fd, start + end)
        else:
            self._waiting = b"\n"

    def append(self, *records: Any) -> None:
        """Append lines of JSON after the lines that wait. A failure is reported in `problem`, not raised."""
        for record in records:
            line = json.dumps(record).encode() + b"\n"
            if len(self._waiting) + len(line) <= self._max_buffered_bytes:
                self._waiting += line
        size, written = os.fstat(self._fd).st_size, 0
        try:
            while written < len(self._waiting):
                written += os.write(self._fd, self._waiting[written:])
            self.problem = "" if os.fstat(self._fd).st_nlink else f"{self.path} was deleted"
        except OSError as error:
            self.problem = f"cannot write {self.path}: {error.strerror}"
            with suppress(OSError):
                os.truncate(self._fd, size)  # leave no part of a line behind
                written = 0
        self._waiting = self._waiting[written:]

    def close(self) -> None:
        self.append()
        os.close(self._fd)
