"""Model of a session: its name, its description and its abilities."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.config import BUNDLED
from engine.data.arrays import Float32Array
from engine.data.speakers import MAX_INTRODUCED_SPEAKERS, display_name, introduced_speakers
from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError, printable
from engine.events import Evaluated, Finished, TrainingEvent
from engine.generation import generate, turns
from engine.models.base import AdaptedModel, LanguageModel, LogProbs, strengths_of
from engine.models.dialogue import DialogueModel
from engine.models.pretrained.chat import ChatTemplate
from engine.models.pretrained.names import is_pretrained_name, short_name
from engine.runs import directory, loading
from engine.storage.files import default_runs_dir
from lotr_tui.formatting import PRETRAINED_NOTE, plural
from lotr_tui.session import settings
from lotr_tui.session.cast import MAX_NAME_WIDTH, answering_cast
from lotr_tui.session.settings import ModelSettings, ReplyMode

if TYPE_CHECKING:
    from engine.models.pretrained.base import LoadingProgress
    from engine.runs.combine import CombinationOptions
    from lotr_tui.monitor.training_view import TrainingView

NUM_SLOW_ANSWERS = 4  # that a slow model draws to choose from by default, which takes it a third of a second
NO_LOG_PROBS: LogProbs = np.empty(0, np.float32)
"""Log-probabilities of a state whose own were evicted, or that has read nothing; reading a token computes new ones."""
EXAMPLE_PROMPTS = ("Bilbo Baggins is", "Where is Frodo", "The lamp")  # suggested if the model knows all their words
_NAME_SEPARATORS = re.compile(r"[-_. ]")


def find_cast(model: LanguageModel) -> tuple[str, ...]:
    """Return the speakers of whom a model reads and writes a script, the last for all others; empty without them."""
    return model.cast if isinstance(model, DialogueModel) else ()


def reads_line_ends(model: LanguageModel) -> bool:
    """Return True if line breaks are ordinary characters for a model, and `<eos>` ends a whole text."""
    return model.tokenizer.reads_line_ends or bool(find_cast(model))


def is_slow(model: LanguageModel) -> bool:
    """Return True if reading a token may delay the keyboard, so that screens must call the model in a thread."""
    return bool(getattr(model.model if isinstance(model, DialogueModel) else model, "is_slow", False))


def default_num_answers(model: LanguageModel) -> int:
    return NUM_SLOW_ANSWERS if is_slow(model) else turns.NUM_ANSWERS


def find_chat_template(model: LanguageModel) -> ChatTemplate | None:
    """Return the chat template of a model; None if it has none that works."""
    chat: ChatTemplate | None = getattr(model, "chat", None)
    return None if chat is None or chat.problem else chat


def answers_by_template(model: LanguageModel, reply_mode: ReplyMode) -> bool:
    """Return True if a model without a cast answers by its chat template in a reply mode."""
    return reply_mode == "conversation" and not find_cast(model) and find_chat_template(model) is not None


def chat_start(model: LanguageModel) -> generate.DecoderState:
    return generate.DecoderState(NO_LOG_PROBS, model.start())


@dataclass(frozen=True)
class SessionModel:
    """Language model with the name and description that the interface shows."""

    name: str
    description: str
    model: LanguageModel
    corpus: str = BUNDLED  # path of the training corpus, or "bundled"; empty for a model by others
    run: Path | None = None  # of several combined runs the first; None for a model by others
    predicts_eos: bool = True  # True if each training line ended in `<eos>`, so that it can answer without a cast
    source: str = ""  # name of a model by others, such as `hf:owner/name`; empty for a model that was trained here
    adapters: tuple[tuple[str, str], ...] = ()  # beside the model: names of the changes, and runs as typed
    warning: str = ""  # line for who opens it, such as that it has learned nothing
    unsteered: "SessionModel | None" = field(default=None, compare=False)  # the same without its steering vector
    vector: tuple[str, int, Float32Array] | None = field(default=None, compare=False)  # which `with_vector` takes
    steering: str = field(default="", compare=False)  # speaker or files that the vector was found for, as typed
    # The same model at all strengths that were used, so that one that has read a text is found again.
    _variants: dict[tuple[float, ...], "SessionModel"] = field(default_factory=dict, init=False, compare=False)

    @classmethod
    def from_loaded(cls, loaded: loading.LoadedModel) -> "SessionModel":
        """Wrap the model of a run, or a model by others."""
        if is_pretrained_name(loaded.name):
            name, about = printable(short_name(loaded.name)), printable(loaded.description)
            return cls(name, about, loaded.model, corpus="", source=loaded.name, predicts_eos=False)
        config = loaded.config.model
        layers = f"LSTM, {plural(config.num_layers, 'layer')} of {config.hidden_size}"
        if config.architecture == "transformer":
            layers = f"Transformer, {plural(config.num_layers, 'layer')} of {config.embedding_size}"
        parts = [loaded.description or layers if loaded.epoch is None else f"epoch {loaded.epoch}"]
        if loaded.decoder.tokenizer.is_open and loaded.bits_per_character is not None:
            # A perplexity per token says little to someone who does not know the tokens.
            parts.append(f"{loaded.bits_per_character:.3f} bits/character")
            parts[-1] += f", {PRETRAINED_NOTE}" if directory.needs_base(loaded.config) else ""
        elif loaded.valid_perplexity is not None:
            parts.append(f"valid {loaded.valid_perplexity:.1f}")
            if loaded.started is not None and math.isfinite(loaded.started.kneser_ney_perplexity):
                parts[-1] += f" (Kneser-Ney {loaded.started.kneser_ney_perplexity:.1f})"
        if getattr(loaded.decoder, "int8", False):
            parts.append("in int8")
        about, data = " · ".join(parts), loaded.config.data
        return cls(
            loaded.name,
            about,
            loaded.model,
            data.corpus,
            loaded.path,
            predicts_eos=data.mode == "line",
            warning=loaded.nothing_learned,
        )

    @classmethod
    def from_training(
        cls, view: "TrainingView", events: Sequence[TrainingEvent], runs_dir: Path | None
    ) -> "SessionModel | None":
        """Wrap the latest model among the events of a training, whose run is in `runs_dir`; return None without one."""
        models = [event for event in events if isinstance(event, (Evaluated, Finished)) and event.model is not None]
        if not models or view.started is None:
            return None
        event, unit = models[-1], view.unit
        assert event.model is not None
        description = f"valid {unit.format(event.valid_perplexity)}"
        if not unit.is_perplexity:
            description += f" {unit.title}"
        elif isinstance(event, Finished):
            description += f" (Kneser-Ney {unit.format(view.started.kneser_ney_perplexity)})"
        if not isinstance(event, Finished):
            description = f"learning · epoch {event.epoch:.1f} · {description}"
        run = (runs_dir or default_runs_dir()) / view.started.run
        if not (run / directory.CONFIG_FILE).is_file():
            return cls(view.started.run, description, event.model)
        mode = directory.read_config(run).data.mode
        model = loading.read_dialogue_parts(run)(event.model) if mode == "dialogue" else event.model
        warning = directory.summarize_run(run).nothing_learned if isinstance(event, Finished) else ""
        return cls(view.started.run, description, model, run=run, predicts_eos=mode == "line", warning=warning)

    @property
    def strengths(self) -> Mapping[str, float]:
        return strengths_of(self.model)

    def with_strengths(self, strengths: Mapping[str, float]) -> "SessionModel":
        """Return the model with other strengths of the changes that it has; others keep theirs."""
        model = self.model
        if not isinstance(model, AdaptedModel):
            return self
        self._variants.setdefault(tuple(self.strengths.values()), self)
        changed = {name: strengths.get(name, value) for name, value in self.strengths.items()}
        if (key := tuple(changed.values())) not in self._variants:
            self._variants[key] = replace(self, model=model.with_strengths(changed))
            self._variants[key].__dict__["_variants"] = self._variants
        return self._variants[key]

    def steered(self, vector: tuple[str, int, Float32Array], strength: float, steering: str) -> "SessionModel":
        """Return the model with a steering vector: its name, its layer, and what is added there."""
        model: Any = self.model
        steered = model.with_vector(*vector).with_strengths({vector[0]: strength})
        return replace(self, model=steered, unsteered=self, vector=vector, steering=steering)

    def is_variant_of(self, other: "SessionModel") -> bool:
        """Return True if two models differ at most in adapters beside them, and in strengths."""
        is_same = (self.name, self.run, self.source) == (other.name, other.run, other.source)
        return is_same and (self.description == other.description or bool(self.adapters or other.adapters))

    @property
    def is_slow(self) -> bool:
        return is_slow(self.model)

    @property
    def cast(self) -> tuple[str, ...]:
        return find_cast(self.model)

    @property
    def chat(self) -> ChatTemplate | None:
        """Chat template of a model without a cast; None if it has none."""
        return None if self.cast else find_chat_template(self.model)

    @property
    def settings_name(self) -> str:
        return self.source or self.name

    @property
    def typed_name(self) -> str:
        """What `/model` loads it by; empty for a combination of runs, and a run without files."""
        if self.source or self.run is None:
            return self.source
        epoch = self.name.removeprefix(loading.model_name(self.run, None))
        if not re.fullmatch("(@[0-9]+)?", epoch):
            return ""
        return f"{directory.bundled_runs().get(self.run, self.run)}{epoch}"

    @property
    def default_settings(self) -> ModelSettings:
        """How the model answers at first: in `generate`, in a session, and in one that is served."""
        if self.chat is not None:
            return ModelSettings(settings.CHAT_SAMPLER)
        is_pretrained = self.model.tokenizer.name == "pretrained"  # also with an adapter
        return ModelSettings(settings.PRETRAINED_SAMPLER if is_pretrained else settings.DEFAULT_SAMPLER)

    @property
    def label(self) -> str:
        """Name of the model beside its answers: as many parts of the name as fit beside a line."""
        ends = [len(self.name), *reversed([match.start() for match in _NAME_SEPARATORS.finditer(self.name)])]
        return next((self.name[:end] for end in ends if 0 < end <= MAX_NAME_WIDTH), self.name)

    @property
    def reply_modes(self) -> tuple[ReplyMode, ...]:
        """Reply modes that the model can be used in, the default one first."""
        return ("conversation", "continue") if self.cast or self.chat is not None else ("continue", "reply")

    def welcome_text(self, speaker: str = "") -> str:
        """Return the first line of a transcript: what to type, and who answers: `speaker`, or else anyone."""
        if self.chat is not None:
            return f"Say something to {self.label}. /system tells it who it is."
        if not self.cast:
            tokenizer = self.model.tokenizer
            words = [token for token in islice(tokenizer.tokens, EOS_ID + 1, 200) if token.isalpha()]
            known = (text for text in EXAMPLE_PROMPTS if not tokenizer.unknown_spans(text))
            text = f'Type "{next(known, " ".join(words[:2]))}" and press enter'
            return f"{text}; without a chat template, this model continues texts." if self.source else f"{text}."
        if speaker:
            return f"Say hello to {display_name(speaker)}. With /to anyone, the model chooses who answers."
        first, *others = map(display_name, introduced_speakers(self.cast))
        if not others:
            return f"Say hello to {first}."
        more = " and others" if len(answering_cast(self.cast, "")) > MAX_INTRODUCED_SPEAKERS else ""
        return f"Say hello to {first}. {', '.join(others)}{more} can answer too."


def load_session_model(
    names: Sequence[str],
    runs_dir: Path | None,
    combination: "CombinationOptions | None" = None,
    precision: loading.InferencePrecision = "auto",
    on_progress: "Callable[[LoadingProgress], None] | None" = None,
    adapters: Sequence[tuple[str, float]] = (),
) -> SessionModel:
    """Load a model, or a combination of runs; without names, the default. A screen uses `ModelLoader`."""
    pretrained = next(filter(is_pretrained_name, names), "")
    if (pretrained or adapters) and (len(names) > 1 or combination is not None):
        problem = f"{pretrained} is a model by others and cannot be" if pretrained else "adapters are not"
        raise InvalidInputError(f"{problem} combined; leave out other runs, --mixture and --cache")
    beside = [name for name, _ in adapters]
    runs = [loading.load_model_by_name(name, runs_dir, precision, on_progress, beside) for name in names or (None,)]
    if combination is None and len(runs) == 1:
        model = SessionModel.from_loaded(runs[0])
        names = list(model.strengths)[-len(adapters) :]
        model = replace(model, adapters=tuple(zip(names, beside, strict=False)))
        return model.with_strengths(dict(zip(names, (strength for _, strength in adapters), strict=False)))
    from engine.runs.combine import CombinationOptions, ModelCombiner  # deferred: most sessions do not need them

    combined = ModelCombiner(runs).combine(combination or CombinationOptions(), to_play=True)
    name, data = "+".join(run.name for run in runs), runs[0].config.data
    arguments = name, combined.description, combined.model, data.corpus, runs[0].path
    return SessionModel(*arguments, predicts_eos=data.mode == "line")
