"""The run directory as it is read: what a training was, how it went, and the models it left."""

import contextlib
import fcntl
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.config import BUNDLED, Config
from engine.data.vocabulary import Vocabulary
from engine.errors import RunError, UnusableInput, nearest, printable
from engine.models.numpy_lstm import Decoder, weight_shapes
from engine.runs.metrics import current_rows
from engine.storage.files import assets_folder, open_file, read_file, runs_folder
from engine.storage.tensor_file import kind_of_file, read_weights

CONFIG, VOCABULARY, MODEL = "config.json", "vocabulary.json", "model.safetensors"
METRICS, SAMPLES, LOG, LOCK = "metrics.jsonl", "samples.jsonl", "log.txt", "lock"
RESUME = "resume.safetensors"
"""All that is needed to go on exactly where a training was left."""
PREVIOUS = "resume.previous.safetensors"
"""The same of the saving before, should the last one be damaged."""
REQUESTS = "requests.jsonl"
"""What other processes ask of whoever trains the run."""
EPOCHS = "epochs"
"""The folder of the models kept along the way."""
LATEST = "latest"
MOST_OF_CONFIG, MOST_OF_VOCABULARY = 1_000_000, 64_000_000
"""Bytes that are read; a million words have some 15 million."""
PRECISIONS = ("fp32", "int8")
"""What a model can be played in."""

