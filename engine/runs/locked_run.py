"""Creating, reopening, deleting and renaming a run directory while its lock is held, and commands to its holder."""

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engine.config import Config
from engine.control import ControlCommand
from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import Tokenizer
from engine.data.tokenizers.loading import TOKENIZER_FILE, VOCABULARY_FILE
from engine.errors import InvalidInputError, RunError
from engine.models.pretrained.names import BASE_FILE
from engine.runs import directory
from engine.runs.adapter_files import ADAPTER_CONFIG_FILE
from engine.runs.directory import COMMANDS_FILE, CONFIG_FILE, DIALOGUE_FILES, EPOCHS_DIR, INITIAL_FILE, LOCK_FILE
from engine.runs.summary import is_finished
from engine.storage.files import FileLock, default_runs_dir, open_regular_file, write_atomically
from engine.storage.tensor_file import serialize_weights

LOCK_TIMEOUT, LOCK_RETRY_INTERVAL = 0.2, 0.01  # seconds; other processes hold a lock for a moment to check it
MAX_COMMAND_BYTES = 100_000  # per read; a longer line without an end is skipped
FIRST_FILES = (VOCABULARY_FILE, TOKENIZER_FILE, BASE_FILE, ADAPTER_CONFIG_FILE, *DIALOGUE_FILES, INITIAL_FILE)
"""Files that are written before the configuration."""


@dataclass(frozen=True)
class LockedRun:
    """Run directory that this process writes."""

    path: Path
    config: Config
    tokenizer: Tokenizer
    lock: FileLock
    """Held lock; `record_events` releases it at the end of the training."""
    commands_offset: int
    """Size in bytes of the commands file before the lock was taken: those commands are for an earlier training."""

    @property
    def name(self) -> str:
        return self.path.name


