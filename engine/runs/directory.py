"""Run directories: names, files, configurations, recorded events and summaries."""

import fcntl
import math
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from engine import errors, events
from engine.config import BASE, BUNDLED, LSTM, Config
from engine.errors import ConfigError, InvalidInputError, RunError
from engine.models.pretrained import names as pretrained_names
from engine.storage import files

CONFIG_FILE, MODEL_FILE = "config.json", "model.safetensors"
ADAPTER_FILE, ADAPTER_CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"  # the names of PEFT
WEIGHT_FILES = (MODEL_FILE, ADAPTER_FILE)  # the best weights: of a whole model, or of an adapter
METRICS_FILE, SAMPLES_FILE, LOCK_FILE, COMMANDS_FILE = "metrics.jsonl", "samples.jsonl", "lock", "commands.jsonl"
IMPORT_FILE = "imported.json"  # in place of a configuration: program, path and name of curves by another program
RESUME_FILE, INITIAL_FILE = "resume.safetensors", "initial.safetensors"  # the latter until there is a checkpoint
DIALOGUE_FILE, WHO_FILE = "dialogue.json", "who.json"  # models of who speaks next, and of who says a text
EPOCHS_DIR = "epochs"
LATEST_RUN = "latest"  # stands for the run that was started last
BUNDLED_FOLDERS = {BUNDLED: "model", LSTM: "lstm", BASE: "base"}  # names of the included models, and folders in assets
RESERVED_RUN_NAMES = (LATEST_RUN, *BUNDLED_FOLDERS, pretrained_names.SMOLLM2)
MAX_RUN_NAME_LENGTH = 100
UNFINISHED = re.compile(r"\..+\.[0-9a-f]{12}")  # a folder of a run that is being written, or was when killed
MAX_FILE_BYTES = 64_000_000  # a vocabulary of a million words needs about 15 million
MAX_RECORD_BYTES = 4_000_000_000  # larger files of events are not read; two months of steps take less
MAX_LINE_BYTES = 1_000_000  # longer lines are skipped
MAX_OTHER_LINES = 300_000  # lines other than steps; a checkpoint every 30 s writes fewer in 100 days
READ_CHUNK_BYTES = 1 << 16  # larger buffers are returned to the system after each read, which makes reading slower

RunState = Literal["running", "finished", "pruned", "stopped", "failed", "crashed", "imported"]
COMPLETE: tuple[RunState, ...] = ("finished", "pruned", "imported")  # cannot be resumed
END_EVENTS = (events.Finished, events.Failed)
END_STATES: dict[str, RunState] = {"stopped": "stopped", "detached": "stopped", "pruned": "pruned"}  # else "finished"
T = TypeVar("T")
_STEP_PREFIX = b'{"event": "step"'
_LINES_PREFIX = b'{"event": "lines_scored"'
_DROPPED = b"\0"  # stands for the beginning of a line that is too long; no line with it is valid
_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# Other nested values are refused: empty lists take 30 times their size in the file as memory.
_decode_row = msgspec.json.Decoder(dict[str, _Integer | float | str | bool | None]).decode
_decode_step = msgspec.json.Decoder(events.Step).decode
_decode_lines = msgspec.json.Decoder(events.LinesScored).decode


def check_run_name(name: str) -> None:
    """Raise a RunError unless a new run can have this name: plain in every shell, without "@", and not reserved."""
    if not re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_RUN_NAME_LENGTH - 1}}}", name):
        form = f"letters (a to z), digits, '.', '_' and '-', {MAX_RUN_NAME_LENGTH} characters at most"
        raise RunError(f"run name {name!r} is not allowed; start with a letter or digit, and use {form}")
    if name in RESERVED_RUN_NAMES:
        raise RunError(f"run name {name!r} is reserved; choose another --run name")


def run_word(run_dir: Path) -> str:
    """Return the word that names a run in a command: its name in the default runs folder, and its path elsewhere."""
    run_dir = run_dir.absolute()
    is_name = run_dir.parent == files.default_runs_dir().absolute() and run_dir.name not in RESERVED_RUN_NAMES
    return errors.shell_word(run_dir.name if is_name and not run_dir.name.startswith("-") else str(run_dir))


def bundled_runs() -> dict[Path, str]:
    """Return the name of each model that is shipped with lotr-tui, such as "bundled", by its run directory."""
    folders = {files.assets_dir() / folder: name for name, folder in BUNDLED_FOLDERS.items()}
    return {path: name for path, name in folders.items() if (path / CONFIG_FILE).is_file()}


