"""Layout of a run directory: file names, run names, configuration and lock."""

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from engine.config import BASE, BUNDLED, LSTM, Config
from engine.data.speakers import CAST_FILE
from engine.errors import ConfigError, InvalidInputError, RunError, printable, shell_word, suggest_nearest
from engine.models.pretrained.names import SMOLLM2, is_base_stored, is_pretrained_name
from engine.storage import files
from engine.storage.files import assets_dir, default_runs_dir, open_regular_file
from engine.storage.schema import read_run_text

CONFIG_FILE, MODEL_FILE = "config.json", "model.safetensors"
ADAPTER_FILE, ADAPTER_CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"  # the names of PEFT
WEIGHT_FILES = (MODEL_FILE, ADAPTER_FILE)
"""Files of the best weights: of a whole model, or of an adapter."""
METRICS_FILE, SAMPLES_FILE, LOCK_FILE, COMMANDS_FILE = "metrics.jsonl", "samples.jsonl", "lock", "commands.jsonl"
IMPORT_FILE = "imported.json"
"""Origin of curves by another program, in place of a configuration: program, path and name of the curve."""
RESUME_FILE, PREVIOUS_RESUME_FILE = "resume.safetensors", "resume.previous.safetensors"
"""Checkpoint from which training resumes exactly, and the one before it, used if the latest one is damaged."""
INITIAL_FILE = "initial.safetensors"
"""Weights that a fine-tuning run starts from, kept until the training is complete."""
DIALOGUE_FILE, WHO_FILE = "dialogue.json", "who.json"
"""Files of the models of who speaks next and of who says a text, which is larger and seldom needed."""
DIALOGUE_FILES = (CAST_FILE, DIALOGUE_FILE, WHO_FILE)
EPOCHS_DIR = "epochs"
LATEST_RUN = "latest"
"""Run name that stands for the run that was started last."""
BUNDLED_FOLDERS = {BUNDLED: "model", LSTM: "lstm", BASE: "base"}
"""Run names that stand for the models shipped with lotr-tui, with their folders in the assets."""
RESERVED_RUN_NAMES = (LATEST_RUN, *BUNDLED_FOLDERS, SMOLLM2)
MAX_CONFIG_BYTES, MAX_VOCABULARY_BYTES = 1_000_000, 64_000_000
"""Size limits in bytes; a vocabulary of a million words needs about 15 million."""
MAX_RUN_NAME_LENGTH = 100
_UNFINISHED = re.compile(r"\..+\.([0-9a-f]{12}|[0-9]+)")  # a folder of a run that is being written, or was when killed


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
    return [name for name, folder in BUNDLED_FOLDERS.items() if is_run(assets_dir() / folder)]


def bundled_run_name(run_dir: Path) -> str | None:
    """Return the name of a model that is shipped with lotr-tui, such as "bundled"; None for other runs."""
    return {assets_dir() / folder: name for name, folder in BUNDLED_FOLDERS.items()}.get(run_dir)


def default_run_name() -> str:
    """Return the model that is used without a name: "bundled", or "lstm" where SmolLM2 is not stored."""
    return BUNDLED if is_base_stored(SMOLLM2) else LSTM


def epoch_model_name(name: str, epoch: int) -> str:
    return f"{name}@{epoch}"


def epoch_weights_path(run_dir: Path, epoch: int) -> Path:
    return run_dir / EPOCHS_DIR / f"{epoch}.safetensors"


def resolve_run(run: str | None, runs_dir: Path | None = None) -> Path:
    """Return the directory of a run, or raise a RunError.

    `run` is a name in the runs folder, a path of a run directory, "latest", the name of a model that is shipped with
    lotr-tui, or None for the default one.
    """
    runs_dir, run = runs_dir or default_runs_dir(), default_run_name() if run is None else run
    if run in BUNDLED_FOLDERS:
        return assets_dir() / BUNDLED_FOLDERS[run]
    if not run.strip():
        raise RunError("the name of the run is empty; see `lotr-tui runs`")
    if is_pretrained_name(run):
        raise RunError(
            f"{run} is a model by others, not a run of lotr-tui; use it in the session, with generate, eval, who and "
            "tokenize, or as --init of a training"
        )
    if run == LATEST_RUN:
        return _latest_run(runs_dir)
    if (run_dir := find_run(run, runs_dir)) is not None:
        return run_dir
    with suppress(OSError, RuntimeError, ValueError):  # a path that is too long, an unknown user, a zero byte
        path = Path(run).expanduser()
        if is_run(path):
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
        folders = [path for path in runs_dir.iterdir() if not _UNFINISHED.fullmatch(path.name)]
        return [path for path in folders if started_at(path) is not None]
    except OSError:
        return []


def is_run(run_dir: Path) -> bool:
    return (run_dir / CONFIG_FILE).is_file() or (run_dir / IMPORT_FILE).is_file()


def started_at(run_dir: Path) -> float | None:
    """Return when a run was started, in seconds since 1970; None if the folder is not a readable run."""
    for name in (CONFIG_FILE, IMPORT_FILE):
        with suppress(OSError, ValueError):  # a name with a zero byte
            status = (run_dir / name).stat()
            return status.st_mtime if stat.S_ISREG(status.st_mode) else None
    return None


def _latest_run(runs_dir: Path) -> Path:
    for path in sorted(find_run_dirs(runs_dir), key=lambda path: started_at(path) or 0.0, reverse=True):
        try:
            read_config(path)
        except InvalidInputError:
            continue
        return path
    raise RunError(f"there is no run in {runs_dir} yet; train one with `lotr-tui train`")


def read_config(run_dir: Path) -> Config:
    """Read the configuration of a run; a missing file raises a RunError, and a damaged one a ConfigError."""
    if not (run_dir / CONFIG_FILE).exists() and (run_dir / IMPORT_FILE).exists():
        raise RunError(f"run {run_dir.name!r} was imported: it has curves, but neither a configuration nor a model")
    try:
        return Config.from_json(read_run_text(run_dir / CONFIG_FILE, MAX_CONFIG_BYTES), str(run_dir / CONFIG_FILE))
    except ConfigError as error:
        reason = f"is damaged, or was written by another version of lotr-tui ({str(error).removesuffix('.')})"
        raise ConfigError(f"run {run_dir.name!r} {reason}; train a new run") from error


def needs_base(config: Config) -> bool:
    """Return True for a run whose tokenizer, and for an adapter also the weights, are those of a pre-trained model."""
    return config.data.tokenizer == "pretrained"


def is_locked(run_dir: Path) -> bool:
    return files.is_locked(run_dir / LOCK_FILE)


def lock_owner(run_dir: Path) -> str:
    """Return the description of the process that holds or held the lock of a run; "" if there is none."""
    try:
        with os.fdopen(open_regular_file(run_dir / LOCK_FILE), encoding="utf-8", errors="replace") as file:
            return printable(file.read(100))
    except OSError:
        return ""
