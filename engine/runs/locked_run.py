"""A run directory that a process writes while it holds the lock: creation, records, commands and deletion."""

import errno
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engine import control, events
from engine.config import Config
from engine.data import arrays, tokenizers
from engine.errors import InvalidInputError, LotrError, RunError, describe_error
from engine.models.pretrained.names import is_pretrained_name
from engine.runs import directory, loading
from engine.storage import files, tensor_file

LOCK_TIMEOUT = 0.2  # seconds; `directory.lock_owner` of other processes holds a lock for a moment to check it
ABANDONED_SECONDS = 3600  # since the last change of a run that is being created, which takes a second


@dataclass(frozen=True)
class LockedRun:
    path: Path
    config: Config
    lock: IO[bytes]  # held until `record_events` closes it at the end of the training
    commands: directory.RecordFollower  # of other processes for this training


def create_run(
    config: Config,
    tokenizer: tokenizers.Tokenizer,
    name: str | None = None,
    runs_dir: Path | None = None,
    initial_weights: Mapping[str, arrays.Float32Array] | None = None,  # neither for random weights nor for a base
    contents: Mapping[str, bytes] | None = None,  # of other files, by name
) -> LockedRun:
    """Create and lock a run directory, named by preset and time without a name; a failure raises a RunError."""
    runs_dir = runs_dir or files.default_runs_dir()
    if name is not None:
        directory.check_run_name(name)
    stem = name or f"{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    contents = {**(contents or {}), directory.CONFIG_FILE: config.to_json().encode()}
    if not directory.needs_base(config):
        contents[tokenizers.TOKENIZER_FILES[tokenizer.name]] = tokenizer.to_json().encode()
    if initial_weights is not None:
        contents[directory.INITIAL_FILE] = tensor_file.serialize_weights(initial_weights)
    unfinished = runs_dir / f".{stem}.{os.urandom(6).hex()}"  # gets its name once it is complete and locked
    try:
        unfinished.mkdir(parents=True)
        lock = _take_lock(unfinished)
        for other in filter(lambda path: directory.UNFINISHED.fullmatch(path.name), runs_dir.glob(".*")):
            with suppress(OSError):  # another process may rename the folder of its run meanwhile
                if time.time() - other.stat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(other, ignore_errors=True)  # of a killed process
        for file_name, content in contents.items():
            files.write_atomically(unfinished / file_name, content)
        if config.training.keep_epoch_checkpoints:
            (unfinished / directory.EPOCHS_DIR).mkdir()
        for number in range(1, 2 if name else 1000):
            path = runs_dir / (stem if number == 1 else f"{stem}-{number}")
            try:
                unfinished.rename(path)
                commands = directory.RecordFollower(path / directory.COMMANDS_FILE, parse_command)
                return LockedRun(path, config, lock, commands)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
    except OSError as error:
        raise RunError(f"runs folder {runs_dir} cannot be written: {error.strerror}; use another --runs-dir") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    raise RunError(f"run {path.name!r} exists in {runs_dir}; choose another --run name")


def reopen_run(run_dir: Path) -> LockedRun:
    """Lock a run that was stopped or interrupted, to resume its training; any other run raises a RunError."""
    if name := directory.bundled_runs().get(run_dir):
        raise RunError(f"{name} is part of lotr-tui and cannot be resumed; start from it with --init {name}")
    config, epochs = directory.read_config(run_dir), run_dir / directory.EPOCHS_DIR
    with ExitStack() as on_error:
        try:
            commands = directory.RecordFollower(run_dir / directory.COMMANDS_FILE, parse_command)
            while not commands.at_end:  # before the lock is taken: from then on, commands are for us
                commands.read()
            lock = on_error.enter_context(_take_lock(run_dir))
            recorded = directory.read_events(run_dir / directory.METRICS_FILE, subsample=True)
            if directory.end_state(directory.drop_superseded(recorded)) in directory.COMPLETE:  # by its last owner
                raise RunError(f"run {run_dir.name!r} is finished; start a new one with `lotr-tui train`")
            if epochs.is_symlink():
                raise RunError(f"{epochs} is a link out of the run; replace it by a folder")
            if config.training.keep_epoch_checkpoints:
                epochs.mkdir(exist_ok=True)
            for temporary in (*run_dir.glob(".*.safetensors.*"), *epochs.glob(".*.safetensors.*")):
                temporary.unlink(missing_ok=True)  # of a killed process
        except BlockingIOError as error:
            owner, attach = directory.lock_owner(run_dir), f"lotr-tui attach {directory.run_word(run_dir)}"
            raise RunError(f"run {run_dir.name!r} is being trained by {owner}; `{attach}` shows it") from error
        except OSError as error:
            raise RunError(f"run {run_dir} cannot be written: {error.strerror}; its owner can resume it") from error
        on_error.pop_all()
    return LockedRun(run_dir, config, lock, commands)


