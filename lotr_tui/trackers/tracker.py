"""The interface of an experiment tracker, and the data that a tracker receives."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Setting = str | int | float | bool
CloseStatus = Literal["finished", "stopped", "failed"]
"""State of a training when its tracker is closed. A stopped or failed training can be resumed."""

PROJECT = "lotr-tui"
"""Name of the project or experiment in trackers that group runs; each tracker's own variable changes the name."""


@dataclass(frozen=True)
class TrackedRun:
    """Description of a run for a tracker."""

    name: str
    path: Path
    """Run directory."""
    settings: Mapping[str, Setting]
    """Configuration and description of the training, by name."""
    tracker_id: str
    """Identifier that the tracker returned when the run was sent before; "" the first time."""


@dataclass(frozen=True)
class MetricPoint:
    """Values of some metrics at one optimizer step."""

    step: int
    time: float
    """Seconds since 1970."""
    values: Mapping[str, float]
    """Finite values by metric name, at least one."""


@dataclass(frozen=True)
class TextSample:
    """Text sample of the model at one optimizer step."""

    step: int
    time: float
    """Seconds since 1970."""
    text: str
    """Prompt and continuation, as printable text."""


class Tracker(Protocol):
    """Connection to an experiment tracker, opened for one run.

    Every method may raise any exception and may block for long: a tracker runs in a separate process.
    """

    tracker_id: str
    """Identifier with which the run is opened again."""

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        """Send metrics, in the order of their steps."""

    def log_sample(self, sample: TextSample) -> None:
        """Send a text sample."""

    def flush(self) -> bool:
        """Return True if everything that was sent would survive a kill of this process."""

    def close(self, status: CloseStatus, results: Mapping[str, float], model_files: Sequence[Path]) -> None:
        """Send the results and the files of the model, and end the connection; afterwards everything is stored.

        `results` and `model_files` are empty unless the training is finished.
        """


def artifact_name(run_name: str) -> str:
    """Return the name of the model of a run, in the characters that trackers allow."""
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', run_name)}-model"
