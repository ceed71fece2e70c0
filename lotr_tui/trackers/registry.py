"""The known experiment trackers: their names, packages, and how to open them."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from engine.errors import InvalidInputError
from lotr_tui.trackers.tracker import TrackedRun, Tracker

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
TRACKER_NAMES: tuple[TrackerName, ...] = get_args(TrackerName)


def parse_tracker_names(names: Sequence[str]) -> list[TrackerName]:
    """Return the names of trackers without repetitions; an unknown name raises an InvalidInputError."""
    parsed: list[TrackerName] = []
    for text in names:
        name = next((name for name in TRACKER_NAMES if name == text), None)
        if name is None:
            raise InvalidInputError(f"--log {text} is not one of {', '.join(TRACKER_NAMES)}")
        if name not in parsed:
            parsed.append(name)
    return parsed


def check_installed(names: Sequence[TrackerName]) -> None:
    """Raise an InvalidInputError if the package of a tracker is not installed. No package is imported."""
    for name in names:
        if name in sys.modules and sys.modules[name] is None:
            is_installed = False
        else:
            is_installed = importlib.util.find_spec(name) is not None
        if not is_installed:
            raise InvalidInputError(f"{name} is not installed; pip install 'lotr-tui[{name}]'")


def open_tracker(name: TrackerName, run: TrackedRun) -> Tracker:
    """Open a run in a tracker: a new one, or the one with the identifier `run.tracker_id`.

    Raises:
        InvalidInputError: If the package of the tracker is not installed.
        Exception: Any exception of the package.
    """
    check_installed([name])
    if name == "tensorboard":
        from lotr_tui.trackers.tensorboard import TensorBoardTracker

        return TensorBoardTracker(run.path / name, run)
    if name == "wandb":
        from lotr_tui.trackers.wandb import WandbTracker

        return WandbTracker(run)
    if name == "mlflow":
        from lotr_tui.trackers.mlflow import MlflowTracker

        return MlflowTracker(run)
    from lotr_tui.trackers.trackio import TrackioTracker

    return TrackioTracker(run)


def view_command(name: TrackerName, run_dir: Path) -> str:
    """Return a shell command that shows the runs of a tracker."""
    if name == "tensorboard":
        from lotr_tui.trackers.tensorboard import view_command
    elif name == "wandb":
        from lotr_tui.trackers.wandb import view_command
    elif name == "mlflow":
        from lotr_tui.trackers.mlflow import view_command
    else:
        from lotr_tui.trackers.trackio import view_command
    return view_command(run_dir)
