"""Where things are kept, and how a file is written so that it is whole or not there."""

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from engine.errors import RunError

LOOK_SECONDS = 0.01
"""Between two looks at a lock that another process has."""


def home() -> Path:
    """The folder of runs, settings and history: `LOTR_TUI_HOME`, or the platform's data folder.

    Raises:
        RunError: it is the home of nobody.
    """
    if chosen := os.environ.get("LOTR_TUI_HOME"):
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise RunError(f"LOTR_TUI_HOME is {chosen}, and nobody of that name has a home; name a folder") from error
    from platformdirs import user_data_path

    return user_data_path("lotr-tui", appauthor=False)


def runs_folder() -> Path:
    """Where runs are kept unless told otherwise."""
    return home() / "runs"


def cache_folder() -> Path:
    """Where what was made of large corpora is kept; all in it can be made again."""
    return home() / "cache"


def assets_folder() -> Path:
    """The bundled dialogues and model: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parents[2]
    packaged = here / "lotr_tui" / "assets"
    return packaged if packaged.is_dir() else here / "assets"


def located(path: Path) -> Path:
    """Where a path leads from any folder. One that leads nowhere does so here too: whoever reads it says why."""
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError):  # the home of nobody, a link to itself, a zero byte
        return path.absolute()


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file of a run, and nothing else: a pipe would make us wait, and a link to write to leads elsewhere.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    if flags != os.O_RDONLY:
        flags |= os.O_NOFOLLOW
    file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is no file")
    return file


def read_file(path: Path, most: int) -> bytes:
    """The content of a file that has `most` bytes at most, whoever wrote it.

    Raises:
        OSError: it cannot be read, is no file, or is larger.
    """
    with os.fdopen(open_file(path), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than the {most:,} bytes that are read")
    return content


@contextlib.contextmanager
def replacing(path: Path, *, previous: Path | None = None, new: bool = False) -> Iterator[IO[bytes]]:
    """Write `path` so that a reader sees the old file or the new one, never a part, also after a power cut.

    Args:
        path: it has the content once the block is left; where the block raises, nothing has changed.
        previous: what stood in `path` goes there, by a change of names.
        new: nothing that exists is overwritten.

    Raises:
        FileExistsError: there is one, and it must be new.
        OSError: the folder cannot be written to; what was there before is untouched.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            yield cast(IO[bytes], file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        if new:
            _link(temporary, path)
        else:
            if previous is not None:
                with contextlib.suppress(FileNotFoundError):
                    path.replace(previous)
            temporary.replace(path)
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    sync(path.parent)


def _link(temporary: Path, path: Path) -> None:
    """Give a file its name, unless another one has it.

    Raises:
        OSError: one has, or it cannot be written.
    """
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # some file systems know no second name
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        temporary.replace(path)


def sync(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, outlive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def write_atomically(path: Path, content: bytes, previous: Path | None = None) -> None:
    """Write `content` to `path`, as `replacing` does.

    Raises:
        RunError: the folder cannot be written to; what was there before is untouched.
    """
    try:
        with replacing(path, previous=previous) as file:
            file.write(content)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; free some space or choose another --runs-dir"
        ) from error


def write_all(file: IO[bytes], content: bytes, size: int) -> None:
    """Write `content` behind the first `size` bytes of a file without a buffer: all of it, or nothing.

    Raises:
        OSError: there is no room.
    """
    try:
        file.seek(size)
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(size)  # no part of a line stays
        raise


def take_lock(file: IO[str], seconds: float) -> bool:
    """Have the lock of a file that others may have, trying for so long; whether it is had."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)


class Appender:
    """Adds lines to a file. Where there is no room they wait, and are written before the next ones once there is."""

    def __init__(self, path: Path, most_waiting: int = 10_000_000) -> None:
        """Open `path`, and end a line that its last writer did not live to end.

        Raises:
            OSError: it cannot be opened for writing, or is no file.
        """
        self.path = path
        self.problem = ""
        """Why lines wait; empty while none do."""
        self._waiting = bytearray()
        self._most_waiting = most_waiting
        self._file = open_file(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._waiting += b"\n"

    def write(self, text: str) -> None:
        """Add `text`; what is more than can wait is lost."""
        content = text.encode(errors="replace")
        if len(self._waiting) + len(content) <= self._most_waiting:
            self._waiting += content
        try:
            while self._waiting:
                del self._waiting[: os.write(self._file, self._waiting)]
            self.problem = "" if os.fstat(self._file).st_nlink else f"{self.path} was deleted"
        except OSError as error:
            self.problem = f"cannot write {self.path}: {error.strerror}"

    def close(self) -> None:
        """Try once more to write what waits, and close."""
        self.write("")
        os.close(self._file)
