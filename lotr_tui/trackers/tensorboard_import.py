"""Import of curves from TensorBoard's event files, so that other trainings appear in the list of runs."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.arrays import Float64Array
from engine.errors import InvalidInputError, printable
from engine.events import Evaluated, Finished, RecordedEvent, event_to_dict
from engine.runs.directory import IMPORT_FILE, METRICS_FILE, RESERVED_RUN_NAMES, check_run_name
from engine.storage.files import write_folder
from lotr_tui.formatting import format_perplexity
from lotr_tui.trackers.libraries import check_installed

MAX_POINTS = 100_000  # per curve; of a longer curve, that many are kept at random
MAX_EXPONENT = 700.0  # largest loss in nats whose perplexity is a finite number
_PERPLEXITY, _LOSS = r"perplexity|ppl", r"loss|nll|cross.?entropy"
_VALIDATION, _TEST, _EPOCH = r"val|eval|dev", r"(^|[/_.-])(test|result)", r"(^|/)epochs?$"


def import_tensorboard(folder: Path, runs_dir: Path, name: str | None = None, tag: str | None = None) -> list[str]:
    """Write one run for each folder in `folder` that holds event files, and return a line about each.

    Without a tag, the validation is found by the names of the curves. A folder that is no log raises an
    InvalidInputError before anything is written, and a bad name a RunError.
    """
    check_installed(["tensorboard"])
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is not a folder; give the folder that `tensorboard --logdir` reads")
    folders = sorted({path.parent for path in folder.rglob("*tfevents*") if path.is_file()})
    if not folders:
        raise InvalidInputError(f"{folder} has no event files of TensorBoard, whose names contain tfevents")
    if name is not None and len(folders) > 1:
        raise InvalidInputError(f"--run {name} names one run, but {folder} has {len(folders)}; omit --run")
    imported = list[str]()
    for log, curves, curve in [(log, *_read_log(log, tag)) for log in folders]:
        epoch_tag = _first(list(curves), [_EPOCH])
        events, started_at = _make_events(curves, curve, epoch_tag)
        log_name = log.parent.name if log.name == "tensorboard" else log.resolve().name
        path = runs_dir / (name or _free_run_name(log_name, runs_dir))
        check_run_name(path.name)
        source = {"program": "TensorBoard", "path": printable(str(log.resolve())), "curve": printable(curve)}
        lines = "".join(f"{json.dumps(event_to_dict(event))}\n" for event in events)
        write_folder(path, {METRICS_FILE: lines.encode(), IMPORT_FILE: json.dumps(source).encode()})
        os.utime(path / IMPORT_FILE, (started_at, started_at))
        best = next(event.valid_perplexity for event in events if isinstance(event, Finished))
        note = "" if epoch_tag else "; it has no curve called epoch, so each evaluation counts as one"
        imported.append(f"{path.name}: {source['curve']}, best perplexity {format_perplexity(best)}{note}")
    return imported


def _free_run_name(wanted: str, runs_dir: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", wanted).lstrip("._-")[:90] or "imported"
    names = (stem, *(f"{stem}-{number}" for number in range(2, 1_000)))
    return next((name for name in names if not (runs_dir / name).exists() and name not in RESERVED_RUN_NAMES), stem)


def _read_log(folder: Path, wanted: str | None) -> tuple[dict[str, Float64Array], str]:
    """Return curves by tag, each `[3, point]` with steps, seconds since 1970 and values, and the validation's tag."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    accumulator: Any = EventAccumulator(str(folder), size_guidance={SCALARS: MAX_POINTS})
    try:
        accumulator.Reload()
        scalars = {str(tag): accumulator.Scalars(tag) for tag in accumulator.Tags()[SCALARS]}
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidInputError(f"{folder} cannot be read as logs of TensorBoard: {reason}") from error
    rows = {tag: sorted((point.step, point.wall_time, point.value) for point in scalars[tag]) for tag in scalars}
    curves = {tag: np.array(points, np.float64).T for tag, points in rows.items() if points}
    if not curves:
        raise InvalidInputError(f"{folder} has no scalars: its files are damaged, or no event files of TensorBoard")
    listed = ", ".join(sorted(curves))[:400]
    if wanted is not None and wanted not in curves:
        raise InvalidInputError(f"{folder} has no curve {wanted!r}; its curves are {listed}")
    validations = [tag for tag in curves if _matches(_VALIDATION, tag) and not _matches(_TEST, tag)]
    if not (tag := wanted or _first(validations, [_PERPLEXITY, _LOSS])):
        raise InvalidInputError(f"{folder} has no curve that looks like a validation; choose one with --tag: {listed}")
    return curves, tag


def _make_events(curves: dict[str, Float64Array], tag: str, epoch_tag: str) -> tuple[list[RecordedEvent], float]:
    """Return the events of a training, and its start in seconds since 1970."""
    started_at = float(min(curve[1, 0] for curve in curves.values()))
    last_step = float(max(curve[0, -1] for curve in curves.values()))
    steps, times, values = curves[tag]
    scale = np.array([0.0, *steps]), np.arange(len(steps) + 1, dtype=np.float64)
    if epoch_tag:
        scale = curves[epoch_tag][0], curves[epoch_tag][2]
    events: list[RecordedEvent] = []
    best = np.inf
    # Losses are in nats.
    perplexities = values if _matches(_PERPLEXITY, tag) else np.exp(np.minimum(values, MAX_EXPONENT))
    perplexities = np.where(np.isfinite(perplexities) & (perplexities > 0), perplexities, np.nan)
    columns = [steps, np.interp(steps, *scale), perplexities, times - started_at]
    for step, epoch, perplexity, seconds in np.array(columns).T.tolist():
        events.append(Evaluated(int(step), epoch, perplexity, perplexity < best, seconds))
        best = min(best, perplexity) if np.isfinite(perplexity) else best
    seconds = float(max(curve[1, -1] for curve in curves.values())) - started_at
    last_epoch = float(np.interp(last_step, *scale))
    best = best if np.isfinite(best) else np.nan
    return [*events, Finished("done", "imported", last_epoch, best, np.nan, seconds)], started_at


def _matches(pattern: str, tag: str) -> bool:
    return re.search(pattern, tag, re.IGNORECASE) is not None


def _first(tags: list[str], patterns: list[str]) -> str:
    """Return the first tag that matches the first pattern that any tag matches, or ""."""
    return next((tag for pattern in patterns for tag in tags if _matches(pattern, tag)), "")
