"""The record of a run for other programs: CSV files, or a log directory of TensorBoard."""

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from engine.errors import RunError, UnusableInput, printable
from engine.events import TrainingEvent, from_record, to_record
from engine.runs.metrics import current_rows
from engine.runs.store import CONFIG, METRICS, SAMPLES
from engine.storage.files import replacing
from lotr_tui.monitor.step_columns import NAMES
from lotr_tui.monitor.training_view import TrainingView

REPORTS_AT_ONCE = 10_000
SERIES = ("train_perplexity", "lr", "gradient_norm", "tokens_per_second")
"""Fields of the reports that are curves in TensorBoard."""


def export_csv(run: Path, folder: Path) -> list[Path]:
    """Write a file for each kind of row that the record has, named after it, as `step.csv`; returns them.

    What a resume did again is left out, and numbers that are not known are empty.

    Raises:
        RunError: the folder is not empty or cannot be written to.
    """
    _make_empty(folder)
    kinds: dict[str, list[TrainingEvent]] = {}
    for event in _events(run):
        kinds.setdefault(type(event).__name__.lower(), []).append(event)
    files = []
    try:
        for kind, events in kinds.items():
            names = [item.name for item in fields(events[0]) if item.name != "model"]
            rows = (_values(event, names) for event in events)
            files.append(_write(folder / f"{kind}.csv", names, rows))
        view = TrainingView.of_run(run)
        if len(view.steps):
            files.append(_write(folder / "step.csv", NAMES, _reports(view)))
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror}") from error
    return files


def export_tensorboard(run: Path, folder: Path) -> None:
    """Write the curves and samples so that `tensorboard --logdir` shows them.

    Raises:
        UnusableInput: TensorBoard is not installed.
        RunError: the folder is not empty or cannot be written to.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UnusableInput("TensorBoard is not installed; pip install 'lotr-tui[tensorboard]'") from error
    _make_empty(folder)
    view = TrainingView.of_run(run)
    begun = (run / CONFIG).stat().st_mtime
    try:
        with SummaryWriter(str(folder)) as writer:
            for values in _reports(view):
                report = dict(zip(NAMES, values, strict=True))
                for name in SERIES:
                    if report[name] != "":
                        writer.add_scalar(name, report[name], _step(report["step"]), begun + (report["seconds"] or 0))
            for event in view.evaluations:
                if math.isfinite(event.valid_perplexity):
                    value, step = event.valid_perplexity, _step(event.step)
                    writer.add_scalar("valid_perplexity", value, step, begun + event.seconds)
            for sample in view.samples:
                # As a block of code: the text is shown as it is, not read as Markdown.
                text = printable(f"{sample.prompt} {sample.text}")
                writer.add_text("sample", f"    {text}", _step(sample.step))
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror}") from error


def _events(run: Path) -> Iterator[TrainingEvent]:
    """All but the reports."""
    metrics = (row for row in current_rows(run / METRICS, outline=True) if row["event"] != "step")
    samples = (row for row in current_rows(run / SAMPLES) if row["event"] == "sampled")
    for row in (*metrics, *samples):
        if (event := from_record(row)) is not None:
            yield event


def _reports(view: TrainingView) -> Iterator[list[Any]]:
    """The values of each report, in the order of their names."""
    for first in range(0, len(view.steps), REPORTS_AT_ONCE):
        columns = [view.steps.column(name)[first : first + REPORTS_AT_ONCE].tolist() for name in NAMES]
        for values in zip(*columns, strict=True):
            yield [int(values[0]), *("" if math.isnan(value) else value for value in values[1:])]


def _step(step: int) -> int:
    """As TensorBoard's files can hold it: a damaged record may have others."""
    return min(max(step, -(2**63)), 2**63 - 1)


def _values(event: TrainingEvent, names: list[str]) -> list[Any]:
    record = to_record(event)
    values = ("" if record[name] is None else record[name] for name in names)
    return [printable(value) if isinstance(value, str) else value for value in values]


def _make_empty(folder: Path) -> None:
    """Make the folder, or see that it is empty: nothing is overwritten.

    Raises:
        RunError: it cannot be made, or something is in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RunError(f"{folder} is not empty, and nothing is overwritten; name a new folder")
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror}") from error


def _write(path: Path, names: Iterable[str], rows: Iterable[list[Any]]) -> Path:
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
        writer = csv.writer(text)
        writer.writerow(names)
        writer.writerows(rows)
        text.detach()  # which writes what it still holds, and leaves the file open
    return path
