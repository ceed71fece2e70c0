"""Training log: one line per notable event, the same whether events come live or from the run directory."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from engine import events
from engine.errors import printable
from engine.runs.directory import RESUME_FILE, WEIGHT_FILES
from lotr_tui.formatting import format_duration
from lotr_tui.monitor.loss_unit import PERPLEXITY, LossUnit

LogKind = Literal["plain", "evaluation", "command", "warning", "error"]
LOG_KINDS: dict[type[events.TrainingEvent], LogKind] = {
    events.Evaluated: "evaluation",
    events.CommandApplied: "command",
    events.Warned: "warning",
    events.Diagnosed: "warning",
    events.Failed: "error",
}
"""Kinds of the events whose lines are not plain."""


@dataclass(frozen=True)
class LogLine:
    """One line of the training log."""

    seconds: float
    """Training time of the event in seconds."""
    step: float
    """Step of the event; -1 for events without a step, infinity for the end of a training, which a resume removes."""
    kind: LogKind
    text: str


class TrainingLog:
    """Log lines of a training, oldest first."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self._unit = PERPLEXITY

    def add(self, event: events.TrainingEvent, seconds: float) -> None:
        """Add the line of an event. Some events have no line, or extend the last one."""
        last = self.lines[-1] if self.lines else None
        if isinstance(event, events.Started):
            self._unit = LossUnit.of(event)
        if isinstance(event, events.Checkpointed) and last and (last.kind, last.step) == ("evaluation", event.step):
            if event.file in WEIGHT_FILES:  # written after each evaluation that is the best so far
                self.lines[-1] = replace(last, text=f"{last.text}, saved")
                return
        elif isinstance(event, events.Preparing) and last and last.text == _format_event(event, self._unit):
            return
        if text := _format_event(event, self._unit):
            step = math.inf if isinstance(event, (events.Finished, events.Failed)) else getattr(event, "step", -1)
            self.lines.append(LogLine(seconds, step, LOG_KINDS.get(type(event), "plain"), text))

    def rewind(self, step: int) -> None:
        """Remove the lines of `step` and later steps, which a resumed training repeats."""
        self.lines = [line for line in self.lines if line.step < step]


def _format_event(event: events.TrainingEvent, unit: LossUnit) -> str:
    """Return the text of an event; "" if the event has no line."""
    match event:
        case events.Preparing():
            return printable(event.message)
        case events.Started():
            figures = "" if unit.is_perplexity else f" ({unit.title})"
            return (
                f"{event.parameters:,} parameters, {event.train_tokens:,} tokens, on {printable(event.device)};"
                f" baselines{figures}: unigram {unit.format(event.unigram_perplexity)},"
                f" Kneser-Ney {unit.format(event.kneser_ney_perplexity)}"
            )
        case events.Resume():
            return f"resumed at step {event.step:,}"
        case events.Evaluated():
            best = ", new best" if event.is_best else ""
            return f"epoch {event.epoch:.1f}: valid {unit.format(event.valid_perplexity)}{best}"
        case events.CommandApplied():
            return _format_command(event)
        case events.Checkpointed():
            purpose = f" at step {event.step:,}, to resume from" if event.file == RESUME_FILE else ""
            return f"saved {printable(event.file)}{purpose}"
        case events.Diagnosed():
            return printable(f"{event.message}; {event.remedy}")
        case events.Warned() | events.Failed():
            return printable(event.message)
        case events.Finished():
            return f"{describe_training_end(event)} after {format_duration(event.seconds)}"
        case _:
            return ""


def _format_command(event: events.CommandApplied) -> str:
    return {
        "pause": "paused",
        "resume": "resumed",
        "checkpoint": "checkpoint requested",
        "stop": "stop requested",
        "detach": "detach requested",
        "prune": "pruned by its search",
        "prompt": f"sample prompt: “{printable(event.value)}”",
        "lr": f"learning rate × {printable(event.value)}",
    }.get(event.kind, printable(f"{event.kind} {event.value}"))


def describe_training_end(event: events.Finished) -> str:
    """Return how a training ended, in one or a few words."""
    return "done (early stopping)" if event.reason == "patience" else event.reason
