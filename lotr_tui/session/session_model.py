"""Model of a session with its name and description."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import BUNDLED, LSTM
from engine.data.speakers import display_name, first_to_answer
from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError, printable
from engine.events import Evaluated, Finished, TrainingEvent
from engine.models.base import LanguageModel
from engine.models.pretrained.chat import ChatTemplate
from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name
from engine.runs.adapter_files import needs_base
from engine.runs.directory import CONFIG_FILE, read_config
from engine.runs.loading import LoadedModel, load_model_by_name, read_dialogue_parts
from engine.storage.files import default_runs_dir
from lotr_tui.formatting import PRETRAINED_NOTE, plural
from lotr_tui.session.conversation.cast import answering_cast
from lotr_tui.session.conversation.speaker_labels import MAX_NAME_WIDTH
from lotr_tui.session.model_abilities import find_cast, find_chat_template, is_slow
from lotr_tui.session.settings import ModelSettings, ReplyMode, default_model_settings

if TYPE_CHECKING:
    from engine.models.pretrained.base import LoadingProgress
    from engine.runs.combine import CombinationOptions
    from lotr_tui.monitor.training_view import TrainingView

EXAMPLE_PROMPTS = ("Bilbo Baggins is", "Where is Frodo", "The lamp")
"""Prompts that the interface suggests, if the model knows all their words."""
_NAME_SEPARATORS = re.compile(r"[-_. ]")
MAX_INTRODUCED_SPEAKERS = 6
"""Speakers that the first line of a transcript names: those with most lines in the training text."""


@dataclass(frozen=True)
class SessionModel:
    """Language model with the name and description that the interface shows."""

    name: str
    description: str
    model: LanguageModel
    corpus: str = BUNDLED
    """Path of the training corpus, or "bundled"; empty for a model by others."""
    run: Path | None = None
    """Run directory; of several combined runs the first. None for a model by others."""
    predicts_eos: bool = True
    """True if the training text has `<eos>` after every line, so that the model can answer without a cast, and stop."""
    answers_depend_on_prompt: bool = False
    """True if each training line followed the line it answers; False if the lines were shuffled."""
    source: str = ""
    """Name of a model by others, such as `hf:owner/name`; empty for a model that was trained here."""

    @classmethod
    def from_loaded(cls, loaded: LoadedModel) -> "SessionModel":
        """Wrap the model of a run, or a model by others."""
        if is_pretrained_name(loaded.name):
            return cls._from_pretrained(loaded)
        config = loaded.config.model
        layers = f"LSTM, {plural(config.num_layers, 'layer')} of {config.hidden_size}"
        if config.architecture == "transformer":
            layers = f"Transformer, {plural(config.num_layers, 'layer')} of {config.embedding_size}"
        parts = [loaded.description or layers if loaded.epoch is None else f"epoch {loaded.epoch}"]
        if loaded.decoder.tokenizer.is_open and loaded.bits_per_character is not None:
            # A perplexity per token says little to someone who does not know the tokens.
            parts.append(f"{loaded.bits_per_character:.2f} bits/character")
            parts[-1] += f", {PRETRAINED_NOTE}" if needs_base(loaded.config) else ""
        elif loaded.valid_perplexity is not None:
            parts.append(f"valid {loaded.valid_perplexity:.1f}")
            if loaded.started is not None and math.isfinite(loaded.started.kneser_ney_perplexity):
                parts[-1] += f" (Kneser-Ney {loaded.started.kneser_ney_perplexity:.1f})"
        if getattr(loaded.decoder, "int8", False):
            parts.append("in int8")
        data = loaded.config.data
        return cls(
            loaded.name, " · ".join(parts), loaded.model, data.corpus, loaded.path, predicts_eos=data.mode == "line"
        )

    @classmethod
    def _from_pretrained(cls, loaded: LoadedModel) -> "SessionModel":
        name, description = printable(parse_pretrained_name(loaded.name).short_name), printable(loaded.description)
        return cls(name, description, loaded.model, corpus="", source=loaded.name, predicts_eos=False)

    @classmethod
    def from_training(
        cls, view: "TrainingView", events: Sequence[TrainingEvent], runs_dir: Path | None
    ) -> "SessionModel | None":
        """Wrap the latest model among the events of a training, whose run is in `runs_dir`; return None without one."""
        models = [event for event in events if isinstance(event, (Evaluated, Finished)) and event.model is not None]
        if not models or view.started is None:
            return None
        event = models[-1]
        assert event.model is not None
        unit = view.unit
        valid = f"valid {unit.format(event.valid_perplexity)}"
        if not unit.is_perplexity:
            valid += f" {unit.title}"
        elif isinstance(event, Finished):
            valid += f" (Kneser-Ney {unit.format(view.started.kneser_ney_perplexity)})"
        description = valid if isinstance(event, Finished) else f"learning · epoch {event.epoch:.1f} · {valid}"
        run = (runs_dir or default_runs_dir()) / view.started.run
        if not (run / CONFIG_FILE).is_file():
            return cls(view.started.run, description, event.model)
        mode = read_config(run).data.mode
        model = read_dialogue_parts(run).wrap(event.model) if mode == "dialogue" else event.model
        return cls(view.started.run, description, model, run=run, predicts_eos=mode == "line")

    @property
    def is_slow(self) -> bool:
        """True if the model may delay the keyboard, so that it must not run in the thread of the screen."""
        return is_slow(self.model)

    @property
    def chat(self) -> ChatTemplate | None:
        """Chat template of a model without a cast; None if it has none."""
        return None if self.cast else find_chat_template(self.model)

    @property
    def chat_problem(self) -> str:
        """Reason why a model has no `chat`, as a sentence without its end."""
        chat = getattr(self.model, "chat", None)
        return (chat and chat.problem) or f"{self.name} has no chat template"

    @property
    def settings_name(self) -> str:
        """Name under which the settings of the model are kept."""
        return self.source or self.name

    @property
    def default_settings(self) -> ModelSettings:
        """Settings by which the model answers until the user changes them."""
        is_pretrained = self.model.tokenizer.name == "pretrained"
        return default_model_settings(is_pretrained=is_pretrained, is_chat=self.chat is not None)

    @property
    def is_by_others(self) -> bool:
        """True for a model that was not trained here."""
        return bool(self.source)

    @property
    def label(self) -> str:
        """Name of the model beside its answers: as many parts of the name as fit beside a line."""
        ends = [len(self.name), *reversed([match.start() for match in _NAME_SEPARATORS.finditer(self.name)])]
        return next((self.name[:end] for end in ends if 0 < end <= MAX_NAME_WIDTH), self.name)

    @property
    def cast(self) -> tuple[str, ...]:
        """Speakers that the model knows, of which the last stands for all others; empty if it knows none."""
        return find_cast(self.model)

    @property
    def knows_speakers(self) -> bool:
        """True if the model knows speakers, so that a conversation with them is possible."""
        return bool(self.cast)

    @property
    def reply_modes(self) -> tuple[ReplyMode, ...]:
        """Reply modes that the model can be used in, the default one first."""
        return ("conversation", "continue") if self.knows_speakers or self.chat is not None else ("continue", "reply")

    def reply_mode_at_start(self, saved: ReplyMode) -> ReplyMode:
        """Return the reply mode of a new session: the saved one if the model can be used in it, or else the default."""
        return saved if saved in self.reply_modes else self.reply_modes[0]

    def welcome_text(self) -> str:
        """Return the only line of an empty transcript: what to type, and who else is there."""
        if self.chat is not None:
            return f"Say something to {self.label}. /system tells it who it is."
        if self.is_by_others and not self.knows_speakers:
            return (
                f'Type "{self.example_prompt()}" and press enter; without a chat template, this model continues texts.'
            )
        if not self.knows_speakers:
            return f'Type "{self.example_prompt()}" and press enter.'
        names = answering_cast(self.cast, "")
        first = first_to_answer(names)
        others = [display_name(name) for name in names if name != first]
        text = f"Say hello to {display_name(first)}."
        if others:
            named = ", ".join(others[:MAX_INTRODUCED_SPEAKERS])
            text += f" {named}{' and others' if len(others) > MAX_INTRODUCED_SPEAKERS else ''} can answer too."
        return text

    def example_prompt(self) -> str:
        """Return a prompt that the model knows: one of `EXAMPLE_PROMPTS`, or else two words of its vocabulary."""
        tokenizer = self.model.tokenizer
        for text in EXAMPLE_PROMPTS:
            if not tokenizer.unknown_spans(text):
                return text
        words = [token for token in islice(tokenizer.tokens, EOS_ID + 1, 200) if token.isalpha()]
        return " ".join(words[:2] or tokenizer.tokens[EOS_ID + 1 :][:2])

    def introduction(self) -> str:
        """Return what the user talks to, for the help line before the first prompt."""
        model = {BUNDLED: "the bundled model", LSTM: "the small LSTM"}.get(self.name, self.name)
        if self.knows_speakers:
            return f"You are talking to {plural(len(answering_cast(self.cast, '')), 'speaker')} of {model}"
        tokenizer = self.model.tokenizer
        if self.is_by_others:
            return f"You are talking to {model}" + ("" if self.chat is None else " by its chat template")
        if not tokenizer.is_open:
            return f"You are talking to {model} ({plural(len(tokenizer), 'word')})"
        noun = "character" if tokenizer.name == "characters" else "word piece"
        return f"You are talking to {model} ({plural(len(tokenizer), noun)}, any text)"


def load_session_model(
    names: Sequence[str],
    runs_dir: Path | None,
    combination: "CombinationOptions | None" = None,
    precision: str = "auto",
    on_progress: "Callable[[LoadingProgress], None] | None" = None,
) -> SessionModel:
    """Load the model of a run or of one of its epochs, or a combination of several runs; without names, the default.

    A name such as `hf:owner/name` or `gguf:FILE` loads a model by others. A large model calls `on_progress`. A screen
    calls `ModelLoader` instead, in a thread.

    Raises:
        InvalidInputError: If a model is missing or damaged, or if the runs cannot be combined.
    """
    pretrained = next((name for name in names if is_pretrained_name(name)), None)
    if pretrained is not None and (len(names) > 1 or combination is not None):
        raise InvalidInputError(
            f"{pretrained} is a model by others and cannot be combined; leave out other runs, --mixture and --cache"
        )
    runs = [load_model_by_name(name, runs_dir, precision, on_progress) for name in names or (None,)]
    if combination is None and len(runs) == 1:
        return SessionModel.from_loaded(runs[0])
    from engine.runs.combine import CombinationOptions, ModelCombiner  # deferred: most sessions do not need them

    combined = ModelCombiner(runs).combine_to_play(combination or CombinationOptions())
    data = runs[0].config.data
    return SessionModel(
        "+".join(run.name for run in runs),
        combined.description,
        combined.model,
        data.corpus,
        runs[0].path,
        predicts_eos=data.mode == "line",
    )
