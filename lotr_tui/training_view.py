"""What is known of a training, gathered from its events: all that a screen shows of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
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
    Step,
    TrainingEvent,
)
from engine.record import read_rows
from engine.runs import METRICS, SAMPLES
from lotr_tui.record_parts import Part, parts_of
from lotr_tui.step_columns import StepColumns

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
    finished: Finished | None = None
    failure: str = ""
    saved_step: int = 0
    notice: str = ""
    """Of a run that another process trains: what there is to say of following it, as that nobody trains it now."""

    @classmethod
    def of_run(cls, path: Path, *, outline: bool = False) -> "TrainingView":
        """What the record of a run tells; with `outline` without most reports, which is many times as fast."""
        view = cls()
        view.take_metrics(parts_of(read_rows(path / METRICS, outline=outline)))
        view.take_samples(parts_of(read_rows(path / SAMPLES)))
        return view

    def take_metrics(self, parts: Iterable[Part]) -> None:
        """Take in what `metrics.jsonl` has; samples stand elsewhere."""
        for part in parts:
            if isinstance(part, np.ndarray):
                self.steps.extend(part)
            elif isinstance(part, Resume):
                self._forget_from(part.step)
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
        match event:
            case Preparing():
                self.note = event.what
            case Started():
                self.started, self.phase, self.note = event, "training", ""
            case Resume():
                self._forget_from(event.step)
                self._forget_samples_from(event.step)
            case Step():
                self.steps.append(event)
            case Evaluated():
                self.evaluations.append(event)
            case Sampled():
                self.samples.append(event)
            case Checkpointed():
                self.saved_step = event.step
            case Finished():
                self.finished, self.phase = event, "finished"
            case Failed():
                self.failure, self.phase = event.message, "failed"

    def _forget_from(self, step: int) -> None:
        """This update and later ones are done again."""
        self.steps.forget_from(step)
        self.evaluations = [event for event in self.evaluations if event.step < step]
        self.finished, self.failure = None, ""
        self.phase, self.note = ("training", "") if self.started else ("preparing", self.note)

    def _forget_samples_from(self, step: int) -> None:
        self.samples = [event for event in self.samples if event.step < step]

    @property
    def active(self) -> bool:
        """Whether it is still going on."""
        return self.phase in ("preparing", "training")

    @property
    def left(self) -> bool:
        """Whether it ended before its end, so that it can be gone on with."""
        return self.phase == "failed" or (self.finished is not None and self.finished.reason in ("stopped", "detached"))

    @property
    def best(self) -> Evaluated | None:
        """The evaluation with the lowest validation perplexity."""
        return min(self.evaluations, key=lambda event: event.valid_perplexity, default=None)

    @property
    def epoch(self) -> float:
        """Epochs done."""
        if self.finished:
            return self.finished.epochs
        epochs = [*self.steps.column("epoch")[-1:].tolist(), *(event.epoch for event in self.evaluations[-1:])]
        return max(epochs, default=0.0)

    @property
    def epochs(self) -> int:
        """Epochs planned."""
        return self.started.epochs if self.started else 0
