"""Diagnoses in the event stream of a training."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.config import Config
from engine.events import Diagnosed, Evaluated, Resume, Started, Step, TrainingEvent, event_from_dict
from engine.runs.directory import METRICS_FILE, run_word
from engine.runs.metrics import drop_superseded_rows, read_rows
from engine.training.diagnostics.detector import Detector, Finding, Observation, Recovered, TrainingSetup
from engine.training.diagnostics.disk_space import DiskSpace
from engine.training.diagnostics.forgetting import Forgetting
from engine.training.diagnostics.gradients import ExplodingGradients, VanishingGradients
from engine.training.diagnostics.idle_gpu import IdleGpu
from engine.training.diagnostics.loss_spike import LossSpike
from engine.training.diagnostics.probes import DiskProbe, GpuProbe, is_gpu
from engine.training.diagnostics.rising_validation import RisingValidation
from engine.training.diagnostics.unigram_model import UnigramModel

REMEMBERED_EVENTS = (Started, Evaluated, Diagnosed)
"""Events before a resume that detectors need. Detectors that read steps start again, since steps are many."""


def all_detectors() -> list[Detector]:
    """Return every detector, in its state before a training."""
    return [
        RisingValidation(), LossSpike(), Forgetting(), VanishingGradients(), ExplodingGradients(), UnigramModel(),
        IdleGpu(), DiskSpace(),
    ]  # fmt: skip


class Diagnostician:
    """Detectors of one training, and the kinds of problems that were reported."""

    def __init__(self, setup: TrainingSetup, detectors: Iterable[Detector] | None = None) -> None:
        """Start with `detectors`; None for all of them."""
        self._setup = setup
        self._detectors = list(all_detectors() if detectors is None else detectors)
        self._reported: set[str] = set()
        self._step, self._epoch = 0, 0.0

    def observe(self, observation: Observation) -> list[Diagnosed]:
        """Return the problems that an observation shows and that were not reported before."""
        if isinstance(observation, (Step, Evaluated)):
            self._step, self._epoch = observation.step, observation.epoch
        diagnoses = []
        for index, detector in enumerate(self._detectors):
            self._detectors[index], outcome = detector.observe(observation, self._setup)
            if isinstance(outcome, Recovered):
                self._reported.discard(detector.kind)
            elif isinstance(outcome, Finding) and detector.kind not in self._reported:
                self._reported.add(detector.kind)
                diagnosis = Diagnosed(self._step, self._epoch, detector.kind, outcome.message, outcome.remedy)
                diagnoses.append(diagnosis)
        return diagnoses

    def restore(self, earlier: Iterable[TrainingEvent]) -> None:
        """Continue after the events of an earlier process, without reporting their problems again."""
        for event in earlier:
            if isinstance(event, Diagnosed):
                self._reported.add(event.kind)
            elif isinstance(event, REMEMBERED_EVENTS):
                reported = set(self._reported)
                self.observe(event)
                self._reported = reported


def diagnose(training: Iterator[TrainingEvent], config: Config, run_dir: Path) -> Iterator[TrainingEvent]:
    """Yield the events of `training`, and after each of them the problems that it shows.

    After a resume, the rows of `run_dir` hold earlier evaluations and reported problems. The main process of a
    distributed training calls this function; the others report nothing.
    """
    setup = TrainingSetup(config, run_word(run_dir))
    diagnostician = Diagnostician(setup)
    disk = DiskProbe(run_dir)
    gpu: GpuProbe | None = None
    started: Started | None = None
    try:
        for event in training:
            if isinstance(event, Resume):
                diagnostician = Diagnostician(setup)
                diagnostician.restore(_read_earlier_events(run_dir, event.step))
                if started is not None:  # its row may be unwritten, as on a full disk
                    diagnostician.observe(started)
            elif isinstance(event, Started):
                started = event
                gpu = GpuProbe(event.device) if is_gpu(event.device) else None
            yield event
            observations: list[Observation] = [] if gpu is None else [*gpu.read()]
            observations.append(event)
            if isinstance(event, (Started, Step, Evaluated)):
                observations += disk.read()
            for observation in observations:
                yield from diagnostician.observe(observation)
    finally:
        if gpu is not None:
            gpu.close()


def _read_earlier_events(run_dir: Path, resume_step: int) -> Iterator[TrainingEvent]:
    """Yield the events in the metrics of a run that a resume at `resume_step` does not supersede, except steps."""
    rows = read_rows(run_dir / METRICS_FILE, subsample=True)
    resume = {"event": "resume", "step": resume_step}
    for row in drop_superseded_rows([*rows, resume]):
        if row["event"] != "step" and (event := event_from_dict(row)) is not None:
            yield event
