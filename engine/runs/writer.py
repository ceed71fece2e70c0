"""A run being written: its directory made, what its training tells recorded, the models it leaves kept."""

import contextlib
import fcntl
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TypeVar

from engine.config import Config
from engine.data.vocabulary import Vocabulary
from engine.errors import RunError, printable
from engine.events import (
    Checkpointed,
    Evaluated,
    Failed,
    Finished,
    Resume,
    Sampled,
    Snapshot,
    Step,
    TrainingEvent,
    Warned,
    to_record,
)
from engine.models.numpy_lstm import Decoder
from engine.runs.store import (
    CONFIG,
    EPOCHS,
    LOCK,
    LOG,
    METRICS,
    MODEL,
    PREVIOUS,
    REQUESTS,
    RESUME,
    SAMPLES,
    VOCABULARY,
    check_name,
    epoch_file,
    is_finished,
    read_start,
    writer,
)
from engine.storage.files import Appender, open_file, runs_folder, write_atomically
from engine.storage.log_file import LogFile

LOCK_TRIES, LOCK_SECONDS = 20, 0.01
File = TypeVar("File")


@dataclass(frozen=True)
class Run:
    """A run directory that this process writes. The lock is held as long as the file is open."""

    path: Path
    config: Config
    vocabulary: Vocabulary
    lock: IO[str]
    asked_before: int
    """Bytes of the requests that were there when the lock was taken: they were asked of another training."""

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.path.name


def create(config: Config, vocabulary: Vocabulary, name: str | None = None, folder: Path | None = None) -> Run:
    """Make a new run directory, by default named after its preset and the time, and lock it.

    Raises:
        RunError: the name is taken or no name for a folder, or the runs folder cannot be written.
    """
    folder = folder or runs_folder()
    if name is not None:
        check_name(name)
    stem = name or f"{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / stem
        for number in range(2, 1000):
            if (locked := _begin(path)) is not None:
                break
            if name is not None:
                raise RunError(f"run {name!r} exists in {folder}; choose another --run name")
            path = folder / f"{stem}-{number}"
        else:
            raise RunError(f"there are too many runs {stem} in {folder}; choose a --run name")
        if config.training.keep_epochs:
            (path / EPOCHS).mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(
            f"runs folder {folder} cannot be written: {error.strerror}; choose another with --runs-dir"
        ) from error
    # The configuration last: it makes a run of the folder.
    write_atomically(path / VOCABULARY, vocabulary.to_json().encode())
    write_atomically(path / CONFIG, config.to_json().encode())
    return Run(path, config, vocabulary, *locked)


