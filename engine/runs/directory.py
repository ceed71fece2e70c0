"""Layout of a run directory: file names, run names, configuration, lock and summary."""

import fcntl
import math
import os
import re
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from engine.config import BASE, BUNDLED, LSTM, Config
from engine.data.speakers import CAST_FILE
from engine.errors import ConfigError, InvalidInputError, RunError, printable, shell_word, suggest_nearest
from engine.events import Checkpointed, Evaluated, Failed, Finished, RecordedEvent
from engine.models.pretrained.names import SMOLLM2, is_base_stored, is_pretrained_name
from engine.runs.metrics import drop_superseded, read_events
from engine.storage.files import assets_dir, decode, default_runs_dir, open_regular_file, parse_json, read_limited

CONFIG_FILE, MODEL_FILE = "config.json", "model.safetensors"
ADAPTER_FILE, ADAPTER_CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"  # the names of PEFT
WEIGHT_FILES = (MODEL_FILE, ADAPTER_FILE)  # the best weights: of a whole model, or of an adapter
METRICS_FILE, SAMPLES_FILE, LOCK_FILE, COMMANDS_FILE = "metrics.jsonl", "samples.jsonl", "lock", "commands.jsonl"
IMPORT_FILE = "imported.json"  # in place of a configuration: program, path and name of curves by another program
# The checkpoint from which training resumes exactly, and the one before it, used if the latest one is damaged.
RESUME_FILE, PREVIOUS_RESUME_FILE = "resume.safetensors", "resume.previous.safetensors"
INITIAL_FILE = "initial.safetensors"  # weights that a fine-tuning run starts from, until the training is complete
# The models of who speaks next and of who says a text, which is larger and seldom needed.
DIALOGUE_FILE, WHO_FILE = "dialogue.json", "who.json"
DIALOGUE_FILES = (CAST_FILE, DIALOGUE_FILE, WHO_FILE)
EPOCHS_DIR = "epochs"
LATEST_RUN = "latest"  # stands for the run that was started last
BUNDLED_FOLDERS = {BUNDLED: "model", LSTM: "lstm", BASE: "base"}  # names of the included models, and folders in assets
RESERVED_RUN_NAMES = (LATEST_RUN, *BUNDLED_FOLDERS, SMOLLM2)
MAX_FILE_BYTES = 64_000_000  # a vocabulary of a million words needs about 15 million
MAX_RUN_NAME_LENGTH = 100
UNFINISHED = re.compile(r"\..+\.([0-9a-f]{12}|[0-9]+)")  # a folder of a run that is being written, or was when killed

RunState = Literal["running", "finished", "pruned", "stopped", "failed", "crashed", "imported"]
COMPLETE: tuple[RunState, ...] = ("finished", "pruned", "imported")  # cannot be resumed
T = TypeVar("T")


def check_run_name(name: str) -> None:
    """Raise a RunError unless a new run can have this name: plain in every shell, without "@", and not reserved."""
    if not re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_RUN_NAME_LENGTH - 1}}}", name):
        raise RunError(
            f"run name {name!r} is not allowed; start with a letter or digit, and use letters (a to z), digits, "
            f"'.', '_' and '-', {MAX_RUN_NAME_LENGTH} characters at most"
        )
    if name in RESERVED_RUN_NAMES:
        raise RunError(f"run name {name!r} is reserved; choose another --run name")


def run_word(run_dir: Path) -> str:
    """Return the word that names a run in a command: its name in the default runs folder, and its path elsewhere."""
    run_dir = run_dir.absolute()
    is_name = run_dir.parent == default_runs_dir().absolute() and run_dir.name not in RESERVED_RUN_NAMES
    return shell_word(run_dir.name if is_name and not run_dir.name.startswith("-") else str(run_dir))


def bundled_run_names() -> list[str]:
    return [name for name, folder in BUNDLED_FOLDERS.items() if started_at(assets_dir() / folder) is not None]