def prepare_resume(run: LockedRun, *, restart: bool) -> None:
    """Raise a RunError if a resume would replace a model, which needs `restart`, or cannot begin again."""
    file = run.path / directory.RESUME_FILE
    name = run.path.name
    if not restart:
        try:
            tensor_file.TensorFile(file).check_bytes()
            return
        except FileNotFoundError:
            has_model = any((run.path / file_name).exists() for file_name in directory.WEIGHT_FILES)
            problem = "is missing" if has_model else ""
        except (OSError, RunError):
            problem = "is damaged or not a checkpoint"
        if problem:
            raise RunError(
                f"{file} {problem}, so run {name!r} can only begin again: add --restart, which replaces its model; "
                f"or keep it, and start from it with --init {name}"
            )
    init = run.config.training.init
    if init and not is_pretrained_name(init) and not (run.path / directory.INITIAL_FILE).exists():
        raise RunError(
            f"run {name!r} cannot begin again: its initial weights were deleted after its first checkpoint; train a "
            f"new run with --init {init}"
        )
    file.unlink(missing_ok=True)


def _take_lock(run_dir: Path) -> IO[bytes]:
    """Take the lock of a run and write this process into it; a BlockingIOError is raised if another one holds it."""
    lock = files.lock_file(run_dir / directory.LOCK_FILE, LOCK_TIMEOUT)
    lock.truncate()
    lock.write(f"process {os.getpid()} on {os.uname().nodename}\n".encode(errors="replace"))
    return lock


def delete_run(run_dir: Path, runs_dir: Path | None = None) -> None:
    """Delete a run of the runs folder, unless the run is being trained; a failure raises a RunError."""
    with _change(run_dir, runs_dir or files.default_runs_dir(), "deleted"):
        shutil.rmtree(run_dir)


def rename_run(run: str, new_name: str, runs_dir: Path | None = None) -> str:
    """Rename a run of the runs folder, unless it is being trained, and return a message for the user."""
    runs_dir = runs_dir or files.default_runs_dir()
    path, new_path = directory.resolve_run(run, runs_dir), runs_dir / new_name
    directory.check_run_name(new_name)
    with _change(path, runs_dir, "renamed"):
        # On a file system that ignores case, the same name in other letters is the run itself.
        if (new_path.exists() or new_path.is_symlink()) and not (new_path.exists() and new_path.samefile(path)):
            raise RunError(f"run {new_name!r} exists in {runs_dir}; choose another name")
        path.rename(new_path)
    return f"run {path.name} is now {new_name}"


@contextmanager
def _change(run_dir: Path, runs_dir: Path, action: str) -> Iterator[None]:
    """Hold the lock of a run of the folder, and raise a RunError for a failure of the block."""
    if name := directory.bundled_runs().get(run_dir):
        raise RunError(f"the bundled model {name!r} is part of lotr-tui and cannot be {action}")
    if run_dir.is_symlink() or directory.started_at(run_dir) is None or run_dir.parent.resolve() != runs_dir.resolve():
        raise RunError(f"{run_dir} is not a run in {runs_dir}; only runs of that folder can be {action}")
    try:
        with files.lock_file(run_dir / directory.LOCK_FILE, LOCK_TIMEOUT):
            yield
    except BlockingIOError as error:
        stop = f"lotr-tui stop {directory.run_word(run_dir)}"
        raise RunError(f"run {run_dir.name!r} is being trained; stop it first: {stop}") from error
    except OSError as error:
        raise RunError(f"run {run_dir} cannot be {action}: {error.strerror}") from error


