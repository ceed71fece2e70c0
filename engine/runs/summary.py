"""Summaries of runs, read from the run directory: state, progress and perplexities."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import InvalidInputError
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, find_run_dirs, is_locked, read_config
from engine.runs.metrics import Row, number_or_none, read_current_rows
from engine.storage.files import default_runs_dir

RunState = Literal["running", "finished", "stopped", "failed", "crashed"]


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
    """Lowest validation perplexity so far; None before the first evaluation."""
    test_perplexity: float | None
    started_at: float
    """Start time in seconds since 1970."""
    size_bytes: int


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
    config = read_config(run_dir)
    rows = read_current_rows(run_dir / METRICS_FILE, subsample=True)
    final_row = _final_row(rows)
    epochs = (number_or_none(row.get("epochs" if row["event"] == "finished" else "epoch")) for row in reversed(rows))
    return RunSummary(
        name=run_dir.name,
        path=run_dir,
        state="running" if is_locked(run_dir) else _end_state(final_row),
        preset=config.preset,
        corpus=config.data.corpus,
        mode=config.data.mode,
        epochs=next((value for value in epochs if value is not None), 0.0),
        valid_perplexity=best_perplexity(rows),
        test_perplexity=number_or_none(final_row.get("test_perplexity")),
        started_at=(run_dir / CONFIG_FILE).stat().st_mtime,
        size_bytes=_directory_size(run_dir),
    )


def is_finished(run_dir: Path) -> bool:
    """Return True if the metrics of a run say that the training is complete."""
    return _end_state(_final_row(read_current_rows(run_dir / METRICS_FILE, subsample=True))) == "finished"


def best_perplexity(rows: Sequence[Row]) -> float | None:
    """Return the lowest validation perplexity in the rows of a run; None if there is none."""
    values = (number_or_none(row.get("valid_perplexity")) for row in rows if row["event"] in ("evaluated", "finished"))
    return min((value for value in values if value is not None), default=None)


def _final_row(rows: Sequence[Row]) -> Row:
    """Return the last row that says how the training ended; {} if there is none.

    Rows about written or unwritten files can follow the end, and are skipped.
    """
    return next((row for row in reversed(rows) if row["event"] not in ("checkpointed", "warned")), {})


def _end_state(final_row: Row) -> RunState:
    """Return the state of a run that no process is training."""
    if final_row.get("event") == "finished":
        return "stopped" if final_row.get("reason") in ("stopped", "detached") else "finished"
    return "failed" if final_row.get("event") == "failed" else "crashed"


def _directory_size(path: Path) -> int:
    """Return the total size in bytes of the files in a folder."""
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):  # a training replaces files meanwhile
                size += (Path(folder) / name).lstat().st_size
    return size
