"""Import of curves from TensorBoard's event files, so that other trainings appear in the list of runs."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.arrays import Float64Array
from engine.errors import InvalidInputError, printable
from engine.events import Evaluated, Finished, RecordedEvent, Step
from engine.runs.summary import ImportSource, free_run_name, write_imported_run
from lotr_tui.trackers.registry import check_installed

EVENT_FILE_PATTERN = "*tfevents*"
MAX_POINTS = 100_000
"""Points per curve; of a longer curve, that many are kept at random."""
MAX_LISTED_TAGS = 12
"""Curves that an error message lists."""
MAX_EXPONENT = 700.0
"""Largest loss in nats whose perplexity is a finite number."""
_PERPLEXITY = re.compile(r"perplexity|ppl", re.IGNORECASE)
_LOSS = re.compile(r"loss|nll|cross.?entropy", re.IGNORECASE)
_VALIDATION = re.compile(r"val|eval|dev", re.IGNORECASE)
_TEST = re.compile(r"(^|[/_.-])(test|result)", re.IGNORECASE)
_EPOCH = re.compile(r"(^|/)epochs?$", re.IGNORECASE)
_LEARNING_RATE = re.compile(r"(^|[/_])(lr|learning_rate)([/_-].*)?$", re.IGNORECASE)
_GRADIENT_NORM = re.compile(r"grad(ient)?_?norm", re.IGNORECASE)


@dataclass(frozen=True)
class Curve:
    """Values of one tag of a log."""

    steps: Float64Array
    """Steps `[point]`, ascending."""
    times: Float64Array
    """Times `[point]` in seconds since 1970."""
    values: Float64Array
    """Values `[point]`."""


@dataclass(frozen=True)
class EpochScale:
    """Relation between steps and epochs, linear between known points."""

    steps: Float64Array
    """Steps `[point]`, ascending."""
    epochs: Float64Array
    """Epochs `[point]` at these steps."""
    is_known: bool
    """True if the log or the user says how long an epoch is."""

    def at(self, step: float) -> float:
        """Return the epoch at a step."""
        return float(np.interp(step, self.steps, self.epochs))


@dataclass(frozen=True)
class ImportOptions:
    """Answers to questions that a log may leave open. None chooses by the names of the curves."""

    tag: str | None = None
    """Name of the validation curve."""
    is_perplexity: bool | None = None
    """True if the curves are perplexities, False if they are losses in nats."""
    steps_per_epoch: int | None = None


@dataclass(frozen=True)
class ImportedCurves:
    """A training that was read from a log."""

    name: str
    """Name of its folder."""
    source: ImportSource
    events: tuple[RecordedEvent, ...]
    started_at: float
    """Time of the first point in seconds since 1970."""
    has_epochs: bool
    """True if the epochs are known; otherwise each evaluation counts as one epoch."""


def import_tensorboard(
    folder: Path, runs_dir: Path, name: str | None, options: ImportOptions
) -> list[tuple[Path, ImportedCurves]]:
    """Write one run for each folder in `folder` that holds event files. Return the run directories with their content.

    Raises:
        InvalidInputError: If TensorBoard is not installed, there is no event file, or a log has no validation curve;
            nothing is written then.
        RunError: If the name is invalid or taken, or the runs folder cannot be written.
    """
    check_installed(["tensorboard"])
    folders = find_log_folders(folder)
    if name is not None and len(folders) > 1:
        raise InvalidInputError(f"--run {name} names one run, but {folder} has {len(folders)}; omit --run")
    trainings = [read_curves(log_folder, options) for log_folder in folders]
    written = []
    for training in trainings:
        run_name = name or free_run_name(training.name, runs_dir)
        path = write_imported_run(runs_dir, run_name, training.source, training.events, training.started_at)
        written.append((path, training))
    return written


def find_log_folders(folder: Path) -> list[Path]:
    """Return the folders below `folder`, itself included, that hold event files, sorted.

    Raises:
        InvalidInputError: If there is none.
    """
    if folder.is_file():
        folder = folder.parent if folder.match(EVENT_FILE_PATTERN) else folder
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is not a folder; give the folder that `tensorboard --logdir` reads")
    folders = sorted({path.parent for path in folder.rglob(EVENT_FILE_PATTERN) if path.is_file()})
    if not folders:
        raise InvalidInputError(f"{folder} has no event files of TensorBoard, whose names contain tfevents")
    return folders


def read_curves(folder: Path, options: ImportOptions) -> ImportedCurves:
    """Read the training in the event files of one folder.

    Raises:
        InvalidInputError: If the files are no event files, or have no validation curve.
    """
    curves = _read_scalars(folder)
    tag = _choose_validation_tag(folder, curves, options.tag)
    validation = curves[tag]
    is_perplexity = bool(_PERPLEXITY.search(tag)) if options.is_perplexity is None else options.is_perplexity
    perplexities = _to_perplexities(validation, is_perplexity)
    epochs = _make_epoch_scale(curves, validation, options.steps_per_epoch)
    started_at = float(min(curve.times[0] for curve in curves.values()))

    events: list[RecordedEvent] = []
    best = math.inf
    for step, time, perplexity in zip(validation.steps, validation.times, perplexities, strict=True):
        is_best = bool(perplexity < best)
        best = float(perplexity) if is_best else best
        events.append(Evaluated(int(step), epochs.at(step), float(perplexity), is_best, float(time - started_at)))
    events += _read_steps(curves, tag, epochs, started_at)
    # At the same step, the report on the training comes first, as in our own runs.
    events.sort(key=lambda event: (getattr(event, "step", 0), isinstance(event, Evaluated)))
    last_step = max(float(curve.steps[-1]) for curve in curves.values())
    seconds = float(max(curve.times[-1] for curve in curves.values())) - started_at
    name = folder.parent.name if folder.name == "tensorboard" else folder.resolve().name
    best_known = best if math.isfinite(best) else math.nan
    events.append(Finished("done", name, epochs.at(last_step), best_known, math.nan, seconds))
    source = ImportSource("TensorBoard", printable(str(folder.resolve())), printable(tag))
    return ImportedCurves(name, source, tuple(events), started_at, epochs.is_known)


def _read_scalars(folder: Path) -> dict[str, Curve]:
    """Return the curves of a folder by tag; curves without points are left out."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    accumulator: Any = EventAccumulator(str(folder), size_guidance={SCALARS: MAX_POINTS})
    try:
        accumulator.Reload()
        curves = {}
        for tag in accumulator.Tags()[SCALARS]:
            points = sorted(accumulator.Scalars(tag), key=lambda point: (point.step, point.wall_time))
            columns = np.array([(point.step, point.wall_time, point.value) for point in points], np.float64)
            if len(columns):
                curves[str(tag)] = Curve(*columns.T)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidInputError(f"{folder} cannot be read as logs of TensorBoard: {reason}") from error
    if not curves:
        raise InvalidInputError(f"{folder} has no scalars: its files are damaged, or no event files of TensorBoard")
    return curves