def resolve_run(run: str | None, runs_dir: Path | None = None) -> Path:
    """Return the directory of a run, by name, path, "latest" or None for the default model, or raise a RunError."""
    runs_dir = runs_dir or files.default_runs_dir()
    if run is None:
        run = BUNDLED if pretrained_names.is_base_stored(pretrained_names.SMOLLM2) else LSTM
    if run in BUNDLED_FOLDERS:
        return files.assets_dir() / BUNDLED_FOLDERS[run]
    if pretrained_names.is_pretrained_name(run):
        raise RunError(f"{run} is a model by others, not a run of lotr-tui; generate, eval and --init can use it")
    if run == LATEST_RUN:
        for path in sorted(find_run_dirs(runs_dir), key=lambda path: started_at(path) or 0.0, reverse=True):
            with suppress(InvalidInputError):
                read_config(path)
                return path
        raise RunError(f"there is no run in {runs_dir} yet; train one with `lotr-tui train`")
    if (run_dir := find_run(run, runs_dir)) is not None:
        return run_dir
    path, kind = Path(run), ""
    with suppress(OSError, RuntimeError, ValueError):  # a path that is too long, an unknown user, a zero byte
        path = path.expanduser()
        kind = f"folder without {CONFIG_FILE}" if path.is_dir() else "file" if path.exists() else ""
    if started_at(path) is not None:
        return path
    if kind:
        raise RunError(f"--run {path} is a {kind}; a run has {CONFIG_FILE}, a tokenizer and {MODEL_FILE}")
    hint = errors.suggest_nearest(run, [path.name for path in find_run_dirs(runs_dir)])
    raise RunError(f"run {run!r} is neither in {runs_dir} nor a path{hint} See `lotr-tui runs`")


def find_run(name: str, runs_dir: Path) -> Path | None:
    """Return the folder of the run with this name in `runs_dir`, also as a list of runs prints it, or None."""
    return {form(path.name): path for form in (errors.printable, str) for path in find_run_dirs(runs_dir)}.get(name)


def find_run_dirs(runs_dir: Path) -> list[Path]:
    """Return the folders of runs; an empty list if `runs_dir` is missing or unreadable."""
    with suppress(OSError):
        return [run for run in runs_dir.iterdir() if not UNFINISHED.fullmatch(run.name) and started_at(run) is not None]
    return []


