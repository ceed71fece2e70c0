"""A run directory that a process writes while it holds the lock: creation, records, commands and deletion."""

import errno
import json
import math
import os
import platform
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import numpy as np

from engine import events
from engine.config import Config
from engine.control import ControlCommand
from engine.data.arrays import Float32Array
from engine.data.tokenizers import TOKENIZER_FILES, Tokenizer
from engine.errors import InvalidInputError, LotrError, RunError, describe_error
from engine.runs import directory, loading, metrics
from engine.runs.loading import NumpyDecoder
from engine.storage.files import JsonLinesAppender, default_runs_dir, lock_file, open_regular_file, write_atomically
from engine.storage.tensor_file import serialize_weights

LOCK_TIMEOUT = 0.2  # seconds; other processes hold a lock for a moment to check it
ABANDONED_SECONDS = 3600  # since the last change of a run that is being created, which takes a second
MAX_COMMAND_BYTES = 100_000  # per read; a longer line without an end is skipped


@dataclass(frozen=True)
class LockedRun:
    """Run directory that this process writes."""

    path: Path
    config: Config
    tokenizer: Tokenizer
    lock: IO[bytes]  # held until `record_events` closes it at the end of the training
    commands_offset: int = 0  # bytes of the commands file that are for an earlier training


def create_run(
    config: Config,
    tokenizer: Tokenizer,
    name: str | None = None,
    runs_dir: Path | None = None,
    initial_weights: Mapping[str, Float32Array] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> LockedRun:
    """Create and lock a run directory, with other files by name, or raise a RunError.

    The default name consists of the preset and the time. Random weights, or a base, need no initial weights.
    """
    runs_dir = runs_dir or default_runs_dir()
    if name is not None:
        directory.check_run_name(name)
    stem = name or f"{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
    names = [stem] if name else [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    contents = {**(files or {}), directory.CONFIG_FILE: config.to_json().encode()}
    if not directory.needs_base(config):
        contents[TOKENIZER_FILES[tokenizer.name]] = tokenizer.to_json().encode()
    if initial_weights is not None:
        contents[directory.INITIAL_FILE] = serialize_weights(initial_weights)
    unfinished = runs_dir / f".{stem}.{os.urandom(6).hex()}"  # gets its name once it is complete and locked
    try:
        unfinished.mkdir(parents=True)
        lock = _take_lock(unfinished)
        for other in runs_dir.glob(".*"):
            if directory.UNFINISHED.fullmatch(other.name) and time.time() - other.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)  # of a killed process
        for file_name, content in contents.items():
            write_atomically(unfinished / file_name, content)
        if config.training.keep_epoch_checkpoints:
            (unfinished / directory.EPOCHS_DIR).mkdir()
        for path in map(runs_dir.joinpath, names):
            try:
                unfinished.rename(path)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
            else:
                return LockedRun(path, config, tokenizer, lock)
    except OSError as error:
        reason = f"{error.strerror}; choose another with --runs-dir"
        raise RunError(f"runs folder {runs_dir} cannot be written: {reason}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    raise RunError(f"run {names[-1]!r} exists in {runs_dir}; choose another --run name")


def reopen_run(run_dir: Path) -> LockedRun:
    """Lock a run that was stopped or interrupted, to resume its training; any other run raises a RunError."""
    if name := directory.bundled_run_name(run_dir):
        raise RunError(f"{name} is part of lotr-tui and cannot be resumed; start from it with --init {name}")
    (config, tokenizer), commands = loading.read_config_and_tokenizer(run_dir), run_dir / directory.COMMANDS_FILE
    with ExitStack() as on_error:
        try:
            # Before the lock is taken: from then on, commands are for us.
            offset = commands.stat().st_size if commands.exists() else 0
            lock = on_error.enter_context(_take_lock(run_dir))
            recorded = metrics.read_current_events(run_dir / directory.METRICS_FILE, subsample=True)
            if directory.end_state(recorded) in directory.COMPLETE:  # its last owner may have finished it meanwhile
                raise RunError(f"run {run_dir.name!r} is finished; start a new one with `lotr-tui train`")
            if (run_dir / directory.EPOCHS_DIR).is_symlink():
                raise RunError(f"{run_dir / directory.EPOCHS_DIR} is a link out of the run; replace it by a folder")
            if config.training.keep_epoch_checkpoints:
                (run_dir / directory.EPOCHS_DIR).mkdir(exist_ok=True)
            for folder in (run_dir, run_dir / directory.EPOCHS_DIR):
                for temporary in folder.glob(".*.safetensors.*"):  # of a killed process
                    temporary.unlink(missing_ok=True)
        except BlockingIOError as error:
            owner = directory.lock_owner(run_dir) or "another process"
            attach = f"lotr-tui attach {directory.run_word(run_dir)}"
            raise RunError(f"run {run_dir.name!r} is being trained by {owner}; `{attach}` shows it") from error
        except OSError as error:
            reason = f"{error.strerror}; only its owner can resume it"
            raise RunError(f"run {run_dir} cannot be written: {reason}") from error
        on_error.pop_all()
    return LockedRun(run_dir, config, tokenizer, lock, offset)


def _take_lock(run_dir: Path) -> IO[bytes]:
    """Take the lock of a run and write this process into it; a BlockingIOError is raised if another one holds it."""
    lock = lock_file(run_dir / directory.LOCK_FILE, LOCK_TIMEOUT)
    lock.truncate()
    lock.write(f"process {os.getpid()} on {platform.node()}\n".encode(errors="replace"))
    return lock


def delete_run(run_dir: Path, runs_dir: Path | None = None) -> None:
    """Delete a run of the runs folder, unless the run is being trained; a failure raises a RunError."""
    runs_dir = runs_dir or default_runs_dir()
    if name := directory.bundled_run_name(run_dir):
        raise RunError(f"the bundled model {name!r} is part of lotr-tui and cannot be deleted")
    if run_dir.is_symlink() or run_dir.parent.resolve() != runs_dir.resolve():
        raise RunError(f"run {str(run_dir)!r} is not in {runs_dir}; only runs of that folder can be deleted")
    if directory.started_at(run_dir) is None:
        raise RunError(f"{run_dir} has no {directory.CONFIG_FILE}, so it is not a run and is not deleted")
    with _change(run_dir, "deleted"):
        shutil.rmtree(run_dir)


def rename_run(run: str, new_name: str, runs_dir: Path | None = None) -> str:
    """Rename a run of the runs folder, unless it is being trained, and return a message for the user."""
    runs_dir = runs_dir or default_runs_dir()
    path = directory.resolve_run(run, runs_dir)
    if path.parent.resolve() != runs_dir.resolve():
        raise RunError(f"run {run!r} is not in {runs_dir}; only runs of that folder can be renamed")
    directory.check_run_name(new_name)
    new_path = runs_dir / new_name
    with _change(path, "renamed"):
        # On a file system that ignores case, the same name in other letters is the run itself.
        is_same = new_name != path.name and new_path.exists() and new_path.samefile(path)
        if (new_path.exists() or new_path.is_symlink()) and not is_same:
            raise RunError(f"run {new_name!r} exists in {runs_dir}; choose another name")
        path.rename(new_path)
    return f"run {path.name} is now {new_name}"


@contextmanager
def _change(run_dir: Path, action: str) -> Iterator[None]:
    """Hold the lock of a run, and raise a RunError for a failure of the block."""
    try:
        with lock_file(run_dir / directory.LOCK_FILE, LOCK_TIMEOUT):
            yield
    except BlockingIOError as error:
        stop = f"lotr-tui stop {directory.run_word(run_dir)}"
        raise RunError(f"run {run_dir.name!r} is being trained; stop it first: {stop}") from error
    except OSError as error:
        raise RunError(f"run {run_dir} cannot be {action}: {error.strerror}") from error


def send_command(run_dir: Path, command: ControlCommand) -> None:
    """Send a command to the process that trains a run; a RunError is raised if there is none."""
    if not directory.is_locked(run_dir):
        raise RunError(f"run {run_dir.name!r} is not being trained, so there is nothing to {command.kind}")
    path = run_dir / directory.COMMANDS_FILE
    # The first newline ends what another process may have left unfinished.
    line = f"\n{json.dumps({'kind': command.kind, 'value': command.value})}\n".encode()
    try:
        with os.fdopen(open_regular_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "wb") as file:
            file.write(line)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; the command was not sent") from error


@dataclass
class CommandFileReader:
    """Reader of the commands that other processes add after the first `offset` bytes, a source of a `CommandQueue`."""

    run_dir: Path
    offset: int = 0

    def __call__(self) -> list[ControlCommand]:
        """Return the commands since the last call. Invalid lines are skipped."""
        try:
            with os.fdopen(open_regular_file(self.run_dir / directory.COMMANDS_FILE), "rb") as file:
                self.offset = min(self.offset, os.fstat(file.fileno()).st_size)  # smaller if it was truncated
                file.seek(self.offset)
                content = file.read(MAX_COMMAND_BYTES)
        except OSError:
            self.offset = 0
            return []
        end = content.rfind(b"\n") + 1 or (len(content) if len(content) == MAX_COMMAND_BYTES else 0)
        self.offset += end
        commands = []
        for line in content[:end].splitlines():
            with suppress(ValueError, KeyError, TypeError, RecursionError, InvalidInputError):
                row = json.loads(line)
                commands.append(ControlCommand(row["kind"], row["value"]))
        return commands


def record_events(run: LockedRun, training: Iterator[events.TrainingEvent]) -> Iterator[events.TrainingEvent]:
    """Write the events of `training` to the run directory and yield them, with events about the files written.

    On a full disk, data is kept and written later, with a `Warned` event; a LotrError at the end, if that is too late.
    """
    with run.lock:
        writer = _RunWriter(run)
        try:
            for event in training:
                yield from writer.record(event)
        except Exception as error:
            writer.write_row(events.Failed(describe_error(error), traceback.format_exc()))
            raise
        finally:
            writer.write_pending_files()
            writer.metrics.close()
            writer.samples.close()


class _RunWriter:
    def __init__(self, run: LockedRun) -> None:
        self._run = run
        try:
            self.metrics = JsonLinesAppender(run.path / directory.METRICS_FILE)
            self.samples = JsonLinesAppender(run.path / directory.SAMPLES_FILE)
        except OSError as error:
            raise RunError(f"run {run.path} cannot be written: {error.strerror}") from error
        self._pending_files: dict[str, tuple[int, bytes]] = {}  # step and content by name, still to be written
        self._problem = self._reported_problem = ""

    def record(self, event: events.TrainingEvent) -> list[events.TrainingEvent]:
        """Record `event`, and return the events to yield in its place, with a warning when a problem begins."""
        written: list[events.TrainingEvent] = [event]
        is_complete = isinstance(event, events.Finished) and event.reason in ("done", "patience", "pruned")
        if isinstance(event, events.Snapshot):
            self._pending_files[directory.RESUME_FILE] = (event.step, event.content)
            written = self.write_pending_files()
        elif isinstance(event, events.Finished):
            if is_complete:
                self._pending_files.pop(directory.RESUME_FILE, None)
            written = [*self.write_pending_files(), event]
            if not self._problem:  # a training with unwritten files must stay resumable
                self.write_row(event)
            if problem := self.metrics.problem or self._problem:
                raise LotrError(f"{problem}; the end of the training is not saved")
        else:
            self.write_row(event)
            if isinstance(event, events.Evaluated):
                config, epoch, content = self._run.config, event.epoch, b""
                best_file = directory.MODEL_FILE if event.adapter is None else directory.ADAPTER_FILE
                names = [best_file] if event.is_best else []
                # Epochs 1, 2, 4, 8, …: early ones change the most, and a long training keeps few models.
                if config.training.keep_epoch_checkpoints and epoch >= 1 and math.log2(epoch).is_integer():
                    names.append(f"{directory.EPOCHS_DIR}/{int(epoch)}.safetensors")
                if names and event.adapter is not None:
                    halves = {name: weight.astype(np.float16) for name, weight in event.adapter.items()}
                    content = loading.serialize_adapter(halves, loading.read_reference(self._run.path).sha256)
                elif names and isinstance(event.model, NumpyDecoder):
                    content = serialize_weights(event.model.weights)
                self._pending_files |= {name: (event.step, content) for name in names if content}
                written += self.write_pending_files()
        if is_complete:  # not earlier: the checkpoints are the only copy until the model is written
            for name in (directory.PREVIOUS_RESUME_FILE, directory.RESUME_FILE, directory.INITIAL_FILE):
                with suppress(OSError):
                    (self._run.path / name).unlink(missing_ok=True)
        problem = self.metrics.problem or self.samples.problem or self._problem
        is_new, self._reported_problem = problem != self._reported_problem, problem
        if problem and is_new:
            written.insert(0, events.Warned(f"{problem}; the training continues and tries again"))
            self.write_row(written[0])
        return written

    def write_row(self, event: events.TrainingEvent) -> None:
        row = events.event_to_dict(event)
        if not isinstance(event, events.Sampled):
            self.metrics.append(row)
        if isinstance(event, (events.Sampled, events.Resume)):  # a reader of the samples alone must know of a resume
            self.samples.append(row)

    def write_pending_files(self) -> list[events.TrainingEvent]:
        """Try to write all pending files. Return a `Checkpointed` event for each written file."""
        checkpoints: list[events.TrainingEvent] = []
        self._problem = ""
        for name, (step, content) in list(self._pending_files.items()):
            backup = self._run.path / directory.PREVIOUS_RESUME_FILE if name == directory.RESUME_FILE else None
            try:
                write_atomically(self._run.path / name, content, backup)
            except RunError as error:
                self._problem = self._problem or str(error)  # the oldest problem, so that it is reported once
            else:
                del self._pending_files[name]
                checkpoints.append(events.Checkpointed(step, name))
                self.write_row(checkpoints[-1])
        return checkpoints
