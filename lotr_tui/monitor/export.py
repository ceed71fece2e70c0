"""Export of the metrics of a run to CSV files or TensorBoard."""

import tempfile
from dataclasses import fields
from pathlib import Path

from engine.errors import printable
from engine.events import EVENT_NAMES, Sampled, Step, TrainingEvent, event_to_dict
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE, drop_superseded, read_events
from engine.runtime.process import require_package
from engine.storage.files import write_folder
from lotr_tui.monitor.training_view import STEP_FIELDS, TrainingView
from lotr_tui.trackers.follower import write_tensorboard
from lotr_tui.trackers.libraries import check_installed


def export_csv(run: Path, folder: Path) -> list[Path]:
    """Write one CSV file per record type to a new folder, as `step.csv`. Return the paths of the files, sorted.

    Rows that a resumed training has superseded are left out, and unknown numbers are empty cells. A folder that exists
    or cannot be written raises a RunError.
    """
    require_package("pandas", "export to CSV")
    import pandas  # takes 0.35 s, which the list of runs does not need

    events_by_type: dict[str, list[TrainingEvent]] = {}
    records = (read_events(run / name, subsample=True) for name in (METRICS_FILE, SAMPLES_FILE))
    metrics, samples = map(drop_superseded, records)
    for event in (*metrics, *(sample for sample in samples if isinstance(sample, Sampled))):
        events_by_type.setdefault(EVENT_NAMES[type(event)], []).append(event)
    events_by_type.pop(EVENT_NAMES[Step], None)
    steps = TrainingView.from_run(run).steps  # not subsampled
    tables = {}
    for record_type, events in events_by_type.items():
        names = [item.name for item in fields(events[0]) if item.name != "model"]
        tables[f"{record_type}.csv"] = pandas.DataFrame(map(event_to_dict, events), columns=names)
    if len(steps):
        table = pandas.DataFrame({name: steps.column(name) for name in STEP_FIELDS})
        tables["step.csv"] = table.astype({"step": int})
    contents = {}
    for name, table in tables.items():
        text = table.map(lambda value: printable(value) if isinstance(value, str) else value)
        contents[name] = text.to_csv(index=False, lineterminator="\n").encode(errors="replace")
    write_folder(folder, contents)
    return sorted(folder.iterdir())


def export_tensorboard(run: Path, folder: Path) -> None:
    """Write the curves, samples and settings of a run to a new folder, for `tensorboard --logdir FOLDER`.

    A missing TensorBoard raises an InvalidInputError, and a folder that exists or cannot be written a RunError.
    """
    check_installed(["tensorboard"])
    with tempfile.TemporaryDirectory() as partial:
        write_tensorboard(run, Path(partial))
        write_folder(folder, {path.name: path.read_bytes() for path in Path(partial).iterdir()})
