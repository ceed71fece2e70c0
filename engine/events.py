"""Events of a training: one stream, read by the dashboard, the console and the run directory."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec

from engine.data.arrays import Float32Array
from engine.models.base import LanguageModel

T = TypeVar("T")
_Few = Annotated[tuple[T, ...], msgspec.Meta(max_length=50)]
StopReason = Literal["done", "stopped", "detached", "patience", "pruned"]  # the last by a hyperparameter search
NOT_RECORDED = ("model", "adapter")  # fields of events that records leave out


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
    valid_tokens: int  # tokens of the validation split that count: all, but in a dialogue only utterances
    epochs: int
    device: str
    corpus_sha256: str
    unigram_perplexity: float  # on validation, of a model that knows nothing but token frequencies
    kneser_ney_perplexity: float  # on validation, of 5-grams; NaN if the training split is too long for them
    world_size: int = 1
    valid_characters: int = 0  # as the tokenizer reads them; in a dialogue, utterances with their line ends
    valid_untokenized_bits: float = 0.0  # for what the tokens leave out, such as the spelling of unknown words
    base: str = ""  # model by others that the training starts from, which was pre-trained on other text

    @property
    def tokens_per_character(self) -> float:
        """Rate in the validation split if another model made the tokens, so that losses are shown in bits; else 0."""
        return self.valid_tokens / self.valid_characters if self.base and self.valid_characters else 0.0

    def bits_per_character(self, valid_perplexity: float) -> float:
        """Return the bits per character of a validation perplexity; NaN if not known."""
        if not self.valid_characters or not valid_perplexity >= 1:
            return math.nan
        bits = self.valid_tokens * math.log2(valid_perplexity) + self.valid_untokenized_bits
        return bits / self.valid_characters


@dataclass(frozen=True)
class Step:
    """Report on the optimizer steps since the previous report, averaged over these steps."""

    step: int
    epoch: float  # epochs done, with fraction
    train_perplexity: float  # on the training windows, with dropout; it can exceed the validation perplexity
    lr: float  # of the latest step
    gradient_norm: float  # before clipping
    tokens_per_second: float
    seconds: float  # training time since the start, without pauses
    eta_seconds: float


@dataclass(frozen=True)
class Evaluated:
    """Result of a validation over every token of the split; the weights of the best one so far are saved."""

    step: int
    epoch: float
    valid_perplexity: float
    is_best: bool
    seconds: float
    model: LanguageModel | None = field(default=None, repr=False, compare=False)  # snapshot that was evaluated
    adapter: Mapping[str, Float32Array] | None = field(default=None, repr=False, compare=False)  # its LoRA matrices
    notebook_perplexity: float = math.nan  # by the notebook's formula; NaN unless it is the `validation_metric`


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
class LinesScored:
    """Natural-log probabilities of words of held-out lines by the evaluated model, an adapter with its base."""

    step: int
    epoch: float
    log_probs: _Few[_Few[float]]  # of each word of each line
    lines: _Few[tuple[str, _Few[str]]] = ()  # speaker ("" for none) and words; before the first step only


@dataclass(frozen=True)
class Snapshot:
    """File that a reader of the events should write to disk: a checkpoint, or the best model; not recorded."""

    step: int
    content: bytes = field(repr=False)
    file: str = "resume.safetensors"


@dataclass(frozen=True)
class CommandApplied:
    """Control command that takes effect after `step`; `kind` and `value` come from the `ControlCommand`."""

    step: int
    epoch: float
    kind: str
    value: str


@dataclass(frozen=True)
class Resume:
    """Continuation with `step`, 0 from scratch. Earlier events of this step and later ones are superseded."""

    step: int


@dataclass(frozen=True)
class Checkpointed:
    """Write of a file, a path in the run directory: the best weights, the weights of an epoch, or a checkpoint."""

    step: int
    file: str


@dataclass(frozen=True)
class Warned:
    """Problem that does not end the training, such as a full disk."""

    message: str


DiagnosisKind = Literal[
    "rising_validation", "loss_spike", "forgetting", "vanishing_gradients",
    "exploding_gradients", "unigram_model", "disk_space", "idle_gpu",
]  # fmt: skip


@dataclass(frozen=True)
class Diagnosed:
    """Problem that was found in the course of a training, with a remedy; reported once per training and kind."""

    step: int
    epoch: float
    kind: DiagnosisKind
    message: str  # observation with its figures, one line
    remedy: str  # options, settings or commands that help, one line


@dataclass(frozen=True)
class Finished:
    """End of a training, with the perplexities of the best model."""

    reason: StopReason
    run: str
    epochs: float
    valid_perplexity: float
    test_perplexity: float  # scored once; NaN if the training was stopped, or `score_test` is false
    seconds: float
    model: LanguageModel | None = field(default=None, repr=False, compare=False)
    notebook_perplexity: float = math.nan  # the latest on validation, as in `Evaluated`


@dataclass(frozen=True)
class Failed:
    """End of a training by an error: `message` is one line, `details` the traceback."""

    message: str
    details: str = field(default="", repr=False)


LifecycleEvent = Preparing | Started | Resume | Finished | Failed
RecordedEvent = (
    LifecycleEvent | Step | Evaluated | Sampled | LinesScored | CommandApplied | Checkpointed | Warned | Diagnosed
)
TrainingEvent = RecordedEvent | Snapshot

# Names in records: the class name in snake case.
EVENT_NAMES: dict[type[TrainingEvent], str] = {
    event_type: re.sub(r"(?<!^)(?=[A-Z])", "_", event_type.__name__).lower() for event_type in get_args(TrainingEvent)
}
_RECORDED_TYPES: dict[str, type[RecordedEvent]] = {
    EVENT_NAMES[event_type]: event_type for event_type in get_args(RecordedEvent)
}


def event_to_dict(event: TrainingEvent) -> dict[str, Any]:
    """Return an event as a JSON object: its name under "event", and its fields; null for NaN and infinity."""
    values = {item.name: getattr(event, item.name) for item in fields(event) if item.name not in NOT_RECORDED}
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return {"event": EVENT_NAMES[type(event)], **finite}


def event_from_dict(row: dict[str, Any]) -> RecordedEvent | None:
    """Return the event that `event_to_dict` turned into `row`; None if the row is not a valid event."""
    event_type = _RECORDED_TYPES.get(str(row.get("event")))
    if event_type is None:
        return None
    values = {name: math.nan if value is None else value for name, value in row.items() if name not in NOT_RECORDED}
    try:  # unknown fields are ignored, since a newer version may have written them
        return msgspec.convert(values, event_type)
    except msgspec.ValidationError:
        return None
