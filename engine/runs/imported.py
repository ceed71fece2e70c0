"""Runs that were trained by other programs: a folder with their curves, and neither configuration nor model."""

import json
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import InvalidInputError, RunError
from engine.events import RecordedEvent, event_to_dict
from engine.runs.directory import IMPORT_FILE, METRICS_FILE, RUN_NAME_PATTERN, check_run_name, read_import_file
from engine.runs.new_folder import create_folder
from engine.storage.schema import decode_json

MAX_NUMBERED_NAMES = 1_000


@dataclass(frozen=True)
class ImportSource:
    """Origin of an imported run."""

    program: str
    """Program that wrote the curves, as "TensorBoard"."""
    path: str
    """Folder or file that was read."""
    curve: str
    """Name of the curve that became the validation perplexity."""


def write_imported_run(
    runs_dir: Path, name: str, source: ImportSource, events: Sequence[RecordedEvent], started_at: float
) -> Path:
    """Write a run that holds `events`, and return its folder.

    `started_at` is the start of the training in seconds since 1970.

    Raises:
        RunError: If the name is invalid or taken, or the folder cannot be written.
    """
    check_run_name(name)
    folder = runs_dir / name
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"runs folder {runs_dir} cannot be written: {error.strerror}") from error
    lines = "".join(f"{json.dumps(event_to_dict(event))}\n" for event in events)
    with create_folder(folder) as partial:
        (partial / METRICS_FILE).write_text(lines, encoding="utf-8")
        (partial / IMPORT_FILE).write_text(json.dumps(asdict(source)), encoding="utf-8")
        os.utime(partial / IMPORT_FILE, (started_at, started_at))
    return folder


def read_import_source(run_dir: Path) -> ImportSource:
    """Read the origin of an imported run; a damaged file raises a RunError."""
    try:
        return decode_json(ImportSource, read_import_file(run_dir))
    except InvalidInputError as error:
        raise RunError(f"{run_dir / IMPORT_FILE} is damaged: {error}; import the run again") from error


def free_run_name(wanted: str, runs_dir: Path) -> str:
    """Return a name for a new run in `runs_dir` that resembles `wanted`."""
    plain = unicodedata.normalize("NFKD", wanted).encode("ascii", "ignore").decode()
    stem = "".join(character if character.isalnum() or character in "._-" else "-" for character in plain)
    stem = stem.lstrip("._-")[:90]
    stem = stem if RUN_NAME_PATTERN.fullmatch(stem) else "imported"
    names = (stem, *(f"{stem}-{number}" for number in range(2, MAX_NUMBERED_NAMES)))
    return next((name for name in names if not (runs_dir / name).exists() and _is_allowed(name)), stem)


def _is_allowed(name: str) -> bool:
    try:
        check_run_name(name)
    except RunError:
        return False
    return True