def create_run(
    config: Config,
    tokenizer: Tokenizer,
    name: str | None = None,
    runs_dir: Path | None = None,
    initial_weights: Mapping[str, Float32Array] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> LockedRun:
    """Create and lock a run directory. The default name consists of the preset and the time.

    `initial_weights` are the weights that the training starts from; None for random weights, or those of a pre-trained
    model. `files` are others by name, such as those that `fit_dialogue_parts` and `base_files` return. A name that is
    invalid or taken, or a folder that cannot be written, raises a RunError.
    """
    runs_dir = runs_dir or default_runs_dir()
    if name is not None:
        directory.check_run_name(name)
    stem = name or f"{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
    names = [stem] if name else [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        locked = ((runs_dir / each, _create_and_lock(runs_dir / each)) for each in names)
        path, acquired = next((each for each in locked if each[1] is not None), (runs_dir, None))
        if acquired is None:
            raise RunError(f"run {names[-1]!r} exists in {runs_dir}; choose another --run name")
        if config.training.keep_epoch_checkpoints:
            (path / EPOCHS_DIR).mkdir(exist_ok=True)
    except OSError as error:
        reason = f"{error.strerror}; choose another with --runs-dir"
        raise RunError(f"runs folder {runs_dir} cannot be written: {reason}") from error
    contents = {**directory.tokenizer_files(tokenizer), **(files or {})}
    if initial_weights is not None:
        contents[INITIAL_FILE] = serialize_weights(initial_weights)
    contents[CONFIG_FILE] = config.to_json().encode()  # written last, because it makes the folder a run
    for file_name, content in contents.items():
        write_atomically(path / file_name, content)
    return LockedRun(path, config, tokenizer, *acquired)


def reopen_run(run_dir: Path) -> LockedRun:
    """Lock a run that was stopped or interrupted, to resume its training.

    A run that another process trains, that is finished, or whose files are missing or damaged raises a RunError.
    """
    config, tokenizer = directory.read_config_and_tokenizer(run_dir)
    with ExitStack() as on_error:
        try:
            acquired = _acquire_run_lock(run_dir)
            if acquired is None:
                owner = directory.lock_owner(run_dir) or "another process"
                attach = f"lotr-tui attach {directory.run_word(run_dir)}"
                raise RunError(f"run {run_dir.name!r} is being trained by {owner}; `{attach}` shows it")
            on_error.callback(acquired[0].release)
            if is_finished(run_dir):  # checked with the lock held: its last owner may have finished the run
                raise RunError(f"run {run_dir.name!r} is finished; start a new one with `lotr-tui train`")
            if (run_dir / EPOCHS_DIR).is_symlink():
                raise RunError(f"{run_dir / EPOCHS_DIR} is a link out of the run; replace it by a folder")
            if config.training.keep_epoch_checkpoints:
                (run_dir / EPOCHS_DIR).mkdir(exist_ok=True)
            _remove_temporary_files(run_dir)
        except OSError as error:
            reason = f"{error.strerror}; only its owner can resume it"
            raise RunError(f"run {run_dir} cannot be written: {reason}") from error
        on_error.pop_all()
    return LockedRun(run_dir, config, tokenizer, *acquired)


def delete_run(run_dir: Path, runs_dir: Path | None = None) -> None:
    """Delete a run of the runs folder, unless the run is being trained; a failure raises a RunError."""
    runs_dir = runs_dir or default_runs_dir()
    if name := directory.bundled_run_name(run_dir):
        raise RunError(f"the bundled model {name!r} is part of lotr-tui and cannot be deleted")
    if run_dir.is_symlink() or run_dir.parent.resolve() != runs_dir.resolve():
        raise RunError(f"run {str(run_dir)!r} is not in {runs_dir}; only runs of that folder can be deleted")
    if not directory.is_run(run_dir):
        raise RunError(f"{run_dir} has no {CONFIG_FILE}, so it is not a run and is not deleted")
    try:
        with _hold_run_lock(run_dir):
            shutil.rmtree(run_dir)
    except OSError as error:
        raise RunError(f"run {run_dir} cannot be deleted: {error.strerror}") from error


def rename_run(run: str, new_name: str, runs_dir: Path | None = None) -> str:
    """Rename a run of the runs folder, unless it is being trained, and return a message for the user."""
    runs_dir = runs_dir or default_runs_dir()
    path = directory.resolve_run(run, runs_dir)
    if path.parent.resolve() != runs_dir.resolve():
        raise RunError(f"run {run!r} is not in {runs_dir}; only runs of that folder can be renamed")
    directory.check_run_name(new_name)
    new_path = runs_dir / new_name
    try:
        with _hold_run_lock(path):
            # On a file system that ignores case, the same name in other letters is the run itself.
            is_same = new_name.casefold() == path.name.casefold() != new_name and new_path.exists()
            if (new_path.exists() or new_path.is_symlink()) and not (is_same and new_path.samefile(path)):
                raise RunError(f"run {new_name!r} exists in {runs_dir}; choose another name")
            path.rename(new_path)
    except OSError as error:
        raise RunError(f"run {path.name!r} cannot be renamed: {error.strerror}") from error
    return f"run {path.name} is now {new_name}"


@contextmanager
def _hold_run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run, so that no process trains it in the block; raise a RunError if one does already."""
    lock = FileLock(run_dir / LOCK_FILE, LOCK_TIMEOUT)
    try:
        acquired = not lock.path.exists() or lock.acquire()  # no lock file is created
    except OSError:  # the lock file cannot be written, so it can only be checked
        acquired = not directory.is_locked(run_dir)
    if not acquired:
        stop = f"lotr-tui stop {directory.run_word(run_dir)}"
        raise RunError(f"run {run_dir.name!r} is being trained; stop it first: {stop}")
    try:
        yield
    finally:
        lock.release()


def _create_and_lock(path: Path) -> tuple[FileLock, int] | None:
    """Create the folder of a run and lock it. Return lock and commands offset; None if the run exists."""
    with suppress(FileExistsError):
        path.mkdir()
    if not _is_abandoned(path) or (acquired := _acquire_run_lock(path)) is None:
        return None
    if not _is_abandoned(path):  # another process may have created the run before the lock was taken
        acquired[0].release()
        return None
    _remove_temporary_files(path)
    return acquired


def _is_abandoned(path: Path) -> bool:
    """Return True if a folder contains no more than `create_run` leaves behind when its process is killed."""
    names = (LOCK_FILE, EPOCHS_DIR, *FIRST_FILES)
    return path.is_dir() and all(item.name in names or item.name.startswith(".") for item in path.iterdir())


def _acquire_run_lock(run_dir: Path) -> tuple[FileLock, int] | None:
    """Take the lock of a run and write this process into it. Return lock and commands offset; None if it is taken."""
    lock, deadline = FileLock(run_dir / LOCK_FILE), time.monotonic() + LOCK_TIMEOUT
    while True:
        try:  # just before each attempt: as soon as the lock is taken, commands are for us
            commands_offset = (run_dir / COMMANDS_FILE).stat().st_size
        except OSError:
            commands_offset = 0
        if lock.acquire():
            lock.path.write_text(f"process {os.getpid()} on {platform.node()}\n", errors="replace")
            return lock, commands_offset
        if time.monotonic() >= deadline:
            return None
        time.sleep(LOCK_RETRY_INTERVAL)


def _remove_temporary_files(run_dir: Path) -> None:
    names = (CONFIG_FILE, *FIRST_FILES, *directory.WEIGHT_FILES, directory.RESUME_FILE)
    for pattern in (*(f".{name}.*" for name in names), f"{EPOCHS_DIR}/.*.safetensors.*"):
        for temporary in run_dir.glob(pattern):
            temporary.unlink(missing_ok=True)


def send_command(run_dir: Path, command: ControlCommand) -> None:
    """Send a command to the process that trains a run; a RunError is raised if there is none."""
    if not directory.is_locked(run_dir):
        raise RunError(f"run {run_dir.name!r} is not being trained, so there is nothing to {command.kind}")
    path = run_dir / COMMANDS_FILE
    # The first newline ends what another process may have left unfinished.
    line = f"\n{json.dumps({'kind': command.kind, 'value': command.value})}\n".encode()
    try:
        fd = open_regular_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with os.fdopen(fd, "wb") as file:
            file.write(line)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; the command was not sent") from error


class CommandFileReader:
    """Incremental reader of the commands of other processes, used as a source of a `CommandQueue`."""

    def __init__(self, run_dir: Path, offset: int = 0) -> None:
        """Read the commands of `run_dir` after the first `offset` bytes, which an earlier training received."""
        self._path = run_dir / COMMANDS_FILE
        self._offset = offset

    def __call__(self) -> list[ControlCommand]:
        """Return the commands since the last call. Invalid lines are skipped."""
        try:
            with os.fdopen(open_regular_file(self._path), "rb") as file:
                self._offset = min(self._offset, os.fstat(file.fileno()).st_size)  # smaller if it was truncated
                file.seek(self._offset)
                content = file.read(MAX_COMMAND_BYTES)
        except OSError:
            self._offset = 0
            return []
        end = content.rfind(b"\n") + 1 or (len(content) if len(content) == MAX_COMMAND_BYTES else 0)
        self._offset += end
        commands = []
        for line in content[:end].splitlines():
            with suppress(ValueError, KeyError, TypeError, RecursionError, InvalidInputError):
                row = json.loads(line)
                commands.append(ControlCommand(row["kind"], row["value"]))
        return commands
