"""State of a training for display, built from its events."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from engine import events
from engine.runs.directory import METRICS_FILE, RESUME_FILE, SAMPLES_FILE, WEIGHT_FILES, read_events
from lotr_tui.monitor.steps import RecordItem, StepColumns, group_steps
from lotr_tui.monitor.training_log import LogLine, LossUnit, log_line

UNIGRAM_FRACTION = 0.9  # of the unigram perplexity, from which a model clearly uses the context


@dataclass
class TrainingView:
    """State of a training, built from live events or from the metrics and samples of a run."""

    phase: Literal["preparing", "training", "finished", "failed"] = "preparing"
    activity: str = "starting"  # part of the preparation; empty while training
    started: events.Started | None = None
    steps: StepColumns = field(default_factory=StepColumns)
    evaluations: list[events.Evaluated] = field(default_factory=list)  # only the latest one keeps its model
    samples: list[events.Sampled] = field(default_factory=list)
    applied_commands: list[events.CommandApplied] = field(default_factory=list)
    diagnoses: list[events.Diagnosed] = field(default_factory=list)
    resume_count: int = 0
    paused: bool = False
    finished: events.Finished | None = None
    failure: str = ""
    checkpoint_step: int | None = None  # of the latest checkpoint to resume from
    notice: str = ""  # about a followed run, such as that no process trains it
    log: list[LogLine] = field(default_factory=list, compare=False)
    dismissed: list[events.Diagnosed] = field(default_factory=list, compare=False)

    @classmethod
    def from_run(cls, path: Path, *, subsample: bool = False) -> "TrainingView":
        """Read the view of a run directory; `subsample` reads only the last of consecutive steps, much faster."""
        view = cls()
        view.apply_metrics(group_steps(read_events(path / METRICS_FILE, subsample=subsample)))
        view.apply_samples(read_events(path / SAMPLES_FILE))
        return view

    @classmethod
    def from_resumed_run(cls, path: Path) -> "TrainingView":
        """Read the view of a run directory whose training is about to be resumed."""
        view = cls.from_run(path)
        view.finished, view.failure, view.phase, view.activity = None, "", "preparing", "resuming"
        return view

    def apply_metrics(self, items: Iterable[RecordItem]) -> None:
        """Apply the content of `metrics.jsonl`, which contains no samples."""
        for item in items:
            if isinstance(item, np.ndarray):
                self.steps.extend(item)
            elif isinstance(item, events.Resume):
                self._rewind(item.step)
                self._add_to_log(item)
            else:
                self.apply(item)

    def apply_samples(self, items: Iterable[events.TrainingEvent]) -> None:
        """Apply the events of `samples.jsonl`, whose resumes concern samples alone."""
        for event in items:
            if isinstance(event, events.Resume):
                self._rewind_samples(event.step)
            elif isinstance(event, events.Sampled):
                self.samples.append(event)

    def apply(self, event: events.TrainingEvent) -> None:
        """Apply one live event."""
        match event:
            case events.Resume():
                self._rewind(event.step)
                self._rewind_samples(event.step)
            case events.Preparing():
                self.activity = event.message
            case events.Started():
                self.started, self.phase, self.activity = event, "training", ""
            case events.Step():
                self.steps.append(event)
            case events.Evaluated():
                if self.evaluations:  # a model takes megabytes, and only the latest one is used
                    self.evaluations[-1] = replace(self.evaluations[-1], model=None)
                self.evaluations.append(event)
            case events.Sampled():
                self.samples.append(event)
            case events.CommandApplied():
                self.applied_commands.append(event)
                self.paused = event.kind == "pause" or (self.paused and event.kind != "resume")
            case events.Diagnosed():
                self.diagnoses.append(event)
            case events.Checkpointed(file=file) if file == RESUME_FILE:
                self.checkpoint_step = event.step
            case events.Finished():
                self.finished, self.phase, self.paused = event, "finished", False
            case events.Failed():
                self.failure, self.phase, self.paused = event.message, "failed", False
        if not isinstance(event, (events.Step, events.Sampled)):
            self._add_to_log(event)

    def _add_to_log(self, event: events.TrainingEvent) -> None:
        last, line = (self.log[-1] if self.log else None), log_line(event, self.seconds, self.unit)
        is_new_best = isinstance(event, events.Checkpointed) and event.file in WEIGHT_FILES
        if is_new_best and last is not None and (last.kind, last.step) == ("evaluation", getattr(event, "step", -1)):
            self.log[-1] = replace(last, text=f"{last.text}, saved")
        elif line is not None and not (isinstance(event, events.Preparing) and last and last.text == line.text):
            self.log.append(line)

    def _rewind(self, step: int) -> None:
        """Remove everything of `step` and later steps except samples; a resumed training repeats it."""
        self.steps.rewind(step)
        self.evaluations = [event for event in self.evaluations if event.step < step]
        self.applied_commands = [event for event in self.applied_commands if event.step < step]
        self.diagnoses = [event for event in self.diagnoses if event.step < step]
        self.log = [line for line in self.log if line.step < step]
        self.resume_count += 1
        self.paused = False
        self.finished, self.failure = None, ""
        self.phase, self.activity = ("training", "") if self.started else ("preparing", self.activity)

    def _rewind_samples(self, step: int) -> None:
        self.samples = [event for event in self.samples if event.step < step]

    @property
    def current_diagnoses(self) -> list[events.Diagnosed]:
        """Problems that were neither dismissed nor ended by later events, oldest first.

        A new best model ends a problem of learning, and a written checkpoint one of the disk.
        """
        unigram_perplexity = self.started.unigram_perplexity if self.started else math.nan

        def is_outdated(diagnosis: events.Diagnosed) -> bool:
            if diagnosis.kind == "idle_gpu":
                return False
            if diagnosis.kind == "disk_space":
                return self.checkpoint_step is not None and self.checkpoint_step > diagnosis.step
            later = [event for event in self.evaluations if event.step > diagnosis.step]
            if diagnosis.kind == "unigram_model":
                return any(event.valid_perplexity < UNIGRAM_FRACTION * unigram_perplexity for event in later)
            return any(event.is_best for event in later)

        return [each for each in self.diagnoses if each not in self.dismissed and not is_outdated(each)]

    @property
    def unit(self) -> LossUnit:
        """Unit in which the figures are shown."""
        return LossUnit.of(self.started)

    @property
    def is_active(self) -> bool:
        """True if the training has neither finished nor failed."""
        return self.phase in ("preparing", "training")

    @property
    def is_resumable(self) -> bool:
        """True if the training ended early, so that it can be resumed."""
        return self.phase == "failed" or (self.finished is not None and self.finished.reason in ("stopped", "detached"))

    @property
    def lr_scale(self) -> float:
        """Factor of the scheduled learning rate that was set by a command; 1 by default."""
        value = next((event.value for event in reversed(self.applied_commands) if event.kind == "lr"), "1")
        try:
            return float(value)
        except ValueError:  # damaged metrics
            return math.nan

    @property
    def prompt(self) -> str:
        """Prompt of the samples; "" before the first sample."""
        commanded = next((event.value for event in reversed(self.applied_commands) if event.kind == "prompt"), None)
        return commanded if commanded is not None else self.samples[-1].prompt if self.samples else ""

    @property
    def best(self) -> events.Evaluated | None:
        """Evaluation with the lowest validation perplexity; None before the first evaluation."""
        evaluations = (event for event in self.evaluations if not math.isnan(event.valid_perplexity))
        return min(evaluations, key=lambda event: event.valid_perplexity, default=None)

    @property
    def step(self) -> int:
        """Number of optimizer steps done."""
        return int(self._latest("step"))

    @property
    def seconds(self) -> float:
        """Training time in seconds."""
        if self.finished and math.isfinite(self.finished.seconds):
            return self.finished.seconds
        return self._latest("seconds")

    @property
    def epoch(self) -> float:
        """Number of epochs done, with fraction."""
        if self.finished and math.isfinite(self.finished.epochs):
            return self.finished.epochs
        return self._latest("epoch")

    @property
    def epochs(self) -> int:
        """Number of epochs planned; 0 before the training starts."""
        return self.started.epochs if self.started else 0

    def _latest(self, name: str) -> float:
        values = self.steps.column(name)[-1:].tolist()
        values += [float(getattr(event, name)) for event in self.evaluations[-1:]]
        return max((value for value in values if math.isfinite(value)), default=0.0)
