"""State of a training for display, built from its events: figures, samples, problems, and the lines of its log."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from engine import events
from engine.errors import printable
from engine.runs.directory import END_STATES, METRICS_FILE, RESUME_FILE, SAMPLES_FILE, WEIGHT_FILES, read_events
from lotr_tui.formatting import MISSING, PRETRAINED_NOTE, format_duration, format_perplexity
from lotr_tui.monitor.steps import RecordItem, StepColumns, group_steps

UNIGRAM_FRACTION = 0.9  # of the unigram perplexity, from which a model clearly uses the context
LogKind = Literal["plain", "evaluation", "command", "warning", "error"]
LOG_KINDS: dict[type[events.TrainingEvent], LogKind] = {
    events.Evaluated: "evaluation",
    events.CommandApplied: "command",
    events.Warned: "warning",
    events.Diagnosed: "warning",
    events.Failed: "error",
}
COMMAND_TEXTS = {"pause": "paused", "resume": "resumed", "prune": "pruned by its search"}


@dataclass(frozen=True)
class LossUnit:
    """Unit in which perplexities are shown: bits per character where another model made the tokens."""

    tokens_per_character: float = 0.0  # of the validation split, by which training perplexities are converted too
    is_perplexity: bool = True
    name: str = "perplexity"
    title: str = "perplexity"  # the name with remarks on the figures

    @classmethod
    def of(cls, started: events.Started | None) -> "LossUnit":
        if started is None or not started.base or not started.valid_characters:
            return PERPLEXITY
        name = "bits/character"
        return cls(started.valid_tokens / started.valid_characters, False, name, f"{name}, {PRETRAINED_NOTE}")

    def value(self, perplexity: float) -> float:
        return perplexity if self.is_perplexity else math.log2(perplexity) * self.tokens_per_character

    def perplexity(self, value: float) -> float:
        return value if self.is_perplexity else 2.0 ** (value / self.tokens_per_character)

    def format(self, perplexity: float | None) -> str:
        """Return a perplexity in this unit as text, and "-" if it is unknown or not finite."""
        if self.is_perplexity or perplexity is None:
            return format_perplexity(perplexity)
        return f"{self.value(perplexity):.3f}" if math.isfinite(perplexity) and perplexity > 0 else MISSING


PERPLEXITY = LossUnit()


@dataclass(frozen=True)
class LogLine:
    seconds: float
    step: float  # -1 without a step, infinity for the end of a training, which a resume removes
    kind: LogKind
    text: str


def describe_training_end(event: events.Finished) -> str:
    return "done (early stopping)" if event.reason == "patience" else event.reason


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
    dismissed: list[events.Diagnosed] = field(default_factory=list)
    paused: bool = False
    finished: events.Finished | None = None
    failure: str = ""
    checkpoint_step: int | None = None  # of the latest checkpoint to resume from
    notice: str = ""  # about a followed run, such as that no process trains it
    log: list[LogLine] = field(default_factory=list)

    @classmethod
    def from_run(cls, path: Path, *, subsample: bool = False) -> "TrainingView":
        """Read the view of a run directory; `subsample` reads only the last of consecutive steps, much faster."""
        view = cls()
        view.apply_metrics(group_steps(read_events(path / METRICS_FILE, subsample=subsample)))
        view.apply_samples(read_events(path / SAMPLES_FILE))
        return view

    def apply_metrics(self, items: Iterable[RecordItem]) -> None:
        """Apply the content of `metrics.jsonl`, which contains no samples."""
        for item in items:
            if isinstance(item, np.ndarray):
                self.steps.extend(item)
            elif isinstance(item, events.Resume):
                self._rewind(item)
            else:
                self.apply(item)

    def apply_samples(self, items: Iterable[events.TrainingEvent]) -> None:
        """Apply the events of `samples.jsonl`, whose resumes concern samples alone."""
        for event in items:
            if isinstance(event, events.Resume):
                self.samples = [sample for sample in self.samples if sample.step < event.step]
            elif isinstance(event, events.Sampled):
                self.samples.append(event)

    def apply(self, event: events.TrainingEvent) -> None:
        """Apply one live event."""
        match event:
            case events.Step():
                self.steps.append(event)
                return
            case events.Sampled():
                self.samples.append(event)
                return
            case events.Resume():
                self.apply_samples([event])
                self._rewind(event)
                return
            case events.Preparing():
                self.activity = event.message
            case events.Started():
                self.started, self.phase, self.activity = event, "training", ""
            case events.Evaluated():
                if self.evaluations:  # a model takes megabytes, and only the latest one is used
                    self.evaluations[-1] = replace(self.evaluations[-1], model=None)
                self.evaluations.append(event)
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
        self._add_to_log(event)

    def _rewind(self, event: events.Resume) -> None:
        """Remove everything of the step of a resume and later steps except samples; the training repeats it."""
        self.steps.rewind(event.step)
        self.evaluations = [each for each in self.evaluations if each.step < event.step]
        self.applied_commands = [each for each in self.applied_commands if each.step < event.step]
        self.diagnoses = [each for each in self.diagnoses if each.step < event.step]
        self.log = [line for line in self.log if line.step < event.step]
        self.finished, self.failure, self.paused = None, "", False
        self.phase, self.activity = ("training", "") if self.started else ("preparing", self.activity)
        self._add_to_log(event)

    def _add_to_log(self, event: events.TrainingEvent) -> None:
        last, step = (self.log[-1] if self.log else None), getattr(event, "step", -1)
        is_new_best = isinstance(event, events.Checkpointed) and event.file in WEIGHT_FILES
        if is_new_best and last is not None and (last.kind, last.step) == ("evaluation", step):
            self.log[-1] = replace(last, text=f"{last.text}, saved")
            return
        text, kind = printable(self._log_text(event)), LOG_KINDS.get(type(event), "plain")
        if text and not (isinstance(event, events.Preparing) and last and last.text == text):
            step = math.inf if isinstance(event, (events.Finished, events.Failed)) else step
            self.log.append(LogLine(self.seconds, step, kind, text))

    def _log_text(self, event: events.TrainingEvent) -> str:
        unit = self.unit
        match event:
            case events.Preparing() | events.Warned() | events.Failed():
                return event.message
            case events.Started():
                figures = "" if unit.is_perplexity else f" ({unit.title})"
                return (
                    f"{event.parameters:,} parameters, {event.train_tokens:,} tokens, on {event.device};"
                    f" baselines{figures}: unigram {unit.format(event.unigram_perplexity)},"
                    f" Kneser-Ney {unit.format(event.kneser_ney_perplexity)}"
                )
            case events.Resume():
                return f"resumed at step {event.step:,}"
            case events.Evaluated():
                best = ", new best" if event.is_best else ""
                return f"epoch {event.epoch:.1f}: valid {unit.format(event.valid_perplexity)}{best}"
            case events.CommandApplied(kind="prompt"):
                return f"sample prompt: “{event.value}”"
            case events.CommandApplied(kind="lr"):
                return f"learning rate × {event.value}"
            case events.CommandApplied():
                return COMMAND_TEXTS.get(event.kind, f"{event.kind} requested")
            case events.Checkpointed():
                at_step = f" at step {event.step:,}, to resume from" if event.file == RESUME_FILE else ""
                return f"saved {event.file}{at_step}"
            case events.Diagnosed():
                return f"{event.message}; {event.remedy}"
            case events.Finished():
                return f"{describe_training_end(event)} after {format_duration(event.seconds)}"
        return ""

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
        return LossUnit.of(self.started)

    @property
    def is_active(self) -> bool:
        return self.phase in ("preparing", "training")

    @property
    def is_resumable(self) -> bool:
        is_stopped = self.finished is not None and END_STATES.get(self.finished.reason) == "stopped"
        return self.phase == "failed" or is_stopped

    def _last_command(self, kind: str) -> str | None:
        return next((event.value for event in reversed(self.applied_commands) if event.kind == kind), None)

    @property
    def lr_scale(self) -> float:
        """Factor of the scheduled learning rate that was set by a command; 1 by default."""
        try:
            return float(self._last_command("lr") or 1)
        except ValueError:  # damaged metrics
            return math.nan

    @property
    def prompt(self) -> str:
        """Prompt of the samples; "" before the first sample."""
        commanded = self._last_command("prompt")
        return commanded if commanded is not None else self.samples[-1].prompt if self.samples else ""

    @property
    def best(self) -> events.Evaluated | None:
        evaluations = (event for event in self.evaluations if not math.isnan(event.valid_perplexity))
        return min(evaluations, key=lambda event: event.valid_perplexity, default=None)

    @property
    def step(self) -> int:
        return int(self._latest("step"))

    @property
    def seconds(self) -> float:
        return self._latest("seconds")

    @property
    def epoch(self) -> float:
        """Number of epochs done, with fraction."""
        return self._latest("epoch")

    @property
    def epochs(self) -> int:
        """Number of epochs planned; 0 before the training starts."""
        return self.started.epochs if self.started else 0

    def _latest(self, name: str) -> float:
        final = getattr(self.finished, f"{name}s" if name == "epoch" else name, math.nan)
        if math.isfinite(final):
            return float(final)
        values = self.steps.column(name)[-1:].tolist()
        values += [float(getattr(event, name)) for event in self.evaluations[-1:]]
        return max((value for value in values if math.isfinite(value)), default=0.0)