def _begin(path: Path) -> tuple[IO[str], int] | None:
    """Make the folder of a run and lock it, as `_lock` does; None where there is one that another process makes or has.

    Raises:
        OSError: it cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    if not _is_begun_in_vain(path):
        return None
    lock = _open_lock(path)
    asked_before = _lock(lock, path)
    # Several may have come as far as this; one has the lock, and another may have had it already.
    if asked_before is None or not _is_begun_in_vain(path):
        lock.close()
        return None
    _remove_unfinished(path)
    return lock, asked_before


def _is_begun_in_vain(path: Path) -> bool:
    """Whether a folder is what `create` leaves when it is killed: it holds nothing of a training."""
    if not path.is_dir():
        return False
    return all(item.name in (LOCK, VOCABULARY, EPOCHS) or item.name.startswith(".") for item in path.iterdir())


def reopen(path: Path) -> Run:
    """Lock a run that was left, to go on with it.

    Raises:
        RunError: another process is training it, nothing is left to train, or a file is missing or damaged.
        ConfigError: its configuration is damaged.
    """
    config, vocabulary = read_start(path)
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(_open_lock(path))
            asked_before = _lock(lock, path)
            if asked_before is None:
                by = writer(path) or "another process"
                raise RunError(f"run {path.name!r} is being trained by {by}; `lotr-tui attach {path.name}` shows it")
            if is_finished(path):  # asked behind the lock: who had it before may have come to the end
                raise RunError(
                    f"run {path.name!r} is finished; nothing is left to train. `lotr-tui train` begins another one"
                )
            if (path / EPOCHS).is_symlink():
                raise RunError(f"{path / EPOCHS} is a link, which leads out of the run; put a folder in its place")
            _remove_unfinished(path)
            if config.training.keep_epochs:
                (path / EPOCHS).mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(
                f"run {path} cannot be written: {error.strerror}; only its owner can go on with it"
            ) from error
        stack.pop_all()
    return Run(path, config, vocabulary, lock, asked_before)


def _remove_unfinished(path: Path) -> None:
    """Remove the temporary files that a writer who was killed left in the folder of a run.

    Raises:
        OSError: it cannot be written to.
    """
    for name in (CONFIG, VOCABULARY, MODEL, RESUME):
        for unfinished in path.glob(f".{name}.*"):
            unfinished.unlink(missing_ok=True)
    for unfinished in (path / EPOCHS).glob(".*.safetensors.*"):
        unfinished.unlink(missing_ok=True)


def _open_lock(path: Path) -> IO[str]:
    return os.fdopen(open_file(path / LOCK, os.O_RDWR | os.O_APPEND | os.O_CREAT), "a+", encoding="utf-8")


def _lock(lock: IO[str], path: Path) -> int | None:
    """Take the lock of a run and say in the file who has it; None where another process has it.

    Else the bytes of its requests. They are counted before the lock is taken, since from then on we can be asked.
    """
    for _ in range(LOCK_TRIES):  # whoever looks whether it is taken has it for a moment
        try:
            asked_before = (path / REQUESTS).stat().st_size
        except OSError:
            asked_before = 0
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(LOCK_SECONDS)
    else:
        return None
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {platform.node()}\n")
    lock.flush()
    return asked_before


def record(run: Run, events: Iterator[TrainingEvent]) -> Iterator[TrainingEvent]:
    """Pass `events` on, writing each to the run directory, and the weights that are kept as they come.

    What cannot be written, as on a full disk, waits and is tried again; a `Warned` event says so. An exception
    becomes a `Failed` row and a traceback in the log before it goes on to the caller.

    Raises:
        RunError: something could still not be written at the end.
    """
    with ExitStack() as stack:
        stack.callback(run.lock.close)
        files = stack.enter_context(closing(_Writer(run)))
        try:
            for event in events:
                for told in files.take(event):
                    yield from files.warnings()
                    yield told
            files.finish()
        except Exception as error:
            import traceback

            files.fail(Failed(f"{type(error).__name__}: {error}", traceback.format_exc()))
            raise


class _Writer:
    """The files of a run while it is trained."""

    def __init__(self, run: Run) -> None:
        """Open the record.

        Raises:
            RunError: it cannot be written.
        """
        self._run = run
        self._metrics, self._samples = (_opened(Appender, run.path / name) for name in (METRICS, SAMPLES))
        self._log = _opened(LogFile, run.path / LOG)
        self._unwritten: dict[Path, tuple[int, bytes]] = {}
        """The update that each is of, and its content."""
        self._ended = False
        """Whether the training came to its end, so that nobody needs to go on with it."""
        self._problem = ""
        self._told = ""

    def take(self, event: TrainingEvent) -> list[TrainingEvent]:
        """Write down what `event` tells; what is to be told on."""
        if isinstance(event, Snapshot):
            self._unwritten[self._run.path / RESUME] = (event.step, event.content)
            return self._write_files()
        if isinstance(event, Finished):
            self._ended = event.reason in ("done", "patience")
            if self._ended:
                self._unwritten.pop(self._run.path / RESUME, None)
            before = self._write_files()
            if not self._problem:  # a training whose files are not all written has not come to its end
                self._row(event)
            return [*before, event]
        self._row(event)
        if isinstance(event, Evaluated):
            self._unwritten |= {path: (event.step, content) for path, content in _models_to_keep(self._run, event)}
            return [event, *self._write_files()]
        return [event]

    def warnings(self) -> list[TrainingEvent]:
        """What went wrong since the last call; each problem is told once until it is over."""
        problem = self._metrics.problem or self._samples.problem or self._problem
        new, self._told = problem != self._told, problem
        if not problem or not new:
            return []
        warned = Warned(f"{problem}; the training goes on and tries again")
        self._row(warned)
        return [warned]

    def finish(self) -> None:
        """The end of the training.

        Raises:
            RunError: a file is still not written.
        """
        self._metrics.write("")
        if problem := self._metrics.problem or self._problem:
            raise RunError(f"{problem}; the end of the training is not saved")
        if self._ended:  # only now: as long as a file is not written, it is all that there is
            for name in (PREVIOUS, RESUME):
                with contextlib.suppress(OSError):
                    (self._run.path / name).unlink(missing_ok=True)

    def fail(self, failed: Failed) -> None:
        """The training broke."""
        self._metrics.write(json.dumps(to_record(failed)) + "\n")
        # Line by line, as it is shown; what broke may name what a stranger wrote.
        lines = [" " * (len(line) - len(line.lstrip(" "))) + printable(line) for line in failed.details.split("\n")]
        details = "\n".join(lines)
        self._log.write(f"{datetime.now():%H:%M:%S} {details}\n")

    def close(self) -> None:
        """Try once more to write what is not written yet, and close the record."""
        self._write_files()
        for file in (self._metrics, self._samples, self._log):
            file.close()

    def _row(self, event: TrainingEvent) -> None:
        row = json.dumps(to_record(event)) + "\n"
        if not isinstance(event, Sampled):
            self._metrics.write(row)
        if isinstance(event, (Sampled, Resume)):  # whoever reads one file alone needs to know of a resume
            self._samples.write(row)
        if not isinstance(event, Step):
            self._log.write(f"{datetime.now():%H:%M:%S} {row}")

    def _write_files(self) -> list[TrainingEvent]:
        """Write whole files, those that could not be written before too; tells those written now."""
        told: list[TrainingEvent] = []
        self._problem = ""
        for path, (step, content) in list(self._unwritten.items()):
            try:
                write_atomically(path, content, path.with_name(PREVIOUS) if path.name == RESUME else None)
            except RunError as error:
                self._problem = self._problem or str(error)  # the oldest, so that it is told once
            else:
                del self._unwritten[path]
                told.append(Checkpointed(step, path.relative_to(self._run.path).as_posix()))
                self._row(told[-1])
        return told


def _opened(kind: Callable[[Path], File], path: Path) -> File:
    try:
        return kind(path)
    except OSError as error:
        raise RunError(f"run {path.parent} cannot be written: {path.name}: {error.strerror}") from error


def _models_to_keep(run: Run, event: Evaluated) -> list[tuple[Path, bytes]]:
    """Where the weights of `event` are to be kept, and the content of the files."""
    if not isinstance(event.model, Decoder):
        return []
    files = [run.path / MODEL] if event.best else []
    if run.config.training.keep_epochs and _is_doubled(event.epoch):
        files.append(epoch_file(run.path, int(event.epoch)))
    if not files:
        return []
    from safetensors.numpy import save

    content = save(dict(event.model.weights), metadata={"format": "lotr-tui"})
    return [(file, content) for file in files]


def _is_doubled(epoch: float) -> bool:
    """Whether it is 1, 2, 4, 8 and so on: much is learnt early, and a long training keeps few models."""
    return epoch >= 1 and math.log2(epoch).is_integer()
