"""A disk without room for the next checkpoint."""

from dataclasses import dataclass, replace
from typing import ClassVar

from engine.config import TrainingConfig
from engine.events import DiagnosisKind, Snapshot, Started
from engine.training.diagnostics.detector import (
    Detector,
    DiskReading,
    Finding,
    Observation,
    Outcome,
    Recovered,
    TrainingSetup,
)
from engine.training.diagnostics.wording import format_megabytes

MARGIN = 1.1
"""Free space that a checkpoint needs, divided by its size: the metrics and the model grow too."""
RECOVERED_CHECKPOINTS = 2
"""Checkpoints that must fit before the same problem is reported again, so that it is not reported at every change."""


@dataclass(frozen=True)
class DiskSpace(Detector):
    """Size of the next checkpoint, which is estimated before the first one.

    A checkpoint is written next to the old one, and then takes its place. So each one needs its own size.
    """

    kind: ClassVar[DiagnosisKind] = "disk_space"

    checkpoint_bytes: int = 0
    is_low: bool = False

    def observe(self, observation: Observation, setup: TrainingSetup) -> tuple["DiskSpace", Outcome]:
        """Return a finding if the next checkpoint does not fit, and `Recovered` once two of them do."""
        if isinstance(observation, Started):
            return replace(self, checkpoint_bytes=_estimate_bytes(observation.parameters, setup.config.training)), None
        if isinstance(observation, Snapshot):
            return replace(self, checkpoint_bytes=len(observation.content)), None
        if not isinstance(observation, DiskReading):
            return self, None
        needed = MARGIN * self.checkpoint_bytes
        if observation.free_bytes < needed:
            message = (
                f"no space for the next checkpoint: it needs {format_megabytes(needed)}, and "
                f"{format_megabytes(observation.free_bytes)} are free where the run is kept"
            )
            remedy = "delete files there, such as runs you do not need (lotr-tui runs rm RUN); the training continues"
            return replace(self, is_low=True), Finding(message, remedy)
        if self.is_low and observation.free_bytes >= RECOVERED_CHECKPOINTS * needed:
            return replace(self, is_low=False), Recovered()
        return self, None


def _estimate_bytes(parameters: int, options: TrainingConfig) -> int:
    """Return the approximate size of a checkpoint: copies of the model in 32-bit numbers."""
    copies = 2  # the network and the best model
    copies += 0 if options.optimizer == "sgd" else 2  # the two moments of Adam
    copies += options.averaging == "ema"
    return 4 * parameters * copies
