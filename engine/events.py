"""Events of a training: one stream, read by the dashboard, the console and the run directory; and commands to it."""

import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import msgspec

from engine.data.arrays import Float32Array
from engine.errors import InvalidInputError, printable, suggest_nearest
from engine.models.base import LanguageModel

StopReason = Literal["done", "stopped", "detached", "patience", "pruned"]  # the last by a hyperparameter search
NOT_RECORDED = ("model", "adapter")  # fields of events that records leave out
CommandKind = Literal["pause", "resume", "checkpoint", "stop", "detach", "prune", "prompt", "lr"]
POLL_INTERVAL = 0.2  # seconds between two looks for commands from other processes
MAX_SAMPLE_PROMPT_LENGTH = 200


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
class Snapshot:
    """Checkpoint that a reader of the events should write to disk, as `resume.safetensors`; not recorded."""

    step: int
    content: bytes = field(repr=False)


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
RecordedEvent = LifecycleEvent | Step | Evaluated | Sampled | CommandApplied | Checkpointed | Warned | Diagnosed
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


@dataclass(frozen=True)
class ControlCommand:
    """A command that a training applies between two optimizer steps.

    "checkpoint" saves now; "stop" saves and ends; "detach" saves and ends here, for another process to resume; "prune"
    ends without a checkpoint; "prompt" changes the sample prompt; "lr" scales the scheduled learning rate.
    """

    kind: CommandKind
    value: str = ""  # the new prompt, or the factor of the learning rate, above 0 and at most 1; otherwise empty

    def __post_init__(self) -> None:
        if self.kind not in get_args(CommandKind):
            kind = str(self.kind)
            raise InvalidInputError(f"unknown command {kind!r}{suggest_nearest(kind, get_args(CommandKind))}")
        if not isinstance(self.value, str) or (self.value and self.kind not in ("prompt", "lr")):
            raise InvalidInputError(f"{self.value!r} is no value of {self.kind}")
        is_line = self.value == printable(self.value) and 0 < len(self.value) <= MAX_SAMPLE_PROMPT_LENGTH
        if self.kind == "prompt" and not is_line:
            raise InvalidInputError(f"a sample prompt must be one line of 1 to {MAX_SAMPLE_PROMPT_LENGTH} characters")
        if self.kind == "lr" and not 0 < self.lr_scale <= 1:
            raise InvalidInputError(f"lr {self.value!r} is out of range; use a number above 0 and at most 1")

    @property
    def lr_scale(self) -> float:
        try:
            return float(self.value) if self.value == printable(self.value) else math.nan
        except ValueError:
            return math.nan


@dataclass(eq=False)
class CommandQueue:
    """Thread-safe queue of commands that a training has not applied yet."""

    poll: Callable[[], list[ControlCommand]] = list  # returns new commands of other processes
    cancelled: Callable[[], bool] = lambda: False  # is called between steps; True once to save and stop
    pending: deque[ControlCommand] = field(default_factory=deque, init=False)
    has_commands: threading.Event = field(default_factory=threading.Event, init=False)
    last_poll_time: float = field(default=-math.inf, init=False)

    def send(self, command: ControlCommand) -> None:
        self.pending.append(command)
        self.has_commands.set()

    def drain(self) -> list[ControlCommand]:
        """Remove and return all pending commands, oldest first, polling at most every `POLL_INTERVAL`."""
        now = time.monotonic()
        if now - self.last_poll_time >= POLL_INTERVAL:
            self.last_poll_time = now
            self.pending.extend(self.poll())
        self.has_commands.clear()
        return [self.pending.popleft() for _ in range(len(self.pending))]

    def wait(self, timeout: float) -> None:
        self.has_commands.wait(timeout)
