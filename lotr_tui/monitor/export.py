"""Export of the metrics of a run to CSV files or TensorBoard."""

import csv
import io
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from engine.errors import printable
from engine.events import Sampled, Step, TrainingEvent, event_name, event_to_dict
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE
from engine.runs.metrics import read_current_events
from engine.storage.files import write_folder
from lotr_tui.monitor.steps import STEP_FIELDS
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.trackers.follower import write_tensorboard
from lotr_tui.trackers.libraries import check_installed


def export_csv(run: Path, folder: Path) -> list[Path]:
    """Write one CSV file per record type to a new folder, as `step.csv`. Return the paths of the files, sorted.

    Rows that a resumed training has superseded are left out, and unknown numbers are empty cells. A folder that exists
    or cannot be written raises a RunError.
    """
    events_by_type: dict[str, list[TrainingEvent]] = {}
    metrics, samples = (read_current_events(run / name, subsample=True) for name in (METRICS_FILE, SAMPLES_FILE))
    for event in (*metrics, *(sample for sample in samples if isinstance(sample, Sampled))):
        events_by_type.setdefault(event_name(type(event)), []).append(event)
    events_by_type.pop(event_name(Step), None)
    steps = TrainingView.from_run(run).steps  # not subsampled
    tables = {}
    for record_type, events in events_by_type.items():
        names = [item.name for item in fields(events[0]) if item.name != "model"]
        rows = (event_to_dict(event) for event in events)
        tables[f"{record_type}.csv"] = _to_csv(names, ([row.get(name) for name in names] for row in rows))
    if len(steps):
        columns = [steps.column(name).tolist() for name in STEP_FIELDS]
        rows_of_steps = ([int(step), *values] for step, *values in zip(*columns, strict=True))
        tables["step.csv"] = _to_csv(STEP_FIELDS, rows_of_steps)
    write_folder(folder, tables)
    return sorted(folder.iterdir())


def export_tensorboard(run: Path, folder: Path) -> None:
    """Write the curves, samples and settings of a run to a new folder, for `tensorboard --logdir FOLDER`.

    A missing TensorBoard raises an InvalidInputError, and a folder that exists or cannot be written a RunError.
    """
    check_installed(["tensorboard"])
    with tempfile.TemporaryDirectory() as partial:
        write_tensorboard(run, Path(partial))
        write_folder(folder, {path.name: path.read_bytes() for path in Path(partial).iterdir()})


def _to_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return table.getvalue().encode(errors="replace")


def _cell(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return ""
    return printable(value) if isinstance(value, str) else value
