"""Model of a session with its name and description, and a cache of the prefixes that the model has read."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import BUNDLED
from engine.data.speakers import display_name
from engine.data.tokenizers.base import EOS_ID
from engine.events import Evaluated, Finished, TrainingEvent
from engine.generation.prompt import DecoderState, prefill
from engine.generation.turns import Turn, next_speaker_probs, read_turns
from engine.models.base import LanguageModel, LogProbs
from engine.models.dialogue import DialogueModel
from engine.runs.dialogue_parts import read_dialogue_parts
from engine.runs.directory import CONFIG_FILE
from engine.runs.loading import LoadedModel, load_model_by_name
from engine.storage.files import default_runs_dir
from lotr_tui.formatting import format_perplexity, plural
from lotr_tui.session.conversation.cast import answering_cast, speaking_role
from lotr_tui.session.settings import ReplyMode

if TYPE_CHECKING:
    from engine.runs.combine import CombinationOptions
    from lotr_tui.monitor.training_view import TrainingView

EXAMPLE_PROMPTS = ("Bilbo Baggins is", "Where is Frodo", "The lamp")
"""Prompts that the interface suggests, if the model knows all their words."""
FIRST_SPEAKER = "GANDALF"
"""Speaker that the user is invited to talk to, if the model knows him."""
GREETING = "Hello."
MAX_INTRODUCED_SPEAKERS = 6
"""Speakers that the first line of a transcript names: those who are likely to answer a stranger's greeting."""


@dataclass(frozen=True)
class SessionModel:
    """Language model with the name and description that the interface shows."""

    name: str
    description: str
    model: LanguageModel
    corpus: str = BUNDLED
    """Path of the training corpus, or "bundled"."""
    run: Path | None = None
    """Run directory; of several combined runs the first."""
    predicts_eos: bool = True
    """True if the training text has `<eos>` after every line, so that the model can answer and stop."""
    answers_depend_on_prompt: bool = False
    """True if each training line followed the line it answers; False if the lines were shuffled."""

    @classmethod
    def from_loaded(cls, loaded: LoadedModel) -> "SessionModel":
        """Wrap the model of a run."""
        config = loaded.config.model
        layers = f"LSTM, {plural(config.num_layers, 'layer')} of {config.hidden_size}"
        parts = [layers if loaded.epoch is None else f"epoch {loaded.epoch}"]
        if loaded.decoder.tokenizer.is_open and loaded.bits_per_character is not None:
            # A perplexity per token says little to someone who does not know the tokens.
            parts.append(f"{loaded.bits_per_character:.2f} bits/character")
        elif loaded.valid_perplexity is not None:
            parts.append(f"valid {loaded.valid_perplexity:.1f}")
            if loaded.kneser_ney_perplexity is not None:
                parts[-1] += f" (Kneser-Ney {loaded.kneser_ney_perplexity:.1f})"
        if loaded.decoder.int8:
            parts.append("in int8")
        data = loaded.config.data
        return cls(
            loaded.name, " · ".join(parts), loaded.model, data.corpus, loaded.path, predicts_eos=data.mode != "stream"
        )

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
        if isinstance(event, Finished):
            kneser_ney = format_perplexity(view.started.kneser_ney_perplexity)
            description = f"valid {event.valid_perplexity:.1f} (Kneser-Ney {kneser_ney})"
        else:
            description = f"learning · epoch {event.epoch:.1f} · valid {event.valid_perplexity:.1f}"
        run = (runs_dir or default_runs_dir()) / view.started.run
        if not (run / CONFIG_FILE).is_file():
            return cls(view.started.run, description, event.model)
        model = event.model
        if model.tokenizer.cast:
            model = read_dialogue_parts(run).wrap(model, run)
        return cls(view.started.run, description, model, run=run)

    @property
    def cast(self) -> tuple[str, ...]:
        """Speakers that the model knows, of which the last stands for all others; empty if it knows none."""
        return self.model.tokenizer.cast

    @property
    def knows_speakers(self) -> bool:
        """True if the model knows speakers, so that a conversation with them is possible."""
        return bool(self.cast)

    @property
    def reply_modes(self) -> tuple[ReplyMode, ...]:
        """Reply modes that the model can be used in, the default one first."""
        return ("conversation", "continue") if self.knows_speakers else ("continue", "reply")

    def reply_mode_at_start(self, saved: ReplyMode) -> ReplyMode:
        """Return the reply mode of a new session: the saved one if the model can be used in it, or else the default."""
        return saved if saved in self.reply_modes else self.reply_modes[0]

    def welcome_text(self) -> str:
        """Return the only line of an empty transcript: what to type, and who else is there."""
        if not self.knows_speakers:
            return f'Type "{self.example_prompt()}" and press enter.'
        names: Sequence[str] = answering_cast(self.cast, "")
        if isinstance(self.model, DialogueModel) and self.model.turn_model is not None:
            greeted = read_turns(self.model, [Turn(speaking_role(self.cast, ""), GREETING)])
            names = [speaker.name for speaker in next_speaker_probs(self.model, greeted, names)]
        first = FIRST_SPEAKER if FIRST_SPEAKER in names else names[0]
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
        model = "the bundled model" if self.name == BUNDLED else self.name
        if self.knows_speakers:
            return f"You are talking to {plural(len(answering_cast(self.cast, '')), 'speaker')} of {model}"
        tokenizer = self.model.tokenizer
        if not tokenizer.is_open:
            return f"You are talking to {model} ({plural(len(tokenizer), 'word')})"
        noun = "character" if tokenizer.name == "characters" else "word piece"
        return f"You are talking to {model} ({plural(len(tokenizer), noun)}, any text)"


