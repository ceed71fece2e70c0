"""Export of the metrics of a run to CSV files or TensorBoard."""

import csv
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import fields
from io import StringIO
from pathlib import Path

from engine.errors import printable
from engine.events import EVENT_NAMES, Sampled, Step, TrainingEvent, event_to_dict
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE, drop_superseded, read_events
from engine.storage.files import write_folder
from lotr_tui.monitor.steps import STEP_FIELDS
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.trackers import follower, libraries


def export_csv(run: Path, folder: Path) -> list[Path]:
    """Write one CSV file per record type to a new folder, as `step.csv`. Return the paths of the files, sorted.

    Rows that a resumed training has superseded are left out, and unknown numbers are empty cells. A folder that exists
    or cannot be written raises a RunError.
    """
    events_by_type: dict[type[TrainingEvent], list[TrainingEvent]] = {}
    records = (read_events(run / name, subsample=True) for name in (METRICS_FILE, SAMPLES_FILE))
    metrics, samples = map(drop_superseded, records)
    for event in (*metrics, *(sample for sample in samples if isinstance(sample, Sampled))):
        if not isinstance(event, Step):
            events_by_type.setdefault(type(event), []).append(event)
    tables = {}
    for record_type, events in events_by_type.items():
        names = [item.name for item in fields(record_type) if item.name != "model"]
        rows = ([record.get(name) for name in names] for record in map(event_to_dict, events))
        tables[f"{EVENT_NAMES[record_type]}.csv"] = _to_csv(names, rows)
    steps = TrainingView.from_run(run).steps  # not subsampled
    if len(steps):
        columns = [
            steps.column("step").astype(int).tolist(),
            *(steps.column(each).tolist() for each in STEP_FIELDS[1:]),
        ]
        tables["step.csv"] = _to_csv(STEP_FIELDS, zip(*columns, strict=True))
    write_folder(folder, tables)
    return sorted(folder.iterdir())


def export_tensorboard(run: Path, folder: Path) -> None:
    """Write the curves, samples and settings of a run to a new folder, for `tensorboard --logdir FOLDER`.

    A missing TensorBoard raises an InvalidInputError, and a folder that exists or cannot be written a RunError.
    """
    libraries.check_installed(["tensorboard"])
    with tempfile.TemporaryDirectory() as partial:
        follower.write_tensorboard(run, Path(partial))
        write_folder(folder, {path.name: path.read_bytes() for path in Path(partial).iterdir()})


def _to_csv(names: Sequence[str], rows: Iterable[Iterable[object]]) -> bytes:
    def text(value: object) -> object:
        if isinstance(value, str):
            return printable(value)
        return None if isinstance(value, float) and math.isnan(value) else value

    output = StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([text(value) for value in row] for row in rows)
    return output.getvalue().encode(errors="replace")