def send_command(run_dir: Path, command: control.ControlCommand) -> None:
    """Send a command to the process that trains a run; a RunError is raised if there is none."""
    if not directory.lock_owner(run_dir):
        raise RunError(f"run {run_dir.name!r} is not being trained, so there is nothing to {command.kind}")
    path = run_dir / directory.COMMANDS_FILE
    # The first newline ends what another process may have left unfinished.
    line = f"\n{json.dumps({'kind': command.kind, 'value': command.value})}\n".encode()
    try:
        with os.fdopen(files.open_regular_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "wb") as file:
            file.write(line)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; the command was not sent") from error


def parse_command(line: bytes) -> control.ControlCommand | None:
    with suppress(InvalidInputError):
        return files.decode(control.ControlCommand, files.parse_json(line))
    return None


def record_events(run: LockedRun, training: Iterator[events.TrainingEvent]) -> Iterator[events.TrainingEvent]:
    """Write and yield the events of a training, with its files; what a full disk refuses to the end is a LotrError."""
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
            self.metrics = files.JsonLinesAppender(run.path / directory.METRICS_FILE)
            self.samples = files.JsonLinesAppender(run.path / directory.SAMPLES_FILE)
        except OSError as error:
            raise RunError(f"run {run.path} cannot be written: {error.strerror}") from error
        self._pending_files: dict[str, tuple[int, bytes]] = {}  # step and content by name, still to be written
        self._problem = self._reported_problem = ""

    def record(self, event: events.TrainingEvent) -> list[events.TrainingEvent]:
        """Record `event`, and return the events to yield in its place, with a warning when a problem begins."""
        written: list[events.TrainingEvent] = []
        if not isinstance(event, (events.Snapshot, events.Finished)):
            self.write_row(event)
            written.append(event)
        if isinstance(event, events.Snapshot):
            self._pending_files[event.file] = event.step, event.content
            written += self.write_pending_files()
        elif isinstance(event, events.Evaluated):
            best_file = directory.MODEL_FILE if event.adapter is None else directory.ADAPTER_FILE
            names = [best_file] if event.is_best else []
            if self._run.config.training.keep_epoch_checkpoints and event.epoch in (1, 4):  # early ones change most
                names.append(f"{directory.EPOCHS_DIR}/{int(event.epoch)}.safetensors")
            if names and event.adapter is not None:
                content = loading.serialize_best(self._run.path, self._run.config.model, event.adapter)
                self._pending_files |= dict.fromkeys(names, (event.step, content))
            elif isinstance(event.model, loading.NumpyDecoder):
                for name in names:
                    convert = tensor_file.to_float32 if name == best_file else tensor_file.to_int8
                    stored = {key: convert(weight) for key, weight in event.model.weights.items()}
                    self._pending_files[name] = event.step, tensor_file.serialize_weights(stored)
            written += self.write_pending_files()
        elif isinstance(event, events.Finished):
            is_complete = directory.end_state([event]) in directory.COMPLETE
            if is_complete:
                self._pending_files.pop(directory.RESUME_FILE, None)
            written = [*self.write_pending_files(), event]
            if not self._problem:  # a training with unwritten files must stay resumable
                self.write_row(event)
            if problem := self.metrics.problem or self._problem:
                raise LotrError(f"{problem}; the end of the training is not saved")
            if is_complete:  # not earlier: the checkpoints are the only copy until the model is written
                for name in (directory.RESUME_FILE, directory.INITIAL_FILE):
                    with suppress(OSError):
                        (self._run.path / name).unlink(missing_ok=True)
        problem = self.metrics.problem or self.samples.problem or self._problem
        if problem and problem != self._reported_problem:
            written.insert(0, events.Warned(f"{problem}; the training continues and tries again"))
            self.write_row(written[0])
        self._reported_problem = problem
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
        for name, (step, content) in sorted(self._pending_files.items()):
            if name == directory.RESUME_FILE and self._pending_files.keys() & set(directory.WEIGHT_FILES):
                break  # a resume does not write the best model, which is written first, again
            try:
                files.write_atomically(self._run.path / name, content)
            except RunError as error:
                self._problem = self._problem or str(error)  # the oldest problem, so that it is reported once
            else:
                del self._pending_files[name]
                if name == directory.RESUME_FILE:
                    with suppress(OSError):
                        (self._run.path / directory.INITIAL_FILE).unlink(missing_ok=True)
                checkpoints.append(events.Checkpointed(step, name))
                self.write_row(checkpoints[-1])
        return checkpoints