def bundled_run_name(run_dir: Path) -> str | None:
    """Return the name of a model that is shipped with lotr-tui, such as "bundled"; None for other runs."""
    return {assets_dir() / folder: name for name, folder in BUNDLED_FOLDERS.items()}.get(run_dir)


def default_run_name() -> str:
    """Return the model that is used without a name: "bundled", or "lstm" where SmolLM2 is not stored."""
    return BUNDLED if is_base_stored(SMOLLM2) else LSTM


def resolve_run(run: str | None, runs_dir: Path | None = None) -> Path:
    """Return the directory of a run, by name, path, "latest" or None for the default model, or raise a RunError."""
    runs_dir, run = runs_dir or default_runs_dir(), default_run_name() if run is None else run
    if run in BUNDLED_FOLDERS:
        return assets_dir() / BUNDLED_FOLDERS[run]
    if not run.strip():
        raise RunError("the name of the run is empty; see `lotr-tui runs`")
    if is_pretrained_name(run):
        uses = "use it in the session, with generate, eval, who and tokenize, or as --init of a training"
        raise RunError(f"{run} is a model by others, not a run of lotr-tui; {uses}")
    if run == LATEST_RUN:
        for path in sorted(find_run_dirs(runs_dir), key=lambda path: started_at(path) or 0.0, reverse=True):
            with suppress(InvalidInputError):
                read_config(path)
                return path
        raise RunError(f"there is no run in {runs_dir} yet; train one with `lotr-tui train`")
    if (run_dir := find_run(run, runs_dir)) is not None:
        return run_dir
    with suppress(OSError, RuntimeError, ValueError):  # a path that is too long, an unknown user, a zero byte
        path = Path(run).expanduser()
        if started_at(path) is not None:
            return path
        if path.exists():
            kind = f"folder without {CONFIG_FILE}" if path.is_dir() else "file"
            raise RunError(f"--run {run} is a {kind}; a run has {CONFIG_FILE}, a tokenizer and {MODEL_FILE}")
    hint = suggest_nearest(run, [path.name for path in find_run_dirs(runs_dir)])
    raise RunError(f"run {run!r} is neither in {runs_dir} nor a path{hint} See `lotr-tui runs`")


def find_run(name: str, runs_dir: Path) -> Path | None:
    """Return the folder of the run with this name in `runs_dir`, also as a list of runs prints it, or None."""
    if name == Path(name).name != ".." and name and started_at(runs_dir / name) is not None:
        return runs_dir / name
    return next((path for path in find_run_dirs(runs_dir) if printable(path.name) == name), None)


def find_run_dirs(runs_dir: Path) -> list[Path]:
    """Return the folders of runs; an empty list if `runs_dir` is missing or unreadable."""
    try:
        folders = [path for path in runs_dir.iterdir() if not UNFINISHED.fullmatch(path.name)]
        return [path for path in folders if started_at(path) is not None]
    except OSError:
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
        return read_limited(path, MAX_FILE_BYTES).decode()
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; the run is not complete") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "not UTF-8")
        raise RunError(f"{path} cannot be read: {reason}; the run is damaged") from error


def read_json(type_: type[T], path: Path) -> T:
    """Return the content of a JSON file that a run must have, or raise a RunError."""
    content = read_text(path)
    try:
        return decode(type_, parse_json(content))
    except InvalidInputError as error:
        raise RunError(f"{path} is damaged: {str(error).removesuffix('.')}; train a new run") from error


def read_config(run_dir: Path) -> Config:
    """Read the configuration of a run; a missing file raises a RunError, and a damaged one a ConfigError."""
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