RunState = Literal["running", "finished", "stopped", "failed", "crashed"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a run may be called: no separator of folders, and no @, behind which an epoch stands."""
_RUN_AT_EPOCH = re.compile(r"(.+)@([0-9]{1,9})", re.DOTALL)


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
class KeptEpoch:
    """A model kept along the way: as it stood after so many whole epochs, the best or not."""

    epoch: int
    valid_perplexity: float | None
    """None where the record does not say."""


@dataclass(frozen=True)
class LoadedModel:
    """A run's model, ready to be played, and what is known of it."""

    name: str
    """The run's; of one of its epochs RUN@EPOCH."""
    path: Path
    """The run directory."""
    config: Config
    decoder: Decoder
    valid_perplexity: float | None
    kneser_ney_perplexity: float | None
    corpus_sha256: str
    """Of the corpus it was trained on; empty where the record does not say."""
    epoch: int | None = None
    """None: the best model."""


def resolve(run: str | None, folder: Path | None = None) -> Path:
    """The directory of a run: a name in the runs folder, a path, "latest", or None for the bundled model.

    Raises:
        RunError: there is no such run.
    """
    if run is None or run == BUNDLED:
        return assets_folder() / "model"
    folder = folder or runs_folder()
    if run == LATEST:
        return _latest(folder)
    if NAME.fullmatch(run) and (folder / run / CONFIG).is_file():
        return folder / run
    path = Path(run)
    try:
        path = path.expanduser()
        is_file, is_run, is_folder = path.is_file(), (path / CONFIG).is_file(), path.is_dir()
    except (OSError, RuntimeError, ValueError):  # longer than a path can be; the home of nobody; a zero byte
        is_file = is_run = is_folder = False
    if is_file:
        raise RunError(
            f"--run {run} is {kind_of_file(path)}; a run is a folder with {CONFIG}, {VOCABULARY} and {MODEL}"
        )
    if is_run:
        return path
    if is_folder:
        raise RunError(f"--run {run} is a folder without {CONFIG}, so it is no run; see `lotr-tui runs`")
    names = [path.name for path in _run_folders(folder)]
    raise RunError(f"run {run!r} is neither in {folder} nor a path{nearest(run, names)} See `lotr-tui runs`")


def load_named(name: str | None, folder: Path | None = None, precision: str = "fp32") -> LoadedModel:
    """Load the model that `name` means: the best of a run, named as `resolve` has it, or RUN@EPOCH.

    In "int8" its large weights are rounded to 8 bits.

    Raises:
        UnusableInput: there is no such run, epoch or precision, the run is damaged, or numkong is missing.
    """
    if precision not in PRECISIONS:
        raise UnusableInput(f"--precision {precision} is unknown; a model is played in {' or '.join(PRECISIONS)}")
    named = _RUN_AT_EPOCH.fullmatch(name or "")
    loaded = load(resolve(name, folder)) if named is None else load(resolve(named[1], folder), int(named[2]))
    if precision == "fp32":
        return loaded
    exact = loaded.decoder
    return replace(loaded, decoder=Decoder(exact.config, exact.vocabulary, exact.weights, int8=True))


def load(path: Path, epoch: int | None = None) -> LoadedModel:
    """Load a run's best model, or that of a kept epoch, for playing; no pickle is ever read.

    Raises:
        RunError: a file is missing, damaged, or of another kind; the epoch was not kept.
        ConfigError: the configuration is damaged.
    """
    config, vocabulary = read_start(path)
    rows = current_rows(path / METRICS, outline=True)
    name = BUNDLED if path == assets_folder() / "model" else path.name
    file, perplexity = path / MODEL, _best(rows)
    if epoch is not None:
        file, perplexity = _file_of_kept(path, epoch, name), _perplexity_at(rows, epoch)
        name = at_epoch(name, epoch)
    tensors = read_weights(file, weight_shapes(config.model, len(vocabulary)))
    try:
        decoder = Decoder(config.model, vocabulary, tensors)
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
    started = next((row for row in rows if row["event"] == "started"), {})
    return LoadedModel(
        name=name,
        path=path,
        config=config,
        decoder=decoder,
        valid_perplexity=perplexity,
        kneser_ney_perplexity=_number(started.get("kneser_ney_perplexity")),
        corpus_sha256=str(started.get("corpus_sha256", "")),
        epoch=epoch,
    )


def read_start(path: Path) -> tuple[Config, Vocabulary]:
    """The configuration and vocabulary that a run was begun with.

    Raises:
        RunError: the vocabulary is missing or damaged.
        ConfigError: the configuration is damaged.
    """
    config, file = read_config(path), path / VOCABULARY
    return config, Vocabulary.from_json(_text(file, MOST_OF_VOCABULARY), str(file), config.data.tokenizer)


def at_epoch(name: str, epoch: int) -> str:
    """How the model of a run at an epoch is named: RUN@EPOCH."""
    return f"{name}@{epoch}"


def epoch_file(path: Path, epoch: int) -> Path:
    """Where a run keeps the weights of an epoch."""
    return path / EPOCHS / f"{epoch}.safetensors"


def kept_epochs(path: Path) -> list[KeptEpoch]:
    """The epochs whose model a run keeps, the first one first; none where it keeps none, or is no run."""
    files = (path / EPOCHS).glob("*.safetensors")
    epochs = [int(file.stem) for file in files if re.fullmatch("[1-9][0-9]*", file.stem)]
    rows = current_rows(path / METRICS, outline=True) if epochs else []
    return [KeptEpoch(epoch, _perplexity_at(rows, epoch)) for epoch in sorted(epochs)]


def list_runs(folder: Path | None = None) -> list[RunSummary]:
    """All runs of a folder, latest first; what is no run is passed over."""
    summaries = []
    for path in _run_folders(folder or runs_folder()):
        try:
            summaries.append(summarize(path))
        except (UnusableInput, OSError, ValueError):
            continue
    return sorted(summaries, key=lambda run: run.started, reverse=True)


def _run_folders(folder: Path) -> list[Path]:
    """Where a run may be; none where the folder is missing or closed to us."""
    try:
        return [path for path in folder.iterdir() if _begun(path) is not None]
    except OSError:
        return []


def _begun(path: Path) -> float | None:
    """When a run was begun, in seconds since 1970; None where the folder holds none, or is closed to us."""
    try:
        status = (path / CONFIG).stat()
    except OSError:
        return None
    return status.st_mtime if stat.S_ISREG(status.st_mode) else None


def _latest(folder: Path) -> Path:
    """The run that was begun last; only as much is read as that takes.

    Raises:
        RunError: there is none.
    """
    for path in sorted(_run_folders(folder), key=lambda path: _begun(path) or 0.0, reverse=True):
        try:
            read_config(path)
        except UnusableInput:
            continue
        return path
    raise RunError(f"there is no run in {folder} yet; `lotr-tui train` makes one")


def summarize(path: Path) -> RunSummary:
    """What a run's files say of it.

    Raises:
        RunError: it has no readable configuration.
    """
    config = read_config(path)
    rows = current_rows(path / METRICS, outline=True)
    last = _last(rows)
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
        bytes=_bytes_in(path),
    )


