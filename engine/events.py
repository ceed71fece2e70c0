"""What a training tells: frozen events, one stream, read alike by the screen, the console and the run directory."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from engine.models.base import LanguageModel

Reason = Literal["done", "stopped", "detached", "patience"]


@dataclass(frozen=True)
class Preparing:
    """Something that takes a moment before the first update."""

    what: str


@dataclass(frozen=True)
class Started:
    """Everything is ready; the first update comes next."""

    run: str
    preset: str
    parameters: int
    vocabulary: int
    train_tokens: int
    valid_tokens: int
    epochs: int
    device: str
    corpus_sha256: str
    unigram_perplexity: float
    """Of the unigram model on the validation split: what knowing nothing of context gives."""
    kneser_ney_perplexity: float
    """NaN where the training text is too long for it."""
    """Of a 5-gram Kneser-Ney model on the validation split: what counting gives."""
    processes: int = 1
    """That train together."""


@dataclass(frozen=True)
class Step:
    """A report between evaluations, averaged over the updates since the last one."""

    step: int
    epoch: float
    """Epochs done, with fraction."""
    train_perplexity: float
    """With dropout on, as trained; it can lie above validation's."""
    lr: float
    gradient_norm: float
    tokens_per_second: float
    seconds: float
    """Since the training started."""
    eta_seconds: float


@dataclass(frozen=True)
class Evaluated:
    """Validation perplexity over every token of the split."""

    step: int
    epoch: float
    valid_perplexity: float
    best: bool
    """The best so far: these are the weights that are kept."""
    seconds: float
    model: LanguageModel | None = field(default=None, repr=False, compare=False)
    """The model as it stands, ready to be played with; not part of the record."""
    notebook_perplexity: float = math.nan
    """What the notebook's formula says of it, where the training follows that (`validation=notebook`)."""


@dataclass(frozen=True)
class Sampled:
    """The fixed prompt continued with the fixed seed by the model as it stands."""

    step: int
    epoch: float
    prompt: str
    text: str
    seed: int
    temperature: float


@dataclass(frozen=True)
class Snapshot:
    """All that is needed to go on exactly from here; whoever writes the record keeps it. Not part of the record."""

    step: int
    content: bytes = field(repr=False)
    """Of the file `resume.safetensors`."""


@dataclass(frozen=True)
class Steered:
    """Something that was asked for is done from this update on; `what` and `value` are those of a `Command`."""

    step: int
    epoch: float
    what: str
    value: str


@dataclass(frozen=True)
class Resume:
    """The training goes on from a snapshot. What the record has of this update and later ones is done again."""

    step: int
    """The first update that is still to be done."""


@dataclass(frozen=True)
class Checkpointed:
    """A file was written: the best weights, those of an epoch that is kept, or all that a resume needs."""

    step: int
    file: str
    """Inside the run directory."""


@dataclass(frozen=True)
class Warned:
    """Something that went wrong and does not end the training, as a disk that is full."""

    message: str


@dataclass(frozen=True)
class Finished:
    """The end. Perplexities are the best model's; the test split was read this once, or not at all if stopped."""

    reason: Reason
    run: str
    epochs: float
    valid_perplexity: float
    test_perplexity: float
    seconds: float
    model: LanguageModel | None = field(default=None, repr=False, compare=False)
    notebook_perplexity: float = math.nan
    """As in `Evaluated`."""


@dataclass(frozen=True)
class Failed:
    """The training broke; `message` is one line, `details` the traceback."""

    message: str
    details: str = field(default="", repr=False)


TrainingEvent = (
    Preparing
    | Started
    | Resume
    | Step
    | Evaluated
    | Sampled
    | Steered
    | Snapshot
    | Checkpointed
    | Warned
    | Finished
    | Failed
)


def to_record(event: TrainingEvent) -> dict[str, Any]:
    """The event as a JSON object: its name under "event", its fields but models; numbers not finite are null."""
    record: dict[str, Any] = {"event": type(event).__name__.lower()}
    for item in fields(event):
        value = getattr(event, item.name)
        if item.name == "model":
            continue
        record[item.name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return record


_KINDS: dict[str, Any] = {
    kind.__name__.lower(): kind
    for kind in (Preparing, Started, Resume, Step, Evaluated, Sampled, Steered, Checkpointed, Warned, Finished, Failed)
}


def from_record(record: dict[str, Any]) -> TrainingEvent | None:
    """What `to_record` made an object of; None for one that is no event of this version. Null becomes NaN."""
    kind = _KINDS.get(str(record.get("event")))
    if kind is None:
        return None
    values = {}
    for item in fields(kind):
        if item.name in record and item.name != "model":
            value = record[item.name]
            if value is None:
                value = math.nan
            if not _fits(value, item.type):
                return None
            values[item.name] = value
    try:
        event: TrainingEvent = kind(**values)
    except TypeError:
        return None
    return event


def _fits(value: object, kind: object) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return value in get_args(kind) if kind is Reason else type(value) is kind
