"""Progress of sending a run to a tracker, kept in the run directory, so that the missing part can be sent later."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engine.errors import InvalidInputError, RunError
from engine.storage.files import read_limited, write_atomically
from engine.storage.schema import decode_json
from lotr_tui.trackers.registry import TRACKER_NAMES, TrackerName

FOLDER = "trackers"
"""Folder in the run directory with one state, lock and log file per tracker."""
MAX_STATE_BYTES = 100_000


@dataclass(frozen=True)
class SendState:
    """Progress of sending a run to one tracker."""

    tracker_id: str = ""
    """Identifier of the run in the tracker; "" before the first connection."""
    last_steps: Mapping[str, int] = field(default_factory=dict)
    """Step of the last event that the tracker has stored, by the name of the event."""
    is_complete: bool = False
    """True if everything was sent, including the end of the training and the model."""


def state_file(run_dir: Path, name: TrackerName, suffix: str = ".json") -> Path:
    """Return the path of the state of a tracker, or of its other files: ".lock" and ".log"."""
    return run_dir / FOLDER / f"{name}{suffix}"


def read_state(run_dir: Path, name: TrackerName) -> SendState:
    """Read the state of a tracker; a run that was never sent has an empty state.

    Raises:
        RunError: If the file is damaged or cannot be read.
    """
    path = state_file(run_dir, name)
    try:
        return decode_json(SendState, read_limited(path, MAX_STATE_BYTES))
    except FileNotFoundError:
        return SendState()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except InvalidInputError as error:
        raise RunError(f"{path} is damaged: {error}; delete it to send the whole run again") from error


def write_state(run_dir: Path, name: TrackerName, state: SendState) -> None:
    """Write the state of a tracker; a failure raises a RunError."""
    path = state_file(run_dir, name)
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path.parent}: {error.strerror}") from error
    write_atomically(path, json.dumps(asdict(state)).encode())


def choose_trackers(run_dir: Path, names: Sequence[TrackerName]) -> None:
    """Record that a run is sent to these trackers, also after it is resumed, in addition to earlier ones.

    Raises:
        RunError: If the run directory cannot be written.
    """
    for name in dict.fromkeys(names):
        if not state_file(run_dir, name).exists():
            write_state(run_dir, name, SendState())


def chosen_trackers(run_dir: Path) -> list[TrackerName]:
    """Return the names of the trackers that a run is sent to."""
    return [name for name in TRACKER_NAMES if state_file(run_dir, name).is_file()]
