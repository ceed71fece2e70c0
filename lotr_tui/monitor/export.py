"""Export of the metrics of a run to CSV files or TensorBoard."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import RunError, printable
from engine.events import Sampled, Step, TrainingEvent, event_name, event_to_dict
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE
from engine.runs.metrics import read_current_events
from engine.runtime.process import require_package
from engine.storage.files import fsync_path
from lotr_tui.monitor.step_columns import STEP_FIELDS
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.trackers.follower import write_tensorboard
from lotr_tui.trackers.libraries import check_installed

if TYPE_CHECKING:
    import pandas as pd


def export_csv(run: Path, folder: Path) -> list[Path]:
    """Write one CSV file per record type, named after it, as `step.csv`. Return the paths of the files, sorted.

    Rows that a resumed training has superseded are left out, and unknown numbers are empty cells.

    Raises:
        InvalidInputError: If pandas is not installed.
        RunError: If the folder is not empty or cannot be written.
    """
    require_package("pandas", "export to CSV")
    import pandas as pd  # takes 0.35 s, which other commands do not need

    events_by_type: dict[str, list[TrainingEvent]] = {}
    metrics, samples = (read_current_events(run / name, subsample=True) for name in (METRICS_FILE, SAMPLES_FILE))
    for event in (*metrics, *(sample for sample in samples if isinstance(sample, Sampled))):
        events_by_type.setdefault(event_name(type(event)), []).append(event)
    events_by_type.pop(event_name(Step), None)
    view = TrainingView.from_run(run)
    with _fill_folder(folder) as partial:
        for record_type, events in events_by_type.items():
            names = [item.name for item in fields(events[0]) if item.name != "model"]
            rows = [_printable_values(event_to_dict(event)) for event in events]
            _write_csv(partial / f"{record_type}.csv", pd.DataFrame(rows, columns=names, dtype=object))
        if len(view.steps):
            steps = {name: view.steps.column(name) for name in STEP_FIELDS}
            _write_csv(partial / "step.csv", pd.DataFrame(steps | {"step": [int(step) for step in steps["step"]]}))
    return sorted(folder.iterdir())


def export_tensorboard(run: Path, folder: Path) -> None:
    """Write the curves, samples and settings of a run for `tensorboard --logdir FOLDER`.

    Raises:
        InvalidInputError: If TensorBoard is not installed.
        RunError: If the folder is not empty or cannot be written.
    """
    check_installed(["tensorboard"])
    with _fill_folder(folder) as partial:
        write_tensorboard(run, partial)


def _printable_values(row: dict[str, Any]) -> dict[str, Any]:
    return {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}


@contextmanager
def _fill_folder(folder: Path) -> Iterator[Path]:
    """Create a folder, or take an empty one, and yield a folder in it whose files are moved up at the end of the block.

    A failure removes the written files, so that the folder holds a complete export or none.

    Raises:
        RunError: If the folder is not empty, or if it or a file in it cannot be written.
    """
    is_new = not folder.exists()
    partial = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RunError(f"{folder} is not empty, and nothing is overwritten; choose a new folder")
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
        yield partial
        for path in sorted(partial.iterdir()):
            fsync_path(path)
            path.replace(folder / path.name)
        partial.rmdir()
    except BaseException as error:
        if partial is not None:
            shutil.rmtree(folder if is_new else partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise RunError(f"cannot write to {folder}: {error.strerror}") from error
        raise


def _write_csv(path: Path, table: "pd.DataFrame") -> None:
    table.to_csv(path, index=False, encoding="utf-8", errors="replace")
