"""A run being written: its directory made, what its training tells recorded, the models it leaves kept."""

import fcntl
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from engine.config import Config
from engine.decoder import Decoder
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
from engine.files import Appender, runs_folder, write_atomically
from engine.runs import (
    CONFIG,
    EPOCHS,
    LOCK,
    LOG,
    METRICS,
    MODEL,
    RESUME,
    SAMPLES,
    VOCABULARY,
    check_name,
    epoch_file,
    is_written,
    read_start,
    summarize,
)
from engine.vocabulary import Vocabulary

LOCK_TRIES, LOCK_SECONDS = 20, 0.01


@dataclass(frozen=True)
class Run:
    """A run directory that this process writes. The lock is held as long as the file is open."""

    path: Path
    config: Config
    vocabulary: Vocabulary
    lock: IO[str]

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
            try:
                path.mkdir()
                break
            except FileExistsError:
                if _was_begun_in_vain(path):
                    break
                if name is not None:
                    raise RunError(f"run {name!r} exists in {folder}; choose another --run name") from None
                path = folder / f"{stem}-{number}"
        if config.training.keep_epochs:
            (path / EPOCHS).mkdir(exist_ok=True)
        lock = (path / LOCK).open("w")
    except OSError as error:
        raise RunError(
            f"runs folder {folder} cannot be written: {error.strerror}; choose another with --runs-dir"
        ) from error
    _lock(lock)
    # The configuration last: it makes a run of the folder.
    write_atomically(path / VOCABULARY, vocabulary.to_json().encode())
    write_atomically(path / CONFIG, config.to_json().encode())
    return Run(path, config, vocabulary, lock)


def _was_begun_in_vain(path: Path) -> bool:
    """Whether a folder is what `create` leaves when it is killed: it holds nothing, and nobody writes it."""
    if not path.is_dir() or is_written(path):
        return False
    return all(item.name in (LOCK, VOCABULARY, EPOCHS) or item.name.startswith(".") for item in path.iterdir())


def reopen(path: Path) -> Run:
    """Lock a run that was left, to go on with it.

    Raises:
        RunError: another process is training it, nothing is left to train, or a file is missing or damaged.
        ConfigError: its configuration is damaged.
    """
    config, vocabulary = read_start(path)
    if (state := summarize(path).state) == "finished":
        raise RunError(f"run {path.name!r} is finished; nothing is left to train. `lotr-tui train` begins another one")
    try:
        lock = (path / LOCK).open("a+")
    except OSError as error:
        raise RunError(f"run {path} cannot be written: {error.strerror}; only its owner can go on with it") from error
    if state == "running" or not _lock(lock):
        lock.seek(0)
        holder = printable(lock.read(100)) or "another process"
        lock.close()
        raise RunError(f"run {path.name!r} is being trained by {holder}; `lotr-tui attach {path.name}` shows it")
    for unfinished in [*path.glob(".*.safetensors.*"), *(path / EPOCHS).glob(".*.safetensors.*")]:
        unfinished.unlink(missing_ok=True)  # its writer was killed
    return Run(path, config, vocabulary, lock)


def _lock(lock: IO[str]) -> bool:
    """Take the lock and say in the file who has it; tells whether it was free."""
    for _ in range(LOCK_TRIES):  # whoever looks whether it is taken has it for a moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(LOCK_SECONDS)
    else:
        return False
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {platform.node()}\n")
    lock.flush()
    return True


def record(run: Run, events: Iterator[TrainingEvent]) -> Iterator[TrainingEvent]:
    """Pass `events` on, writing each to the run directory, and the weights that are kept as they come.

    What cannot be written, as on a full disk, waits and is tried again; a `Warned` event says so. An exception
    becomes a `Failed` row and a traceback in the log before it goes on to the caller.

    Raises:
        RunError: something could still not be written at the end.
    """
    with ExitStack() as stack:
        stack.callback(run.lock.close)
        writer = stack.enter_context(closing(_Writer(run)))
        try:
            for event in events:
                for told in writer.take(event):
                    yield from writer.warnings()
                    yield told
            writer.finish()
        except Exception as error:
            import traceback

            writer.fail(Failed(f"{type(error).__name__}: {error}", traceback.format_exc()))
            raise


class _Writer:
    """The files of a run while it is trained."""

    def __init__(self, run: Run) -> None:
        """Open the record.

        Raises:
            RunError: it cannot be written.
        """
        self._run = run
        try:
            self._metrics, self._samples, self._log = (Appender(run.path / name) for name in (METRICS, SAMPLES, LOG))
        except OSError as error:
            raise RunError(f"run {run.path} cannot be written: {error.strerror}") from error
        self._unwritten: dict[Path, bytes] = {}
        self._problem = ""
        self._told = ""

    def take(self, event: TrainingEvent) -> list[TrainingEvent]:
        """Write down what `event` tells; what is to be told on."""
        if isinstance(event, Snapshot):
            return self._put([(self._run.path / RESUME, event.content)], event.step)
        self._row(event)
        told: list[TrainingEvent] = [event]
        if isinstance(event, Evaluated):
            told += self._put(_models_to_keep(self._run, event), event.step)
        if isinstance(event, Finished) and event.reason in ("done", "patience"):
            (self._run.path / RESUME).unlink(missing_ok=True)
        return told

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
        self._write_files()
        if problem := self._metrics.problem or self._problem:
            raise RunError(f"{problem}; the end of the training is not saved")

    def fail(self, failed: Failed) -> None:
        """The training broke."""
        self._metrics.write(json.dumps(to_record(failed)) + "\n")
        self._log.write(f"{datetime.now():%H:%M:%S} {failed.details}\n")

    def close(self) -> None:
        """Close the record."""
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

    def _put(self, files: Sequence[tuple[Path, bytes]], step: int) -> list[TrainingEvent]:
        """Write whole files, and those that could not be written before; tells those written now."""
        self._unwritten |= dict(files)
        written = self._write_files()
        told = [Checkpointed(step, path.relative_to(self._run.path).as_posix()) for path, _ in files if path in written]
        for event in told:
            self._row(event)
        return list(told)

    def _write_files(self) -> set[Path]:
        written, self._problem = set(), ""
        for path, content in list(self._unwritten.items()):
            try:
                write_atomically(path, content)
            except RunError as error:
                self._problem = str(error)
            else:
                written.add(path)
                del self._unwritten[path]
        return written


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
