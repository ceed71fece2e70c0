"""Summaries of runs, read from the run directory."""

import math
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import InvalidInputError
from engine.events import Checkpointed, Evaluated, Failed, Finished, RecordedEvent, Warned
from engine.runs.directory import (
    IMPORT_FILE,
    MAX_CONFIG_BYTES,
    METRICS_FILE,
    WEIGHT_FILES,
    find_run_dirs,
    is_locked,
    needs_base,
    read_config,
    started_at,
)
from engine.runs.metrics import drop_superseded, read_current_events, read_events
from engine.storage.files import default_runs_dir
from engine.storage.schema import read_run_json

RunState = Literal["running", "finished", "pruned", "stopped", "failed", "crashed", "imported"]
COMPLETE: tuple[RunState, ...] = ("finished", "pruned", "imported")  # cannot be resumed


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
        imported = read_run_json(dict[str, str], run_dir / IMPORT_FILE, MAX_CONFIG_BYTES)
        preset, corpus = imported.get("program", "?"), imported.get("path", "?")
        mode, architecture, is_pretrained = "?", "?", False
    else:
        config = read_config(run_dir)
        preset, corpus, mode = config.preset, config.data.corpus, config.data.mode
        architecture, is_pretrained = config.model.architecture, needs_base(config)
    all_events = list(read_events(run_dir / METRICS_FILE, subsample=True))
    events = drop_superseded(all_events)
    epochs = (event.epochs if isinstance(event, Finished) else getattr(event, "epoch", 0.0) for event in events)
    final = _final_event(events)
    return RunSummary(
        name=run_dir.name,
        path=run_dir,
        state=run_state(run_dir, events),
        preset=preset,
        corpus=corpus,
        mode=mode,
        epochs=max((epoch for epoch in epochs if math.isfinite(epoch)), default=0.0),
        valid_perplexity=saved_perplexity(all_events),
        test_perplexity=finite_or_none(final.test_perplexity) if isinstance(final, Finished) else None,
        started_at=started_at(run_dir) or 0.0,
        size_bytes=directory_size(run_dir),
        architecture=architecture,
        pretrained_on_other_text=is_pretrained,
    )


def run_state(run_dir: Path, events: Sequence[RecordedEvent]) -> RunState:
    """Return the state of a run; `events` are its events without superseded ones."""
    if (run_dir / IMPORT_FILE).exists():
        return "imported"
    return "running" if is_locked(run_dir) else _end_state(events)


def is_finished(run_dir: Path) -> bool:
    """Return True if the metrics of a run say that the training is complete, or was pruned."""
    return _end_state(read_current_events(run_dir / METRICS_FILE, subsample=True)) in COMPLETE


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


def _final_event(events: Sequence[RecordedEvent]) -> RecordedEvent | None:
    # The event that says how the training ended; events about files can follow it.
    return next((event for event in reversed(events) if not isinstance(event, (Checkpointed, Warned))), None)


def _end_state(events: Sequence[RecordedEvent]) -> RunState:
    match _final_event(events):
        case Finished(reason="pruned"):
            return "pruned"
        case Finished(reason="stopped" | "detached"):
            return "stopped"
        case Finished():
            return "finished"
        case Failed():
            return "failed"
    return "crashed"


def directory_size(path: Path) -> int:
    """Return the total size in bytes of the files in a folder."""
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):  # a training replaces files meanwhile
                size += (Path(folder) / name).lstat().st_size
    return size