def started_at(run_dir: Path) -> float | None:
    """Return when a run was started, in seconds since 1970; None if the folder is not a readable run."""
    for name in (CONFIG_FILE, IMPORT_FILE):
        with suppress(OSError, ValueError):  # a name with a zero byte
            status = (run_dir / name).stat()
            return status.st_mtime if stat.S_ISREG(status.st_mode) else None
    return None


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file that a run must have, or raise a RunError."""
    try:
        return files.read_limited(path, MAX_FILE_BYTES).decode()
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; the run is not complete") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8; the run is damaged"
        raise RunError(f"{path} cannot be read: {reason}") from error


def read_json(type_: type[T], path: Path) -> T:
    """Return the content of a JSON file that a run must have, or raise a RunError."""
    content = read_text(path)
    try:
        return files.decode(type_, files.parse_json(content))
    except InvalidInputError as error:
        raise RunError(f"{path} is damaged: {str(error).removesuffix('.')}; train a new run") from error


def read_config(run_dir: Path) -> Config:
    """Read the configuration of a run. A file that is missing or unreadable raises a RunError, others a ConfigError."""
    if not (run_dir / CONFIG_FILE).exists() and (run_dir / IMPORT_FILE).exists():
        raise RunError(f"run {run_dir.name!r} was imported: it has curves, but neither a configuration nor a model")
    try:
        return Config.from_json(read_text(run_dir / CONFIG_FILE), str(run_dir / CONFIG_FILE))
    except ConfigError as error:
        reason = f"is damaged, or was written by another version of lotr-tui ({str(error).removesuffix('.')})"
        raise ConfigError(f"run {run_dir.name!r} {reason}; train a new run") from error


def needs_base(config: Config) -> bool:
    """Return True for a run that needs the tokenizer, or as an adapter also the weights, of a pre-trained model."""
    return config.data.tokenizer == "pretrained"


def lock_owner(run_dir: Path) -> str:
    """Return the process that holds the lock of a run, to train it, such as "process 7 on moria", or ""."""
    with suppress(OSError), os.fdopen(files.open_regular_file(run_dir / LOCK_FILE), errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment, which LOCK_TIMEOUT of a training covers
        except BlockingIOError:
            return errors.printable(file.read(100)) or "another process"
    return ""


@dataclass(frozen=True)
class RunSummary:
    name: str
    path: Path
    state: RunState
    preset: str
    corpus: str
    mode: str
    epochs: float  # completed ones, with fraction
    valid_perplexity: float | None  # of the saved model; None if no model is saved yet
    test_perplexity: float | None
    started_at: float
    size_bytes: int
    architecture: str = "?"
    pretrained_on_other_text: bool = False
    tokens_per_character: float = 0.0  # if losses are shown in bits per character, see `Started`; else 0
    nothing_learned: str = ""  # what its best model is if that is the one before the first step


def list_runs(runs_dir: Path | None = None) -> list[RunSummary]:
    """Return the readable runs of a folder, latest first."""
    summaries = []
    for path in find_run_dirs(runs_dir or files.default_runs_dir()):
        with suppress(InvalidInputError, OSError, ValueError):
            summaries.append(summarize_run(path))
    return sorted(summaries, key=lambda run: run.started_at, reverse=True)


def summarize_run(run_dir: Path) -> RunSummary:
    """Read the summary of a run; a missing or damaged configuration raises an InvalidInputError."""
    facts: dict[str, Any]
    recorded = list(read_events(run_dir / METRICS_FILE, subsample=True))
    if (run_dir / IMPORT_FILE).exists():
        imported = read_json(dict[str, str], run_dir / IMPORT_FILE)
        facts = {"preset": imported.get("program", "?"), "corpus": imported.get("path", "?"), "mode": "?"}
    else:
        config = read_config(run_dir)
        facts = {"preset": config.preset, "corpus": config.data.corpus, "mode": config.data.mode}
        facts |= {"architecture": config.model.architecture, "pretrained_on_other_text": needs_base(config)}
        facts["nothing_learned"] = describe_step_0(config, recorded)
    current = drop_superseded(recorded)
    epochs = [getattr(event, "epochs" if isinstance(event, events.Finished) else "epoch", 0.0) for event in current]
    rates = [event.tokens_per_character for event in current if isinstance(event, events.Started)]
    tests = [finite_or_none(event.test_perplexity) for event in current if isinstance(event, events.Finished)]
    return RunSummary(
        name=run_dir.name,
        path=run_dir,
        state=run_state(run_dir, current),
        epochs=max(filter(math.isfinite, epochs), default=0.0),
        valid_perplexity=saved_perplexity(recorded),
        test_perplexity=tests[-1] if tests else None,
        started_at=started_at(run_dir) or 0.0,
        size_bytes=directory_size(run_dir),
        tokens_per_character=rates[-1] if rates else 0.0,
        **facts,
    )


def run_state(run_dir: Path, recorded: Sequence[events.RecordedEvent]) -> RunState:
    """Return the state of a run; `recorded` are its events without superseded ones."""
    if (run_dir / IMPORT_FILE).exists():
        return "imported"
    return "running" if lock_owner(run_dir) else end_state(recorded)


def end_state(recorded: Sequence[events.RecordedEvent]) -> RunState:
    """Return the state of a run that no process trains; `recorded` are its events without superseded ones."""
    # Events about files can follow the end.
    end = next((event for event in reversed(recorded) if isinstance(event, END_EVENTS)), None)
    if isinstance(end, events.Finished):
        return END_STATES.get(end.reason, "finished")
    return "failed" if end else "crashed"


def saved_perplexity(recorded: Iterable[events.RecordedEvent], epoch: int | None = None) -> float | None:
    """Return the validation perplexity of the best saved weights, or of the ones after `epoch`; None if unknown."""
    if epoch is not None:
        evaluations = [event for event in drop_superseded(recorded) if isinstance(event, events.Evaluated)]
        return finite_or_none({each.epoch: each.valid_perplexity for each in evaluations}.get(epoch, math.nan))
    perplexities, saved = dict[int, float](), math.nan
    # Superseded events count: resuming a training leaves the file of the best weights as it is.
    for event in recorded:
        if isinstance(event, events.Evaluated):
            perplexities[event.step] = event.valid_perplexity
        elif isinstance(event, events.Checkpointed) and event.file in WEIGHT_FILES:
            saved = perplexities.get(event.step, math.nan)  # a file can be written late, after other evaluations
        elif isinstance(event, events.Finished) and math.isfinite(event.valid_perplexity):  # all files are written then
            saved = event.valid_perplexity
    return finite_or_none(saved)


def describe_step_0(config: Config, recorded: Iterable[events.RecordedEvent]) -> str:
    """Return a line about a run whose best model is the one before the first step, and "" about others."""
    saved = [each.step for each in recorded if isinstance(each, events.Checkpointed) and each.file in WEIGHT_FILES]
    if saved[-1:] != [0]:
        return ""
    return f"nothing learned yet: step 0, plain {config.training.init or 'random weights'}"


def finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def directory_size(path: Path) -> int:
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):  # a training replaces files meanwhile
                size += (Path(folder) / name).lstat().st_size
    return size


class RecordFollower:
    """Incremental reader of a file of lines that another process may be writing, whatever the file contains."""

    def __init__(self, path: Path, parse: Callable[[bytes], Any] | None = None, *, subsample: bool = False) -> None:
        # Lines for which `parse` returns None are skipped; `subsample` skips nearly all steps before another step.
        self.path, self._parse, self._subsample = path, parse or parse_event, subsample
        self.at_end = False  # True if the last call read to the end of the file
        self.is_replaced = False  # True if the last call found another file, whose records replace the earlier ones
        self.fraction_read, self.file_size = 0.0, 0
        self.problem = ""  # reason why the file cannot be read
        self._identity: tuple[int, int] | None = None  # device and inode
        self._offset = self._num_others = 0
        self._start_of_line = b""

    def read(self, max_seconds: float = 0.0) -> list[Any]:
        """Read the records that were added, for `max_seconds` and until a line is complete."""
        deadline = time.perf_counter() + max_seconds
        added: list[Any] = []
        self.is_replaced, self.at_end, self.problem = False, True, ""
        try:
            with os.fdopen(files.open_regular_file(self.path), "rb") as file:
                status = os.fstat(file.fileno())
                identity, self.file_size = (status.st_dev, status.st_ino), status.st_size
                if self._offset and (identity != self._identity or self.file_size < self._offset):
                    self._offset, self._num_others, self._start_of_line, self.is_replaced = 0, 0, b"", True
                self._identity = identity
                if self.file_size > MAX_RECORD_BYTES or self._num_others > MAX_OTHER_LINES:
                    self.problem = "larger than any file that lotr-tui writes"
                    return []
                file.seek(self._offset)
                rest, self.at_end = self._start_of_line, False
                while not self.at_end and self._num_others <= MAX_OTHER_LINES:
                    chunk = file.read(READ_CHUNK_BYTES)
                    self.at_end = len(chunk) < READ_CHUNK_BYTES
                    *lines, rest = (rest + chunk).split(b"\n")
                    if len(rest) > MAX_LINE_BYTES:
                        rest = _DROPPED
                    is_step = [line.startswith(_STEP_PREFIX) and line.endswith(b"}") for line in lines]
                    self._num_others += len(lines) - sum(is_step)
                    if self._subsample:
                        precedes_step = zip(lines, is_step, [*is_step[1:], False], strict=False)
                        lines = [line for line, step, next_is_step in precedes_step if not (step and next_is_step)]
                    added += [record for line in lines if (record := self._parse(line)) is not None]
                    if (lines or rest[:1] == _DROPPED) and time.perf_counter() >= deadline:  # each call makes progress
                        break
                # An unfinished line is read again, since the next writer may remove it.
                self._start_of_line = rest if rest[:1] == _DROPPED else b""
                self._offset = file.tell() - len(rest) + len(self._start_of_line)
                self.fraction_read = min(1.0, self._offset / max(1, self.file_size))
        except OSError as error:
            self.problem, self._identity = error.strerror or type(error).__name__, None
        return added


def parse_event(line: bytes) -> events.RecordedEvent | None:
    if line.startswith(_STEP_PREFIX):  # most lines
        try:
            return _decode_step(line)
        except (msgspec.DecodeError, ValueError):  # null for a number that is not finite
            pass
    try:
        return _decode_lines(line) if line.startswith(_LINES_PREFIX) else events.event_from_dict(_decode_row(line))
    except (msgspec.DecodeError, ValueError):  # also NaN and numbers beyond the range of a float
        return None


def read_events(path: Path, *, subsample: bool = False) -> Iterator[events.RecordedEvent]:
    """Yield the events that a file contains now: none without a file. A file that is too large raises a RunError."""
    follower = RecordFollower(path, subsample=subsample)
    while not follower.at_end:
        yield from follower.read(0)
    if follower.problem and follower.file_size:  # it was opened, but not read to its end
        raise RunError(f"{path} cannot be read: {follower.problem}")


def drop_superseded(recorded: Iterable[events.RecordedEvent]) -> list[events.RecordedEvent]:
    """Drop the steps that a resumed training repeats, from the step of its `Resume`, and the earlier end."""
    kept: list[events.RecordedEvent] = []
    for event in recorded:
        if isinstance(event, events.Resume):
            kept = [old for old in kept if getattr(old, "step", -1) < event.step and not isinstance(old, END_EVENTS)]
        kept.append(event)
    return kept
