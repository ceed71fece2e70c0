"""Summaries of runs, read from the run directory: state, progress and perplexities."""

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import InvalidInputError
from engine.runs.adapter_files import needs_base
from engine.runs.directory import (
    CONFIG_FILE,
    IMPORT_FILE,
    METRICS_FILE,
    WEIGHT_FILES,
    find_run_dirs,
    is_imported,
    is_locked,
    read_config,
)
from engine.runs.imported import read_import_source
from engine.runs.metrics import Row, drop_superseded_rows, number_or_none, read_current_rows, read_rows
from engine.storage.files import default_runs_dir

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
    """Start time in seconds since 1970."""
    size_bytes: int
    architecture: str
    """"lstm" or "transformer"; "?" for an imported run."""
    pretrained_on_other_text: bool = False
    """True if the run started from a model by others."""


def list_runs(runs_dir: Path | None = None) -> list[RunSummary]:
    """Return the readable runs of a folder, latest first."""
    summaries = []
    for path in find_run_dirs(runs_dir or default_runs_dir()):
        with contextlib.suppress(InvalidInputError, OSError, ValueError):
            summaries.append(summarize_run(path))
    return sorted(summaries, key=lambda run: run.started_at, reverse=True)


def summarize_run(run_dir: Path) -> RunSummary:
    """Read the summary of a run.

    Raises:
        RunError: If the configuration is missing or cannot be read.
        ConfigError: If the configuration is damaged.
    """
    if is_imported(run_dir):
        return _summarize_imported_run(run_dir)
    config = read_config(run_dir)
    all_rows = list(read_rows(run_dir / METRICS_FILE, subsample=True))
    rows = drop_superseded_rows(all_rows)
    final_row = _final_row(rows)
    epochs = (number_or_none(row.get("epochs" if row["event"] == "finished" else "epoch")) for row in reversed(rows))
    return RunSummary(
        name=run_dir.name,
        path=run_dir,
        state=run_state(run_dir, rows),
        preset=config.preset,
        corpus=config.data.corpus,
        mode=config.data.mode,
        epochs=next((value for value in epochs if value is not None), 0.0),
        valid_perplexity=saved_perplexity(all_rows),
        test_perplexity=number_or_none(final_row.get("test_perplexity")),
        started_at=(run_dir / CONFIG_FILE).stat().st_mtime,
        size_bytes=directory_size(run_dir),
        architecture=config.model.architecture,
        pretrained_on_other_text=needs_base(config),
    )


def run_state(run_dir: Path, rows: Sequence[Row]) -> RunState:
    """Return the state of a run; `rows` are its rows without superseded ones."""
    if is_imported(run_dir):
        return "imported"
    return "running" if is_locked(run_dir) else _end_state(_final_row(rows))


def _summarize_imported_run(run_dir: Path) -> RunSummary:
    source = read_import_source(run_dir)
    rows = list(read_rows(run_dir / METRICS_FILE, subsample=True))
    return RunSummary(
        name=run_dir.name,
        path=run_dir,
        state="imported",
        preset=source.program,
        corpus=source.path,
        mode="?",
        epochs=max((value for row in rows if (value := number_or_none(row.get("epoch"))) is not None), default=0.0),
        valid_perplexity=saved_perplexity(rows),
        test_perplexity=None,
        started_at=(run_dir / IMPORT_FILE).stat().st_mtime,
        size_bytes=directory_size(run_dir),
        architecture="?",
    )


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
    """Return the last row that says how the training ended; {} if there is none.

    Rows about written or unwritten files can follow the end, and are skipped.
    """
    return next((row for row in reversed(rows) if row["event"] not in ("checkpointed", "warned")), {})


def _end_state(final_row: Row) -> RunState:
    """Return the state of a run that no process is training."""
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
