"""What happened in a training, line by line: made from its events, so that the record tells the same."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from engine.errors import printable
from engine.events import (
    Checkpointed,
    Evaluated,
    Failed,
    Finished,
    Preparing,
    Resume,
    Started,
    Steered,
    TrainingEvent,
    Warned,
)
from engine.runs.store import MODEL, RESUME
from lotr_tui.formatting import duration, perplexity

Kind = Literal["plain", "evaluation", "asked", "warning", "error"]


@dataclass(frozen=True)
class LogLine:
    """Something that happened."""

    seconds: float
    """Of training, when it did."""
    step: float
    """The update after which it did; below 0 for what belongs to none, infinite for the end, which a resume undoes."""
    kind: Kind
    text: str


class TrainingLog:
    """Lines in the order in which things happened."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []

    def add(self, event: TrainingEvent, seconds: float) -> None:
        """Take in one event, of which there may be nothing to say."""
        last = self.lines[-1] if self.lines else None
        if isinstance(event, Checkpointed) and last and (last.kind, last.step) == ("evaluation", event.step):
            if event.file == MODEL:  # which is so whenever it is the best
                self.lines[-1] = replace(last, text=f"{last.text}, kept")
                return
        elif isinstance(event, Preparing) and last and last.text == _text(event):
            return
        if text := _text(event):
            step = math.inf if isinstance(event, (Finished, Failed)) else getattr(event, "step", -1)
            self.lines.append(LogLine(seconds, step, _kind(event), text))

    def forget_from(self, step: int) -> None:
        """What happened at this update and later is done again."""
        self.lines = [line for line in self.lines if line.step < step]


def _kind(event: TrainingEvent) -> Kind:
    match event:
        case Evaluated():
            return "evaluation"
        case Steered():
            return "asked"
        case Warned():
            return "warning"
        case Failed():
            return "error"
        case _:
            return "plain"


def _text(event: TrainingEvent) -> str:
    """What there is to say of an event; "" if nothing."""
    match event:
        case Preparing():
            return printable(event.what)
        case Started():
            return (
                f"{event.parameters:,} parameters, {event.train_tokens:,} tokens, on {printable(event.device)};"
                f" to beat: unigram {perplexity(event.unigram_perplexity)},"
                f" Kneser-Ney {perplexity(event.kneser_ney_perplexity)}"
            )
        case Resume():
            return f"goes on from update {event.step:,}"
        case Evaluated():
            best = ", best so far" if event.best else ""
            return f"epoch {event.epoch:.1f}: valid {perplexity(event.valid_perplexity)}{best}"
        case Steered():
            return _asked(event)
        case Checkpointed():
            all_of_it = f" at update {event.step:,}, to go on from there" if event.file == RESUME else ""
            return f"saved {printable(event.file)}{all_of_it}"
        case Warned() | Failed():
            return printable(event.message)
        case Finished():
            return f"{ended(event)} after {duration(event.seconds)}"
        case _:
            return ""


def _asked(event: Steered) -> str:
    """What was done because somebody asked for it."""
    return {
        "pause": "paused",
        "go_on": "goes on",
        "checkpoint": "asked to save",
        "stop": "asked to stop",
        "detach": "asked to detach",
        "prompt": f"the prompt is now “{printable(event.value)}”",
        "lr": f"learning rate × {printable(event.value)} from here on",
    }.get(event.what, printable(f"{event.what} {event.value}"))


def ended(event: Finished) -> str:
    """How a training ended."""
    if event.reason == "patience":
        return "done, as it got no better"
    return event.reason