def load_session_model(
    names: Sequence[str | None],
    runs_dir: Path | None,
    combination: "CombinationOptions | None" = None,
    precision: str = "auto",
) -> SessionModel:
    """Load the model of a run or of one of its epochs (None: the bundled model), or a combination of several runs.

    Raises:
        InvalidInputError: If a run is missing or damaged, or if the runs cannot be combined.
    """
    runs = [load_model_by_name(name, runs_dir, precision) for name in names or [None]]
    if combination is None and len(runs) == 1:
        return SessionModel.from_loaded(runs[0])
    from engine.runs.combine import CombinationOptions, ModelCombiner  # deferred: most sessions do not need them

    combined = ModelCombiner(runs).combine_to_play(combination or CombinationOptions())
    data = runs[0].config.data
    return SessionModel(
        "+".join(run.name for run in runs),
        combined.describe(),
        combined.model,
        data.corpus,
        runs[0].path,
        predicts_eos=data.mode != "stream",
    )


class PrefixCache:
    """Decoder states after each token of the last text, so that a common prefix is not read again."""

    def __init__(self, model: LanguageModel, initial_state: DecoderState | None = None) -> None:
        """Start from `initial_state` (None: from the beginning of a text)."""
        self.model = model
        self.initial_state = initial_state
        self._ids: list[int] = []
        self._states = [initial_state or prefill(model, ())]

    def cached_log_probs(self, ids: Sequence[int]) -> LogProbs | None:
        """Return the log-probabilities `[vocabulary]` of the token after `ids`, or None where the model has to run."""
        return self._states[len(ids)].log_probs if self._ids[: len(ids)] == list(ids) else None

    def read(self, ids: Sequence[int]) -> list[DecoderState]:
        """Return the decoder states `[len(ids) + 1]` before each token of `ids` and after the last."""
        num_shared = 0
        while num_shared < min(len(ids), len(self._ids)) and ids[num_shared] == self._ids[num_shared]:
            num_shared += 1
        del self._states[num_shared + 1 :]
        for id in ids[num_shared:]:
            self._states.append(prefill(self.model, [id], self._states[-1]))
        self._ids = list(ids)
        return self._states[:]
