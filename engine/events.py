"""Events of a training: one stream, read by the dashboard, the console and the run directory."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import msgspec

from engine.data.arrays import Float32Array
from engine.models.base import LanguageModel

StopReason = Literal["done", "stopped", "detached", "patience", "pruned"]
"""Reason for the end of a training; "pruned" is the decision of a hyperparameter search."""

NOT_RECORDED = ("model", "adapter")
"""Fields of events that records leave out."""


@dataclass(frozen=True)
class Preparing:
    """Start of an activity that takes a moment, before the first step."""

    message: str


@dataclass(frozen=True)
class Started:
    """Start of the first step, with a description of the training."""

    run: str
    preset: str
    parameters: int
    vocabulary_size: int
    train_tokens: int
    valid_tokens: int
    """Tokens of the validation split that count: all, but of a dialogue only the tokens of utterances."""
    epochs: int
    device: str
    corpus_sha256: str
    unigram_perplexity: float
    """Validation perplexity of a unigram model, which knows nothing but token frequencies."""
    kneser_ney_perplexity: float
    """Validation perplexity of a 5-gram Kneser-Ney model; NaN if the training split is too long for one."""
    world_size: int = 1
    valid_characters: int = 0
    """Characters of the validation split, in the form that the tokenizer reads; of a dialogue, of the utterances with
    their line ends. 0 if they were not counted."""
    valid_untokenized_bits: float = 0.0
    """Bits for what the tokens of the validation split leave out, such as the spelling of unknown words."""
    base: str = ""
    """Model by others that the training starts from, which was pre-trained on other text; empty for none."""

    def bits_per_character(self, valid_perplexity: float) -> float:
        """Return the bits per character that belong to a perplexity on the validation split; NaN if not known."""
        if not self.valid_characters or not valid_perplexity >= 1:
            return math.nan
        bits = self.valid_tokens * math.log2(valid_perplexity) + self.valid_untokenized_bits
        return bits / self.valid_characters


@dataclass(frozen=True)
class Step:
    """Report on the optimizer steps since the previous report, averaged over these steps."""

    step: int
    epoch: float
    """Epochs done, with fraction."""
    train_perplexity: float
    """Perplexity on the training windows, with dropout; it can exceed the validation perplexity."""
    lr: float
    """Learning rate of the latest step."""
    gradient_norm: float
    """Norm of the gradients before clipping."""
    tokens_per_second: float
    seconds: float
    """Training time since the start, without pauses."""
    eta_seconds: float


@dataclass(frozen=True)
class Evaluated:
    """Result of a validation over every token of the split."""

    step: int
    epoch: float
    valid_perplexity: float
    is_best: bool
    """True if this is the best validation perplexity so far; the weights are saved then."""
    seconds: float
    model: LanguageModel | None = field(default=None, repr=False, compare=False)
    """Snapshot of the model that was evaluated; not recorded."""
    adapter: Mapping[str, Float32Array] | None = field(default=None, repr=False, compare=False)
    """Low-rank matrices of `model`, if it is an adapted one; not recorded."""
    notebook_perplexity: float = math.nan
    """Perplexity by the notebook's formula; NaN unless `validation_metric` is "notebook"."""


@dataclass(frozen=True)
class Sampled:
    """Text sample of the evaluated model, always with the same prompt and seed."""

    step: int
    epoch: float
    prompt: str
    text: str
    seed: int
    temperature: float


@dataclass(frozen=True)
class Snapshot:
    """Checkpoint that a reader of the events should write to disk; not recorded."""

    step: int
    content: bytes = field(repr=False)
    """Content of the file `resume.safetensors`."""


@dataclass(frozen=True)
class CommandApplied:
    """Control command that takes effect after `step`; `kind` and `value` come from the `ControlCommand`."""

    step: int
    epoch: float
    kind: str
    value: str


@dataclass(frozen=True)
class Resume:
    """Continuation from a checkpoint. Earlier events of this step and later ones are superseded."""

    step: int
    """Number of the next step; 0 if the training starts from scratch."""


@dataclass(frozen=True)
class Checkpointed:
    """Write of a file: the best weights, the weights of an epoch, or a checkpoint to resume from."""

    step: int
    file: str
    """Path relative to the run directory."""


@dataclass(frozen=True)
class Warned:
    """Problem that does not end the training, such as a full disk."""

    message: str


DiagnosisKind = Literal[
    "rising_validation",
    "loss_spike",
    "forgetting",
    "vanishing_gradients",
    "exploding_gradients",
    "unigram_model",
    "disk_space",
]
"""Problem of a training that a function of `engine.training.diagnoses` finds."""


@dataclass(frozen=True)
class Diagnosed:
    """Problem that was found in the course of a training, with a remedy; reported once per training and kind."""

    step: int
    epoch: float
    kind: DiagnosisKind
    message: str
    """Observation with its figures, one line."""
    remedy: str
    """Options, settings or commands that help, one line."""


@dataclass(frozen=True)
class Finished:
    """End of a training, with the perplexities of the best model."""

    reason: StopReason
    run: str
    epochs: float
    valid_perplexity: float
    test_perplexity: float
    """Perplexity on the test split, which is scored once; NaN if the training was stopped, or `score_test` is false."""
    seconds: float
    model: LanguageModel | None = field(default=None, repr=False, compare=False)
    """Best model; not recorded."""
    notebook_perplexity: float = math.nan
    """Latest validation perplexity by the notebook's formula, as in `Evaluated`."""


@dataclass(frozen=True)
class Failed:
    """End of a training by an error: `message` is one line, `details` the traceback."""

    message: str
    details: str = field(default="", repr=False)


LifecycleEvent = Preparing | Started | Resume | Finished | Failed
RecordedEvent = LifecycleEvent | Step | Evaluated | Sampled | CommandApplied | Checkpointed | Warned | Diagnosed
TrainingEvent = RecordedEvent | Snapshot


def event_name(event_type: type[TrainingEvent]) -> str:
    """Return the name of an event type in records: the class name in snake case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event_type.__name__).lower()


_EVENT_TYPES: dict[str, type[RecordedEvent]] = {event_name(type_): type_ for type_ in get_args(RecordedEvent)}


def event_to_dict(event: TrainingEvent) -> dict[str, Any]:
    """Return an event as a JSON object: its name under "event", and its fields without models.

    Numbers that are not finite become null.
    """
    values = {item.name: getattr(event, item.name) for item in fields(event) if item.name not in NOT_RECORDED}
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return {"event": event_name(type(event)), **finite}


def event_from_dict(row: dict[str, Any]) -> RecordedEvent | None:
    """Return the event that `event_to_dict` turned into `row`; None if the row is not a valid event.

    Null becomes NaN. Unknown fields are ignored, since a newer version may have written them.
    """
    event_type = _EVENT_TYPES.get(str(row.get("event")))
    if event_type is None:
        return None
    values = {name: math.nan if value is None else value for name, value in row.items() if name not in NOT_RECORDED}
    try:
        return msgspec.convert(values, event_type)
    except msgspec.ValidationError:
        return None
