"""Dialogue model: a language model that reads and writes a script, with the models of its speakers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from engine.data.arrays import Float32Array, Float64Array
from engine.data.scripts import encode_speaker, parse_line
from engine.data.tokenizers.base import TokenIds
from engine.errors import InvalidInputError
from engine.models import base
from engine.models.base import HiddenVector, LanguageModel, LogProbs, ModelState, SequenceOutput
from engine.models.speakers import SpeakerTextModel, SpokenLine, TurnModel, TurnState, cast_index

MAX_LINE_TOKENS = 256  # of a line that are read for the names in it; only the first ones of a longer line


@dataclass(frozen=True)
class DialogueState:
    model_state: ModelState
    turns: TurnState = field(default_factory=TurnState)  # the scene's lines before the current one
    line: tuple[int, ...] = ()  # first tokens of the current line


class DialogueModel:
    """A language model that reads and writes a script, and follows who has spoken.

    Its distributions are the language model's. The turn model chooses who speaks next, and the text model recognizes
    who says a text; without one of them, the language model does.
    """

    def __init__(
        self,
        model: LanguageModel,
        cast: Sequence[str],
        turn_model: TurnModel | None = None,
        load_text_model: Callable[[], SpeakerTextModel] | None = None,
    ) -> None:
        """Wrap `model`; `cast` has the canonical names of who can be chosen to speak, in all parts."""
        if not cast:
            raise InvalidInputError("the model knows no speakers; use a model that was trained with --mode dialogue")
        if turn_model is not None and turn_model.cast != tuple(cast):
            raise InvalidInputError("the turn model has another cast than the model; use the files of one run")
        self.model, self.cast, self.turn_model = model, tuple(cast), turn_model
        self.tokenizer = model.tokenizer
        self._load_text_model = load_text_model
        self._line_end_ids = frozenset(model.tokenizer.line_end_ids.tolist())
        self._model_hidden_vector = base.hidden_vector_function(model)

    @cached_property
    def text_model(self) -> SpeakerTextModel | None:
        """Model of who says a text, which is large and loaded when it is first used; None if there is none."""
        if self._load_text_model is None:
            return None
        text_model = self._load_text_model()
        if text_model.num_speakers != len(self.cast):
            raise InvalidInputError("the text model has another cast than the model; use the files of one run")
        return text_model

    def start(self) -> DialogueState:
        return DialogueState(self.model.start())

    def advance(self, state: DialogueState, token: int) -> tuple[LogProbs, DialogueState]:
        return self.advance_batch([state], [token])[0]

    def advance_batch(
        self, states: Sequence[DialogueState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, DialogueState]]:
        outputs = base.advance_batch(self.model, [state.model_state for state in states], tokens)
        return [
            (log_probs, self._follow(state, (token,), model_state))
            for state, token, (log_probs, model_state) in zip(states, tokens, outputs, strict=True)
        ]

    def predict_tokens(
        self, state: DialogueState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, DialogueState]:
        rows, model_state = base.predict_tokens(self.model, state.model_state, tokens, last_only=last_only)
        return rows, self._follow(state, tokens, model_state)

    def hidden_vector(self, state: DialogueState) -> HiddenVector:
        return self._model_hidden_vector(state.model_state)

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        if isinstance(self.model, base.SequenceModel):
            return self.model.score_chunks(ids)
        return iter([base.forward_sequence(self.model, ids)])

    def next_speaker_log_probs(self, state: DialogueState, log_probs: LogProbs) -> Float64Array:
        """Return the natural-log probabilities `[cast]` of who says the next line, after the end of a line."""
        if self.turn_model is not None:
            return self.turn_model.log_probs(state.turns)
        first_tokens = [encode_speaker(self.tokenizer, name)[0] for name in self.cast]
        by_name = log_probs[first_tokens] - np.log(np.bincount(first_tokens)[first_tokens])
        return np.asarray(by_name - np.logaddexp.reduce(by_name))

    def _follow(self, state: DialogueState, tokens: Sequence[int], model_state: ModelState) -> DialogueState:
        turns, line = state.turns, state.line
        for token in tokens:
            if token not in self._line_end_ids:
                line = (*line, token) if len(line) < MAX_LINE_TOKENS else line
                continue
            for text in self.tokenizer.decode((*line, token)).split("\n")[:-1]:
                if turn := parse_line(text):
                    turns = turns.after(SpokenLine(cast_index(turn.speaker, self.cast), turn.text), self.cast)
                elif not text.strip():
                    turns = TurnState()  # an empty line ends the scene
            line = ()
        return DialogueState(model_state, turns, line)
