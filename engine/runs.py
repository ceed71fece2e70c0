"""The run directory: what a training was, how it went, and the model it left."""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from engine.config import BUNDLED, Config
from engine.decoder import Decoder
from engine.errors import RunError, UnusableInput, nearest
from engine.events import Checkpointed, Evaluated, Failed, Sampled, Step, TrainingEvent, to_record
from engine.files import assets_folder, runs_folder, write_atomically
from engine.vocabulary import Vocabulary

CONFIG, VOCABULARY, MODEL = "config.json", "vocabulary.json", "model.safetensors"
METRICS, SAMPLES, LOG, LOCK = "metrics.jsonl", "samples.jsonl", "log.txt", "lock"
LATEST = "latest"

RunState = Literal["running", "finished", "stopped", "failed", "crashed"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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


@dataclass(frozen=True)
class RunSummary:
    """A line of the list of runs."""

    name: str
    path: Path
    state: RunState
    preset: str
    corpus: str
    mode: str
    epochs: float
    valid_perplexity: float | None
    """The best so far."""
    test_perplexity: float | None
    started: float
    """Seconds since 1970."""
    bytes: int


@dataclass(frozen=True)
class LoadedModel:
    """A run's model, ready to be played, and what is known of it."""

    name: str
    path: Path
    config: Config
    decoder: Decoder
    valid_perplexity: float | None
    kneser_ney_perplexity: float | None
    corpus_sha256: str
    """Of the corpus it was trained on; empty where the record does not say."""


def create(config: Config, vocabulary: Vocabulary, name: str | None = None, folder: Path | None = None) -> Run:
    """Make a new run directory, by default named after its preset and the time, and lock it.

    Raises:
        RunError: the name is taken or no name for a folder, or the runs folder cannot be written.
    """
    folder = folder or runs_folder()
    if name is not None and not _NAME.fullmatch(name):
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
    """Pass `events` on, writing each to the run directory; the best weights are written as they come.

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
                checkpoint = None
                if isinstance(event, Evaluated) and event.best and isinstance(event.model, Decoder):
                    save_model(run.path, event.model)
                    checkpoint = Checkpointed(event.step, MODEL)
                    metrics.write(json.dumps(to_record(checkpoint)) + "\n")
                yield event
                if checkpoint:
                    yield checkpoint
        except Exception as error:
            import traceback

            failed = Failed(f"{type(error).__name__}: {error}", traceback.format_exc())
            metrics.write(json.dumps(to_record(failed)) + "\n")
            log.write(f"{datetime.now():%H:%M:%S} {failed.details}\n")
            raise


def save_model(path: Path, decoder: Decoder) -> None:
    """Write `model.safetensors`, whole or not at all."""
    from safetensors.numpy import save

    write_atomically(path / MODEL, save(dict(decoder.weights), metadata={"format": "lotr-tui"}))


def resolve(run: str | None, folder: Path | None = None) -> Path:
    """The directory of a run: a name in the runs folder, a path, "latest", or None for the bundled model.

    Raises:
        RunError: there is no such run.
    """
    if run is None or run == BUNDLED:
        return assets_folder() / "model"
    folder = folder or runs_folder()
    if run == LATEST:
        runs = list_runs(folder)
        if not runs:
            raise RunError(f"there is no run in {folder} yet; `lotr-tui train` makes one")
        return runs[0].path
    if _NAME.fullmatch(run) and (folder / run / CONFIG).is_file():
        return folder / run
    path = Path(run)
    try:
        path = path.expanduser()
        is_file, is_run, is_folder = path.is_file(), (path / CONFIG).is_file(), path.is_dir()
    except (OSError, RuntimeError):  # longer than a path can be; the home of nobody
        is_file = is_run = is_folder = False
    if is_file:
        raise RunError(
            f"--run {run} is {_kind_of_file(path)}; a run is a folder with {CONFIG}, {VOCABULARY} and {MODEL}"
        )
    if is_run:
        return path
    if is_folder:
        raise RunError(f"--run {run} is a folder without {CONFIG}, so it is no run; see `lotr-tui runs`")
    names = [item.name for item in list_runs(folder)]
    raise RunError(f"run {run!r} is neither in {folder} nor a path{nearest(run, names)} See `lotr-tui runs`")


def load(path: Path) -> LoadedModel:
    """Load a run's model for playing; no pickle is ever read.

    Raises:
        RunError: a file is missing, damaged, or of another kind.
        ConfigError: the configuration is damaged.
    """
    config = Config.from_json(_text(path / CONFIG), str(path / CONFIG))
    vocabulary = Vocabulary.from_json(_text(path / VOCABULARY), str(path / VOCABULARY), config.data.tokenizer)
    decoder = Decoder(config.model, vocabulary, _tensors(path / MODEL))
    rows = list(read_rows(path / METRICS))
    started = next((row for row in rows if row["event"] == "started"), {})
    return LoadedModel(
        name=BUNDLED if path == assets_folder() / "model" else path.name,
        path=path,
        config=config,
        decoder=decoder,
        valid_perplexity=_best(rows),
        kneser_ney_perplexity=_number(started.get("kneser_ney_perplexity")),
        corpus_sha256=str(started.get("corpus_sha256", "")),
    )


def list_runs(folder: Path | None = None) -> list[RunSummary]:
    """All runs of a folder, latest first; what is no run is passed over."""
    folder = folder or runs_folder()
    if not folder.is_dir():
        return []
    summaries = []
    for path in folder.iterdir():
        try:
            summaries.append(summarize(path))
        except (UnusableInput, OSError, ValueError):
            continue
    return sorted(summaries, key=lambda run: run.started, reverse=True)


def summarize(path: Path) -> RunSummary:
    """What a run's files say of it.

    Raises:
        RunError: it has no readable configuration.
    """
    config = Config.from_json(_text(path / CONFIG), str(path / CONFIG))
    rows = list(read_rows(path / METRICS))
    last = rows[-1] if rows else {}
    done = (_number(row.get("epochs" if row["event"] == "finished" else "epoch")) for row in reversed(rows))
    return RunSummary(
        name=path.name,
        path=path,
        state=_state(path, last),
        preset=config.preset,
        corpus=config.data.corpus,
        mode=config.data.mode,
        epochs=next((epochs for epochs in done if epochs is not None), 0.0),
        valid_perplexity=_best(rows),
        test_perplexity=_number(last.get("test_perplexity")),
        started=(path / CONFIG).stat().st_mtime,
        bytes=sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
    )


def remove(path: Path) -> None:
    """Delete a run.

    Raises:
        RunError: it is being written, or is not ours to delete.
    """
    if summarize(path).state == "running":
        raise RunError(f"run {path.name!r} is being trained; stop it first")
    if path == assets_folder() / "model":
        raise RunError("the bundled model is part of lotr-tui and stays")
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise RunError(f"run {path} cannot be deleted: {error.strerror}") from error


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL record; a torn last line is the end, not an error."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.endswith("\n"):
                    return
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict) and isinstance(row.get("event"), str):
                    yield row
    except FileNotFoundError:
        return


def _state(path: Path, last: dict[str, Any]) -> RunState:
    """By the lock, which the kernel frees at any death of the writer, then by the last row."""
    try:
        with (path / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "running"
    except OSError:
        pass  # no lock file: nobody writes
    if last.get("event") == "finished":
        return "stopped" if last.get("reason") == "stopped" else "finished"
    return "failed" if last.get("event") == "failed" else "crashed"


def _best(rows: list[dict[str, Any]]) -> float | None:
    perplexities = (_number(row.get("valid_perplexity")) for row in rows if row["event"] in ("evaluated", "finished"))
    return min((value for value in perplexities if value is not None), default=None)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; the run is not complete") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read; the run is damaged") from error


def _tensors(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    if not path.is_file():
        raise RunError(f"{path} is missing; the run has not saved a model yet")
    if (kind := _kind_of_file(path)) != "a file":
        raise RunError(f"{path} is {kind}, not safetensors")
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is no safetensors file or a damaged one: {error}") from error


def _kind_of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return "a file that cannot be read"
    if start[8:] == b"{":  # safetensors: a number, which can look like the start of a pickle, and then JSON
        return "a file"
    pickled = start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or start[:4] == b"PK\x03\x04"
    return "a pickle, which can run code and is never loaded" if pickled else "a file"
