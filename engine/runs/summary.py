"""Summaries of runs, read from the run directory, and runs that were trained by other programs."""

import contextlib
import json
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from engine.errors import InvalidInputError, RunError
from engine.events import RecordedEvent, event_to_dict
from engine.runs.adapter_files import needs_base
from engine.runs.directory import (
    CONFIG_FILE,
    IMPORT_FILE,
    MAX_CONFIG_BYTES,
    METRICS_FILE,
    RESERVED_RUN_NAMES,
    WEIGHT_FILES,
    check_run_name,
    find_run_dirs,
    is_imported,
    is_locked,
    read_config,
)
from engine.runs.metrics import Row, drop_superseded_rows, number_or_none, read_current_rows, read_rows
from engine.storage.files import create_folder, default_runs_dir
from engine.storage.schema import read_run_json

RunState = Literal["running", "finished", "pruned", "stopped", "failed", "crashed", "imported"]
COMPLETE: tuple[RunState, ...] = ("finished", "pruned", "imported")
"""States of a run that cannot be resumed."""


@dataclass(frozen=True)
class RunSummary:
    """One row of the list of runs."""

    name: str
    path: Path
    state: RunState
    preset: str
    corpus: str
    mode: str
    epochs: float
    """Completed epochs, with fraction."""
    valid_perplexity: float | None
    """Validation perplexity of the saved model; None if no model is saved yet."""
    test_perplexity: float | None
    started_at: float
    size_bytes: int
    architecture: str
    """"lstm" or "transformer"; "?" for an imported run."""
    pretrained_on_other_text: bool = False


@dataclass(frozen=True)
class ImportSource:
    program: str
    path: str
    curve: str
    """Name of the curve that became the validation perplexity."""


def list_runs(runs_dir: Path | None = None) -> list[RunSummary]:
    """Return the readable runs of a folder, latest first."""
    summaries = []
    for path in find_run_dirs(runs_dir or default_runs_dir()):
        with contextlib.suppress(InvalidInputError, OSError, ValueError):
            summaries.append(summarize_run(path))
    return sorted(summaries, key=lambda run: run.started_at, reverse=True)


def summarize_run(run_dir: Path) -> RunSummary:
    """Read the summary of a run; a missing or damaged configuration raises an InvalidInputError."""
    if is_imported(run_dir):
        source = read_run_json(ImportSource, run_dir / IMPORT_FILE, MAX_CONFIG_BYTES)
        first_file, preset, corpus, mode, architecture = IMPORT_FILE, source.program, source.path, "?", "?"
        starts_from_base = False
    else:
        config = read_config(run_dir)
        first_file, preset, corpus, mode = CONFIG_FILE, config.preset, config.data.corpus, config.data.mode
        architecture, starts_from_base = config.model.architecture, needs_base(config)
    all_rows = list(read_rows(run_dir / METRICS_FILE, subsample=True))
    rows = drop_superseded_rows(all_rows)
    epochs = (number_or_none(row.get("epochs" if row["event"] == "finished" else "epoch")) for row in rows)
    return RunSummary(
        name=run_dir.name,
        path=run_dir,
        state=run_state(run_dir, rows),
        preset=preset,
        corpus=corpus,
        mode=mode,
        epochs=max((epoch for epoch in epochs if epoch is not None), default=0.0),
        valid_perplexity=saved_perplexity(all_rows),
        test_perplexity=number_or_none(_final_row(rows).get("test_perplexity")),
        started_at=(run_dir / first_file).stat().st_mtime,
        size_bytes=directory_size(run_dir),
        architecture=architecture,
        pretrained_on_other_text=starts_from_base,
    )


def run_state(run_dir: Path, rows: Sequence[Row]) -> RunState:
    """Return the state of a run; `rows` are its rows without superseded ones."""
    if is_imported(run_dir):
        return "imported"
    return "running" if is_locked(run_dir) else _end_state(_final_row(rows))


def is_finished(run_dir: Path) -> bool:
    """Return True if the metrics of a run say that the training is complete, or was pruned."""
    return _end_state(_final_row(read_current_rows(run_dir / METRICS_FILE, subsample=True))) in COMPLETE


def saved_perplexity(rows: Iterable[Row]) -> float | None:
    """Return the validation perplexity of the saved model file; None if no model was saved.

    `rows` are all rows of the run, including superseded ones, because resuming a training leaves the file as it is.
    """
    perplexities: dict[int, float | None] = {}
    saved = None
    for row in rows:
        event, step, perplexity = row["event"], row.get("step"), number_or_none(row.get("valid_perplexity"))
        if event == "evaluated" and isinstance(step, int):
            perplexities[step] = perplexity
        elif event == "checkpointed" and isinstance(step, int) and row.get("file") in WEIGHT_FILES:
            saved = perplexities.get(step)  # a file can be written late, after other evaluations
        elif event == "finished" and perplexity is not None:  # recorded only if all files are written
            saved = perplexity
    return saved


def _final_row(rows: Sequence[Row]) -> Row:
    """Return the last row that says how the training ended; {} if there is none."""
    # Rows about written or unwritten files can follow the end.
    return next((row for row in reversed(rows) if row["event"] not in ("checkpointed", "warned")), {})


def _end_state(final_row: Row) -> RunState:
    if final_row.get("event") == "finished":
        reason = final_row.get("reason")
        return "stopped" if reason in ("stopped", "detached") else "pruned" if reason == "pruned" else "finished"
    return "failed" if final_row.get("event") == "failed" else "crashed"


def directory_size(path: Path) -> int:
    """Return the total size in bytes of the files in a folder."""
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):  # a training replaces files meanwhile
                size += (Path(folder) / name).lstat().st_size
    return size


def write_imported_run(
    runs_dir: Path, name: str, source: ImportSource, events: Sequence[RecordedEvent], started_at: float
) -> Path:
    """Write a run of another program, which was started at a time in seconds since 1970, and return its folder.

    An invalid or taken name, or a folder that cannot be written, raises a RunError.
    """
    check_run_name(name)
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"runs folder {runs_dir} cannot be written: {error.strerror}") from error
    lines = "".join(f"{json.dumps(event_to_dict(event))}\n" for event in events)
    with create_folder(runs_dir / name) as partial:
        (partial / METRICS_FILE).write_text(lines, encoding="utf-8")
        (partial / IMPORT_FILE).write_text(json.dumps(asdict(source)), encoding="utf-8")
        os.utime(partial / IMPORT_FILE, (started_at, started_at))
    return runs_dir / name


def free_run_name(wanted: str, runs_dir: Path) -> str:
    """Return a name for a new run in `runs_dir` that resembles `wanted`."""
    plain = unicodedata.normalize("NFKD", wanted).encode("ascii", "ignore").decode()
    stem = "".join(character if character.isalnum() or character in "._-" else "-" for character in plain)
    stem = stem.lstrip("._-")[:90] or "imported"
    names = (stem, *(f"{stem}-{number}" for number in range(2, 1_000)))
    return next((name for name in names if not (runs_dir / name).exists() and name not in RESERVED_RUN_NAMES), stem)