def is_locked(run_dir: Path) -> bool:
    """Return True if a process holds the lock of a run, to train it. A missing or unreadable lock is not held."""
    try:
        with os.fdopen(open_regular_file(run_dir / LOCK_FILE), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False


def lock_owner(run_dir: Path) -> str:
    """Return the description of the process that holds or held the lock of a run; "" if there is none."""
    with suppress(OSError), os.fdopen(open_regular_file(run_dir / LOCK_FILE), errors="replace") as file:
        return printable(file.read(100))
    return ""


@dataclass(frozen=True)
class RunSummary:
    """One row of the list of runs."""

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
    architecture: str
    pretrained_on_other_text: bool = False


def list_runs(runs_dir: Path | None = None) -> list[RunSummary]:
    """Return the readable runs of a folder, latest first."""
    summaries = []
    for path in find_run_dirs(runs_dir or default_runs_dir()):
        with suppress(InvalidInputError, OSError, ValueError):
            summaries.append(summarize_run(path))
    return sorted(summaries, key=lambda run: run.started_at, reverse=True)


def summarize_run(run_dir: Path) -> RunSummary:
    """Read the summary of a run; a missing or damaged configuration raises an InvalidInputError."""
    if (run_dir / IMPORT_FILE).exists():
        imported = read_json(dict[str, str], run_dir / IMPORT_FILE)
        facts = imported.get("program", "?"), imported.get("path", "?"), "?", "?", False
    else:
        config = read_config(run_dir)
        facts = config.preset, config.data.corpus, config.data.mode, config.model.architecture, needs_base(config)
    preset, corpus, mode, architecture, is_pretrained = facts
    all_events = list(read_events(run_dir / METRICS_FILE, subsample=True))
    events = drop_superseded(all_events)
    epochs = [event.epochs if isinstance(event, Finished) else getattr(event, "epoch", 0.0) for event in events]
    tests = [finite_or_none(event.test_perplexity) for event in events if isinstance(event, Finished)]
    return RunSummary(
        name=run_dir.name,
        path=run_dir,
        state=run_state(run_dir, events),
        preset=preset,
        corpus=corpus,
        mode=mode,
        epochs=max(filter(math.isfinite, epochs), default=0.0),
        valid_perplexity=saved_perplexity(all_events),
        test_perplexity=tests[-1] if tests else None,
        started_at=started_at(run_dir) or 0.0,
        size_bytes=directory_size(run_dir),
        architecture=architecture,
        pretrained_on_other_text=is_pretrained,
    )


def run_state(run_dir: Path, events: Sequence[RecordedEvent]) -> RunState:
    """Return the state of a run; `events` are its events without superseded ones."""
    if (run_dir / IMPORT_FILE).exists():
        return "imported"
    return "running" if is_locked(run_dir) else end_state(events)


def end_state(events: Sequence[RecordedEvent]) -> RunState:
    """Return how a training ended that no process continues; events about files can follow its end."""
    end = next((event for event in reversed(events) if isinstance(event, (Finished, Failed))), None)
    if isinstance(end, Finished):
        states: dict[str, RunState] = {"pruned": "pruned", "stopped": "stopped", "detached": "stopped"}
        return states.get(end.reason, "finished")
    return "failed" if end else "crashed"


def saved_perplexity(events: Iterable[RecordedEvent]) -> float | None:
    """Return the validation perplexity of the saved model file; None if no model was saved.

    `events` are all events of the run, including superseded ones, because resuming a training leaves the file as it is.
    """
    perplexities: dict[int, float] = {}
    saved = math.nan
    for event in events:
        if isinstance(event, Evaluated):
            perplexities[event.step] = event.valid_perplexity
        elif isinstance(event, Checkpointed) and event.file in WEIGHT_FILES:
            saved = perplexities.get(event.step, math.nan)  # a file can be written late, after other evaluations
        elif isinstance(event, Finished) and math.isfinite(event.valid_perplexity):  # all files are written then
            saved = event.valid_perplexity
    return finite_or_none(saved)


def finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def directory_size(path: Path) -> int:
    """Return the total size in bytes of the files in a folder."""
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):  # a training replaces files meanwhile
                size += (Path(folder) / name).lstat().st_size
    return size
