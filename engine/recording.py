"""A run being written: its directory made, what its training tells recorded, the models it leaves kept."""

import fcntl
import json
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from engine.config import BUNDLED, Config
from engine.decoder import Decoder
from engine.errors import RunError
from engine.events import Checkpointed, Evaluated, Failed, Sampled, Step, TrainingEvent, to_record
from engine.files import runs_folder, write_atomically
from engine.runs import CONFIG, EPOCHS, LATEST, LOCK, LOG, METRICS, MODEL, NAME, SAMPLES, VOCABULARY, epoch_file
from engine.vocabulary import Vocabulary


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
    if name is not None and not NAME.fullmatch(name):
        raise RunError(f"run name {name!r} is no folder name; use letters, digits, '.', '_' and '-'")
    if name in (LATEST, BUNDLED):
        raise RunError(f"run name {name!r} means another run already; choose another --run name")
    stem = name or f"{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / stem
        for number in range(2, 1000):
            try:
                path.mkdir()
                break
            except FileExistsError:
                if name is not None:
                    raise RunError(f"run {name!r} exists in {folder}; choose another --run name") from None
                path = folder / f"{stem}-{number}"
        if config.training.keep_epochs:
            (path / EPOCHS).mkdir()
        lock = (path / LOCK).open("w")
    except OSError as error:
        raise RunError(
            f"runs folder {folder} cannot be written: {error.strerror}; choose another with --runs-dir"
        ) from error
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    write_atomically(path / CONFIG, config.to_json().encode())
    write_atomically(path / VOCABULARY, vocabulary.to_json().encode())
    return Run(path, config, vocabulary, lock)


def record(run: Run, events: Iterator[TrainingEvent]) -> Iterator[TrainingEvent]:
    """Pass `events` on, writing each to the run directory, and the weights that are kept as they come.

    An exception becomes a `Failed` row and a traceback in the log before it goes on to the caller.
    """
    with ExitStack() as stack:
        stack.callback(run.lock.close)
        metrics = stack.enter_context((run.path / METRICS).open("a", buffering=1, encoding="utf-8"))
        samples = stack.enter_context((run.path / SAMPLES).open("a", buffering=1, encoding="utf-8"))
        log = stack.enter_context((run.path / LOG).open("a", buffering=1, encoding="utf-8"))
        try:
            for event in events:
                row = json.dumps(to_record(event))
                (samples if isinstance(event, Sampled) else metrics).write(row + "\n")
                if not isinstance(event, Step):
                    log.write(f"{datetime.now():%H:%M:%S} {row}\n")
                checkpoints = _keep(run, event) if isinstance(event, Evaluated) else []
                for checkpoint in checkpoints:
                    metrics.write(json.dumps(to_record(checkpoint)) + "\n")
                yield event
                yield from checkpoints
        except Exception as error:
            import traceback

            failed = Failed(f"{type(error).__name__}: {error}", traceback.format_exc())
            metrics.write(json.dumps(to_record(failed)) + "\n")
            log.write(f"{datetime.now():%H:%M:%S} {failed.details}\n")
            raise


def _keep(run: Run, event: Evaluated) -> list[Checkpointed]:
    """Write the weights of `event` wherever they are to be kept; tells where."""
    if not isinstance(event.model, Decoder):
        return []
    files = [run.path / MODEL] if event.best else []
    if run.config.training.keep_epochs and _is_doubled(event.epoch):
        files.append(epoch_file(run.path, int(event.epoch)))
    for file in files:
        _save_model(file, event.model)
    return [Checkpointed(event.step, file.relative_to(run.path).as_posix()) for file in files]


def _is_doubled(epoch: float) -> bool:
    """Whether it is 1, 2, 4, 8 and so on: much is learnt early, and a long training keeps few models."""
    return epoch >= 1 and math.log2(epoch).is_integer()


def _save_model(file: Path, decoder: Decoder) -> None:
    """Write the weights, whole or not at all."""
    from safetensors.numpy import save

    write_atomically(file, save(dict(decoder.weights), metadata={"format": "lotr-tui"}))