def _bytes_in(path: Path) -> int:
    """Of the files in a folder; a training that goes on replaces some meanwhile."""
    found = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                found += (Path(folder) / name).lstat().st_size
    return found


def writer(path: Path) -> str:
    """Who is training a run, or did last, as that wrote it into the lock; "" where nothing stands there."""
    try:
        with os.fdopen(open_file(path / LOCK), encoding="utf-8", errors="replace") as lock:
            return printable(lock.read(100))
    except OSError:
        return ""


def check_name(name: str) -> None:
    """See that a run can be called that.

    Raises:
        RunError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise RunError(f"run name {name!r} is no folder name; use letters, digits, '.', '_' and '-'")
    if name in (LATEST, BUNDLED):
        raise RunError(f"run name {name!r} means another run already; choose another --run name")


def is_written(path: Path) -> bool:
    """Whether a process is training the run: by its lock, which the kernel frees at any death."""
    try:
        with os.fdopen(open_file(path / LOCK)) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # no lock file: nobody writes
    return False


def is_finished(path: Path) -> bool:
    """Whether the training of a run came to its end, by its record."""
    return _ended(_last(current_rows(path / METRICS, outline=True))) == "finished"


def _last(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row that tells how it ended; behind that it may only be told what could be written and what not."""
    return next((row for row in reversed(rows) if row["event"] not in ("checkpointed", "warned")), {})


def _state(path: Path, last: dict[str, Any]) -> RunState:
    """By the lock, then by the last row."""
    return "running" if is_written(path) else _ended(last)


def _ended(last: dict[str, Any]) -> RunState:
    """How a training ended that goes on no more."""
    if last.get("event") == "finished":
        return "stopped" if last.get("reason") in ("stopped", "detached") else "finished"
    return "failed" if last.get("event") == "failed" else "crashed"


def _best(rows: list[dict[str, Any]]) -> float | None:
    perplexities = (_number(row.get("valid_perplexity")) for row in rows if row["event"] in ("evaluated", "finished"))
    return min((value for value in perplexities if value is not None), default=None)


def _perplexity_at(rows: list[dict[str, Any]], epoch: int) -> float | None:
    """That of the evaluation after so many epochs; the latest, should there be several."""
    found = [row for row in rows if row["event"] == "evaluated" and row.get("epoch") == epoch]
    return _number(found[-1].get("valid_perplexity")) if found else None


def _file_of_kept(path: Path, epoch: int, name: str) -> Path:
    """The weights of an epoch.

    Raises:
        RunError: they were not kept; it names those that were.
    """
    kept = [str(item.epoch) for item in kept_epochs(path)]
    if not kept:
        raise RunError(f"run {name!r} has kept no epochs, so there is no {at_epoch(name, epoch)}, only its best model")
    if str(epoch) not in kept:
        raise RunError(f"run {name!r} has not kept epoch {epoch}; it has kept {', '.join(kept)}, and its best model")
    return epoch_file(path, epoch)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def read_config(path: Path) -> Config:
    """The configuration of a run directory.

    Raises:
        RunError: it is missing or cannot be read.
        ConfigError: it is damaged.
    """
    return Config.from_json(_text(path / CONFIG, MOST_OF_CONFIG), str(path / CONFIG))


def _text(path: Path, most: int) -> str:
    try:
        return read_file(path, most).decode()
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; the run is not complete") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} cannot be read: it is not UTF-8; the run is damaged") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; the run is damaged") from error
