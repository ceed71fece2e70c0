"""What is known of a training, gathered from its events: all that a screen shows of it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from engine.events import (
    Checkpointed,
    Evaluated,
    Failed,
    Finished,
    Preparing,
    Resume,
    Sampled,
    Started,
    Steered,
    Step,
    TrainingEvent,
)
from engine.runs.metrics import read_rows
from engine.runs.store import METRICS, RESUME, SAMPLES
from lotr_tui.monitor.log_lines import LogLine, TrainingLog
from lotr_tui.monitor.metrics_reader import Part, parts_of
from lotr_tui.monitor.step_columns import StepColumns

Phase = Literal["preparing", "training", "finished", "failed"]


@dataclass
class TrainingView:
    """Events in, figures out. Built live from a worker, or from the record of a run."""

    phase: Phase = "preparing"
    note: str = "starting"
    started: Started | None = None
    steps: StepColumns = field(default_factory=StepColumns)
    evaluations: list[Evaluated] = field(default_factory=list)
    samples: list[Sampled] = field(default_factory=list)
    steered: list[Steered] = field(default_factory=list)
    resumes: int = 0
    """How often it was gone on with after it had been left."""
    paused: bool = False
    finished: Finished | None = None
    failure: str = ""
    saved_step: int | None = None
    """The update that it could be gone on with after, were it to end now; None: nothing was saved yet."""
    notice: str = ""
    """Of a run that another process trains: what there is to say of following it, as that nobody trains it now."""
    _log: TrainingLog = field(default_factory=TrainingLog, compare=False)

    @classmethod
    def of_run(cls, path: Path, *, outline: bool = False) -> "TrainingView":
        """What the record of a run tells; with `outline` without most reports, which is many times as fast."""
        view = cls()
        view.take_metrics(parts_of(read_rows(path / METRICS, outline=outline)))
        view.take_samples(parts_of(read_rows(path / SAMPLES)))
        return view

    @classmethod
    def of_resumed(cls, path: Path) -> "TrainingView":
        """What is known of a run that was left and is about to be gone on with."""
        view = cls.of_run(path)
        view.finished, view.failure, view.phase, view.note = None, "", "preparing", "going on"
        return view

    def take_metrics(self, parts: Iterable[Part]) -> None:
        """Take in what `metrics.jsonl` has; samples stand elsewhere."""
        for part in parts:
            if isinstance(part, np.ndarray):
                self.steps.extend(part)
            elif isinstance(part, Resume):
                self._forget_from(part.step)
                self._log.add(part, self.seconds)
            else:
                self.apply(part)

    def take_samples(self, parts: Iterable[Part]) -> None:
        """Take in what `samples.jsonl` has: a resume that stands there concerns samples alone."""
        for part in parts:
            if isinstance(part, Resume):
                self._forget_samples_from(part.step)
            elif isinstance(part, Sampled):
                self.samples.append(part)

    def apply(self, event: TrainingEvent) -> None:
        """Take in one event."""
        if isinstance(event, Resume):
            self._forget_from(event.step)
            self._forget_samples_from(event.step)
        match event:
            case Preparing():
                self.note = event.what
            case Started():
                self.started, self.phase, self.note = event, "training", ""
            case Step():
                self.steps.append(event)
            case Evaluated():
                if self.evaluations:  # a model is megabytes, and only the latest is played with
                    self.evaluations[-1] = replace(self.evaluations[-1], model=None)
                self.evaluations.append(event)
            case Sampled():
                self.samples.append(event)
            case Steered():
                self.steered.append(event)
                self.paused = event.what == "pause" or (self.paused and event.what != "go_on")
            case Checkpointed():
                self.saved_step = event.step if event.file == RESUME else self.saved_step
            case Finished():
                self.finished, self.phase, self.paused = event, "finished", False
            case Failed():
                self.failure, self.phase, self.paused = event.message, "failed", False
        if not isinstance(event, (Step, Sampled)):
            self._log.add(event, self.seconds)

    def _forget_from(self, step: int) -> None:
        """This update and later ones are done again."""
        self.steps.forget_from(step)
        self.evaluations = [event for event in self.evaluations if event.step < step]
        self.steered = [event for event in self.steered if event.step < step]
        self._log.forget_from(step)
        self.resumes += 1
        self.paused = False
        self.finished, self.failure = None, ""
        self.phase, self.note = ("training", "") if self.started else ("preparing", self.note)

    def _forget_samples_from(self, step: int) -> None:
        self.samples = [event for event in self.samples if event.step < step]

    @property
    def log(self) -> list[LogLine]:
        """What happened, oldest first."""
        return self._log.lines

    @property
    def active(self) -> bool:
        """Whether it is still going on."""
        return self.phase in ("preparing", "training")

    @property
    def left(self) -> bool:
        """Whether it ended before its end, so that it can be gone on with."""
        return self.phase == "failed" or (self.finished is not None and self.finished.reason in ("stopped", "detached"))

    @property
    def lr_share(self) -> float:
        """The share of the scheduled learning rate that was asked for; 1 if none was."""
        value = next((event.value for event in reversed(self.steered) if event.what == "lr"), "1")
        try:
            return float(value)
        except ValueError:  # a damaged record
            return math.nan

    @property
    def prompt(self) -> str:
        """What is continued at every evaluation; "" before the first."""
        asked = next((event.value for event in reversed(self.steered) if event.what == "prompt"), None)
        return asked if asked is not None else self.samples[-1].prompt if self.samples else ""

    @property
    def best(self) -> Evaluated | None:
        """The evaluation with the lowest validation perplexity."""
        numbers = (event for event in self.evaluations if not math.isnan(event.valid_perplexity))
        return min(numbers, key=lambda event: event.valid_perplexity, default=None)

    @property
    def step(self) -> int:
        """Updates done."""
        return int(self._latest("step"))

    @property
    def seconds(self) -> float:
        """Of training."""
        if self.finished and math.isfinite(self.finished.seconds):
            return self.finished.seconds
        return self._latest("seconds")

    @property
    def epoch(self) -> float:
        """Epochs done."""
        if self.finished and math.isfinite(self.finished.epochs):
            return self.finished.epochs
        return self._latest("epoch")

    @property
    def epochs(self) -> int:
        """Epochs planned."""
        return self.started.epochs if self.started else 0

    def _latest(self, name: str) -> float:
        """The highest of the last report and the last evaluation, which both have this; a damaged record has NaN."""
        reports = self.steps.column(name)[-1:].tolist()
        values = [*reports, *(float(getattr(event, name)) for event in self.evaluations[-1:])]
        return max((value for value in values if math.isfinite(value)), default=0.0)