def _choose_validation_tag(folder: Path, curves: Mapping[str, Curve], wanted: str | None) -> str:
    listed = ", ".join(sorted(curves)[:MAX_LISTED_TAGS]) + (", …" if len(curves) > MAX_LISTED_TAGS else "")
    if wanted is not None:
        if wanted not in curves:
            raise InvalidInputError(f"{folder} has no curve {wanted!r}; its curves are {listed}")
        return wanted
    candidates = [tag for tag in curves if _VALIDATION.search(tag) and not _TEST.search(tag)]
    for pattern in (_PERPLEXITY, _LOSS):
        for tag in candidates:
            if pattern.search(tag):
                return tag
    raise InvalidInputError(f"{folder} has no curve that looks like a validation; choose one with --tag: {listed}")


def _to_perplexities(curve: Curve, is_perplexity: bool) -> Float64Array:
    values = curve.values if is_perplexity else np.exp(np.minimum(curve.values, MAX_EXPONENT))
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _make_epoch_scale(curves: Mapping[str, Curve], validation: Curve, steps_per_epoch: int | None) -> EpochScale:
    if steps_per_epoch is not None:
        last_step = max(float(curve.steps[-1]) for curve in curves.values())
        return EpochScale(np.array([0.0, last_step]), np.array([0.0, last_step / steps_per_epoch]), is_known=True)
    if epochs := next((curve for tag, curve in curves.items() if _EPOCH.search(tag)), None):
        return EpochScale(epochs.steps, epochs.values, is_known=True)
    counted = np.arange(len(validation.steps) + 1, dtype=np.float64)
    return EpochScale(np.concatenate([[0.0], validation.steps]), counted, is_known=False)


def _read_steps(
    curves: Mapping[str, Curve], validation_tag: str, epochs: EpochScale, started_at: float
) -> Sequence[Step]:
    """Return the reports of the training curve; an empty list if there is none."""
    others = [tag for tag in curves if tag != validation_tag and not _VALIDATION.search(tag) and not _TEST.search(tag)]
    for pattern in (_PERPLEXITY, _LOSS):
        if (tag := next((tag for tag in others if pattern.search(tag)), None)) is not None:
            break
    else:
        return []
    curve = curves[tag]
    perplexities = _to_perplexities(curve, bool(_PERPLEXITY.search(tag)))
    rates = _values_at(curves, _LEARNING_RATE, curve.steps)
    norms = _values_at(curves, _GRADIENT_NORM, curve.steps)
    columns = zip(curve.steps, curve.times - started_at, perplexities, rates, norms, strict=True)
    return [
        Step(int(step), epochs.at(step), float(perplexity), float(lr), float(norm), math.nan, float(seconds), 0.0)
        for step, seconds, perplexity, lr, norm in columns
    ]


def _values_at(curves: Mapping[str, Curve], pattern: re.Pattern[str], steps: Float64Array) -> Float64Array:
    """Return the values `[step]` of the first curve whose tag matches, at some steps; NaN if there is none."""
    for tag, curve in curves.items():
        if pattern.search(tag):
            return np.interp(steps, curve.steps, curve.values)
    return np.full(len(steps), np.nan)
