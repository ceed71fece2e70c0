"""Log lines of a training, the same from live events and from the run directory, and the unit of its figures."""

import math
from dataclasses import dataclass
from typing import Literal

from engine import events
from engine.errors import printable
from engine.runs.directory import RESUME_FILE
from lotr_tui.formatting import MISSING, PRETRAINED_NOTE, format_duration, format_perplexity

LogKind = Literal["plain", "evaluation", "command", "warning", "error"]
LOG_KINDS: dict[type[events.TrainingEvent], LogKind] = {
    events.Evaluated: "evaluation",
    events.CommandApplied: "command",
    events.Warned: "warning",
    events.Diagnosed: "warning",
    events.Failed: "error",
}
COMMAND_TEXTS = {
    "pause": "paused",
    "resume": "resumed",
    "checkpoint": "checkpoint requested",
    "stop": "stop requested",
    "detach": "detach requested",
    "prune": "pruned by its search",
}


@dataclass(frozen=True)
class LossUnit:
    """Unit in which perplexities are shown: bits per character where another model made the tokens."""

    tokens_per_character: float = 0.0  # of the validation split, by which training perplexities are converted too
    is_perplexity: bool = True
    name: str = "perplexity"
    title: str = "perplexity"  # the name with remarks on the figures

    @classmethod
    def of(cls, started: events.Started | None) -> "LossUnit":
        """Return the unit of a training."""
        if started is None or not started.base or not started.valid_characters:
            return PERPLEXITY
        ratio, name = started.valid_tokens / started.valid_characters, "bits/character"
        return cls(ratio, False, name, f"{name}, {PRETRAINED_NOTE}")

    def value(self, perplexity: float) -> float:
        """Return a perplexity, which is positive, in this unit."""
        return perplexity if self.is_perplexity else math.log2(perplexity) * self.tokens_per_character

    def perplexity(self, value: float) -> float:
        """Return the perplexity of a value in this unit."""
        return value if self.is_perplexity else 2.0 ** (value / self.tokens_per_character)

    def format(self, perplexity: float | None) -> str:
        """Return a perplexity in this unit as text, and "-" if it is unknown or not finite."""
        if self.is_perplexity or perplexity is None:
            return format_perplexity(perplexity)
        return f"{self.value(perplexity):.3f}" if math.isfinite(perplexity) and perplexity > 0 else MISSING


PERPLEXITY = LossUnit()


@dataclass(frozen=True)
class LogLine:
    """One line of the training log."""

    seconds: float
    step: float  # -1 without a step, infinity for the end of a training, which a resume removes
    kind: LogKind
    text: str


def log_line(event: events.TrainingEvent, seconds: float, unit: LossUnit) -> LogLine | None:
    """Return the line of an event; None if it has none."""
    match event:
        case events.Preparing() | events.Warned() | events.Failed():
            text = event.message
        case events.Started():
            figures = "" if unit.is_perplexity else f" ({unit.title})"
            text = (
                f"{event.parameters:,} parameters, {event.train_tokens:,} tokens, on {event.device};"
                f" baselines{figures}: unigram {unit.format(event.unigram_perplexity)},"
                f" Kneser-Ney {unit.format(event.kneser_ney_perplexity)}"
            )
        case events.Resume():
            text = f"resumed at step {event.step:,}"
        case events.Evaluated():
            best = ", new best" if event.is_best else ""
            text = f"epoch {event.epoch:.1f}: valid {unit.format(event.valid_perplexity)}{best}"
        case events.CommandApplied(kind="prompt"):
            text = f"sample prompt: “{event.value}”"
        case events.CommandApplied(kind="lr"):
            text = f"learning rate × {event.value}"
        case events.CommandApplied():
            text = COMMAND_TEXTS.get(event.kind, f"{event.kind} {event.value}")
        case events.Checkpointed():
            text = f"saved {event.file}"
            if event.file == RESUME_FILE:
                text += f" at step {event.step:,}, to resume from"
        case events.Diagnosed():
            text = f"{event.message}; {event.remedy}"
        case events.Finished():
            text = f"{describe_training_end(event)} after {format_duration(event.seconds)}"
        case _:
            return None
    step = math.inf if isinstance(event, (events.Finished, events.Failed)) else getattr(event, "step", -1)
    return LogLine(seconds, step, LOG_KINDS.get(type(event), "plain"), printable(text)) if text else None


def describe_training_end(event: events.Finished) -> str:
    """Return how a training ended, in one or a few words."""
    return "done (early stopping)" if event.reason == "patience" else event.reason
