"""State of a training for display, built from its events: steps, figures, samples, problems and lines of a log."""

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Literal

import numpy as np

from engine import events
from engine.data.arrays import Float64Array
from engine.errors import printable
from engine.runs.directory import (
    END_STATES,
    METRICS_FILE,
    RESUME_FILE,
    SAMPLES_FILE,
    WEIGHT_FILES,
    RunSummary,
    read_events,
)
from lotr_tui.formatting import LINE_END_MARK, MISSING, PRETRAINED_NOTE, format_duration, format_perplexity

STEP_FIELDS = tuple(item.name for item in fields(events.Step))
CHUNK_SIZE = 10_000  # steps per array; as events they take ten times the memory
MAX_PERPLEXITY = 1e300  # from which a value is treated as missing
UNIGRAM_FRACTION = 0.9  # of the unigram perplexity, from which a model clearly uses the context
LogKind = Literal["plain", "evaluation", "command", "warning", "error"]
LOG_KINDS: dict[type[events.TrainingEvent], LogKind] = {
    events.Evaluated: "evaluation",
    events.CommandApplied: "command",
    events.Warned: "warning",
    events.Diagnosed: "warning",
    events.Failed: "error",
}
RecordItem = Float64Array | events.TrainingEvent  # steps `[field, step]`, or an event of another type
step_values = attrgetter(*STEP_FIELDS)
COMMAND_TEXTS = {"pause": "paused", "resume": "resumed", "prune": "pruned by its search"}


@dataclass(frozen=True)
class LossUnit:
    """Unit in which perplexities are shown: bits per character where another model made the tokens."""

    tokens_per_character: float = 0.0  # of the validation split, by which training perplexities are converted too
    is_perplexity: bool = True
    name: str = "perplexity"
    title: str = "perplexity"  # the name with remarks on the figures

    @classmethod
    def of(cls, run: events.Started | RunSummary | None) -> "LossUnit":
        if run is None or not run.tokens_per_character:
            return PERPLEXITY
        name = "bits/character"
        return cls(run.tokens_per_character, False, name, f"{name}, {PRETRAINED_NOTE}")

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


class StepColumns:
    """Growing array of `Step` events `[field, step]`, ordered by step; a resume removes steps from the end.

    A million steps take 64 MB and are drawn without a Python loop.
    """

    def __init__(self) -> None:
        self._values, self._length = np.empty((len(STEP_FIELDS), 1024)), 0
        self.rewind_count = 0  # values computed from earlier steps are then obsolete

    def __len__(self) -> int:
        return self._length

    def append(self, event: events.Step) -> None:
        self.extend(np.array([step_values(event)], np.float64).T)

    def extend(self, values: Float64Array) -> None:
        """Append steps `[field, step]`, with the fields in the order of `STEP_FIELDS`."""
        needed = self._length + values.shape[1]
        if needed > self._values.shape[1]:  # a copy of many steps blocks the screen, and unused memory is not resident
            grown = np.empty((len(STEP_FIELDS), 8 * needed))
            grown[:, : self._length] = self._values[:, : self._length]
            self._values = grown
        self._values[:, self._length : needed] = values
        self._length = needed

    def rewind(self, step: int) -> None:
        """Remove `step` and later steps."""
        self.rewind_count += 1
        self._length = int(np.searchsorted(self.column("step"), step))

    def column(self, name: str) -> Float64Array:
        """Return a view of the values `[step]` of a field of `Step`."""
        return self._values[STEP_FIELDS.index(name), : self._length]

    @property
    def last(self) -> events.Step | None:
        if not self._length:
            return None
        step, *values = self._values[:, self._length - 1].tolist()
        return events.Step(int(step), *values)


def group_steps(items: Iterable[events.TrainingEvent]) -> Iterator[RecordItem]:
    """Yield events in order, consecutive steps as arrays `[field, step]`."""
    for is_step, group in groupby(items, lambda event: isinstance(event, events.Step)):
        if not is_step:
            yield from group
        while is_step and (rows := [*map(step_values, islice(group, CHUNK_SIZE))]):
            yield np.array(rows, np.float64).T


class SmoothedPerplexity:
    """Exponential moving average of the base-10 logarithm of the training perplexity, updated incrementally."""

    def __init__(self, decay: float) -> None:
        """Smooth with `decay`, the weight of the previous mean in each new mean."""
        self._decay, self._mean, self._values = decay, math.nan, array("d")
        self._source: tuple[StepColumns | None, int] = None, 0

    def compute(self, steps: StepColumns) -> Float64Array:
        """Return the smoothed values `[step]`; NaN if the perplexity is not a positive number."""
        if self._source != (steps, steps.rewind_count):
            self._source, self._mean, self._values = (steps, steps.rewind_count), math.nan, array("d")
        for value in log10_or_nan(steps.column("train_perplexity")[len(self._values) :]).tolist():
            if not math.isnan(value):
                self._mean = value if math.isnan(self._mean) else self._mean + (1 - self._decay) * (value - self._mean)
            self._values.append(math.nan if math.isnan(value) else self._mean)
        return np.array(self._values)


def log10_or_nan(values: Float64Array) -> Float64Array:
    """Return base-10 logarithms; NaN for values that are not in (0, `MAX_PERPLEXITY`)."""
    valid = (values > 0) & (values < MAX_PERPLEXITY)
    return np.log10(values, where=valid, out=np.full(len(values), np.nan))


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
    line_scores: list[events.LinesScored] = field(default_factory=list)  # the first one names the lines
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
            case events.LinesScored():
                lines = [*self.line_scores, event][0].lines
                if [len(words) for _, words in lines] == [len(row) for row in event.log_probs]:  # else damaged metrics
                    self.line_scores.append(event)
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
        for name in ("evaluations", "line_scores", "applied_commands", "diagnoses", "log"):
            setattr(self, name, [each for each in getattr(self, name) if each.step < event.step])
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
    def num_lines(self) -> int:
        """Number of held-out lines whose words are scored; 0 except for adapters."""
        return len(self.line_scores[0].lines) if self.line_scores else 0

    def line_change(self, index: int, epoch: float | None = None) -> tuple[str, list[str], Float64Array, Float64Array]:
        """Return speaker (if any) and words of a held-out line, and their bits `[words]` before the first step and now.

        "Now" is the latest evaluation up to `epoch`.
        """
        first, *later = self.line_scores
        (speaker, words), shown = first.lines[index], first
        for event in later:
            shown = event if epoch is None or event.epoch <= epoch else shown
        before, after = (np.array(each.log_probs[index]) / -math.log(2) for each in (first, shown))
        shown_words = [printable(word.replace("\n", LINE_END_MARK)) for word in words]
        return printable(speaker), shown_words, before, after

    @property
    def unit(self) -> LossUnit:
        return LossUnit.of(self.started)

    @property
    def is_active(self) -> bool:
        return self.phase in ("preparing", "training")

    @property
    def is_detached(self) -> bool:
        return self.finished is not None and self.finished.reason == "detached"

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
        """Prompt of the samples as it can be typed; "" before the first sample."""
        commanded = self._last_command("prompt")
        if commanded is not None or not self.samples:
            return commanded or ""
        said, _, last_line = self.samples[-1].prompt.rpartition("\n")  # in a conversation, the name of who answers
        return said or last_line

    @property
    def best(self) -> events.Evaluated | None:
        """Evaluation of the saved model: the one that the end of the training states, or so far the lowest."""
        stated = self.finished.valid_perplexity if self.finished else math.nan
        if saved := [event for event in self.evaluations if event.valid_perplexity == stated]:
            return saved[-1]
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
