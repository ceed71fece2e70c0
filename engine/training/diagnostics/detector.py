"""Interface of the detectors, and the values that they exchange with the event stream."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from engine.config import Config
from engine.events import DiagnosisKind, TrainingEvent


@dataclass(frozen=True)
class TrainingSetup:
    """Facts about a training that remedies depend on."""

    config: Config
    run: str
    """Name or path of the run, as it is typed after a command."""


@dataclass(frozen=True)
class GpuReading:
    """Utilization of the GPU that trains."""

    utilization: float
    """Fraction of the last second in which the GPU computed, 0 to 1."""


@dataclass(frozen=True)
class DiskReading:
    """Free space of the file system of the run."""

    free_bytes: int


Observation = TrainingEvent | GpuReading | DiskReading


@dataclass(frozen=True)
class Finding:
    """Problem that a detector sees now."""

    message: str
    remedy: str


@dataclass(frozen=True)
class Recovered:
    """End of a problem, after which the same problem may be reported again."""


Outcome = Finding | Recovered | None


class Detector(ABC):
    """Immutable state of the search for one kind of problem in the observations of a training.

    A detector returns a finding at every observation that shows the problem; the caller reports the first one only.
    """

    kind: ClassVar[DiagnosisKind]

    @abstractmethod
    def observe(self, observation: Observation, setup: TrainingSetup) -> tuple[Self, Outcome]:
        """Return the state after an observation, and what the observation shows."""
