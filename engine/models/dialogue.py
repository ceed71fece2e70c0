"""Dialogue model: a language model that reads and writes a script, with the models of its speakers.

The script form is described in `engine.data.scripts`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.data.arrays import Float32Array, Float64Array
from engine.data.scripts import encode_speaker, parse_line
from engine.data.tokenizers.base import TokenIds, Tokenizer
from engine.errors import InvalidInputError
from engine.models import base
from engine.models.base import HiddenVector, LanguageModel, LogProbs, ModelState, SequenceOutput
from engine.models.speaker_text import SpeakerTextModel
from engine.models.turn_taking import SpokenLine, TurnModel, TurnState, cast_index

MAX_LINE_TOKENS = 256
"""Maximum number of tokens of a line that the turn model reads; only the first ones of a longer line."""


@dataclass(frozen=True)
class DialogueState:
    """State of a dialogue model; beside the language model's, its size does not grow with the scene."""

    model_state: ModelState
    """State of the language model."""
    turns: TurnState | None
    """The scene's lines before the current one, as the turn model knows them; None without a turn model."""
    line: tuple[int, ...] = ()
    """First tokens of the current line; empty without a turn model."""


class DialogueModel:
    """A language model that reads and writes a script, and follows who has spoken.

    Its distributions are the language model's. The turn model chooses the next speaker of a generated scene, and the
    text model recognizes who says a text.
    """

    def __init__(
        self,
        model: LanguageModel,
        cast: Sequence[str],
        turn_model: TurnModel | None = None,
        load_text_model: Callable[[], SpeakerTextModel] | None = None,
    ) -> None:
        """Wrap `model`.

        Args:
            model: Language model with an open vocabulary.
            cast: Canonical names of the speakers that can be chosen to speak.
            turn_model: Model of who speaks next.
            load_text_model: Function that returns the model of who says a text, which predictions do not need.

        Raises:
            InvalidInputError: If the cast is empty, or a part has another one.
        """
        self.model = model
        self.cast = tuple(cast)
        if not cast:
            raise InvalidInputError("the model knows no speakers; use a model that was trained with --mode dialogue")
        if turn_model is not None and turn_model.cast != self.cast:
            raise InvalidInputError("the turn model has another cast than the model; use the files of one run")
        self.turn_model = turn_model
        self._load_text_model = load_text_model
        self._line_end_ids = frozenset(model.tokenizer.line_end_ids.tolist())
        self._model_hidden_vector = base.hidden_vector_function(model)

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary of the model."""
        return self.model.tokenizer

    @property
    def has_text_model(self) -> bool:
        """True if there is a model of who says a text."""
        return self._load_text_model is not None

    @cached_property
    def text_model(self) -> SpeakerTextModel | None:
        """Model of who says a text, loaded when it is first used; None if there is none."""
        if self._load_text_model is None:
            return None
        text_model = self._load_text_model()
        if text_model.num_speakers != len(self.cast):
            raise InvalidInputError("the text model has another cast than the model; use the files of one run")
        return text_model

    def start(self) -> DialogueState:
        """Return the start state of the model, before the first scene."""
        return DialogueState(self.model.start(), self._start_scene())

    def advance(self, state: DialogueState, token: int) -> tuple[LogProbs, DialogueState]:
        """Read `token`; return the distribution of the next token and the new state."""
        log_probs, model_state = self.model.advance(state.model_state, token)
        return log_probs, self._follow(state, (token,), model_state)

    def advance_batch(
        self, states: Sequence[DialogueState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, DialogueState]]:
        """Read one token in each of several texts."""
        outputs = base.advance_batch(self.model, [state.model_state for state in states], tokens)
        return [
            (log_probs, self._follow(state, (token,), model_state))
            for state, token, (log_probs, model_state) in zip(states, tokens, outputs, strict=True)
        ]

    def predict_tokens(
        self, state: DialogueState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, DialogueState]:
        """Read several tokens of a text; see `BatchModel`."""
        rows, model_state = base.predict_tokens(self.model, state.model_state, tokens, last_only=last_only)
        return rows, self._follow(state, tokens, model_state)

    def hidden_vector(self, state: DialogueState) -> HiddenVector:
        """Return the hidden vector of the language model."""
        return self._model_hidden_vector(state.model_state)

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        """Score a whole text with the language model."""
        if isinstance(self.model, base.SequenceModel):
            return self.model.score_chunks(ids)
        return iter([base.forward_sequence(self.model, ids)])

    def next_speaker_log_probs(self, state: DialogueState, log_probs: LogProbs) -> Float64Array:
        """Return the natural-log probabilities `[cast]` of who says the next line of the scene.

        Without a turn model, a speaker is as likely as the first token of the name, shared by all whose names begin so.

        Args:
            state: State after the end of a line.
            log_probs: The language model's distribution `[vocabulary]` there.
        """
        if self.turn_model is not None and state.turns is not None:
            return self.turn_model.log_probs(state.turns)
        by_name = log_probs[self._first_tokens] - np.log(np.bincount(self._first_tokens)[self._first_tokens])
        normalized: Float64Array = by_name - np.logaddexp.reduce(by_name)
        return normalized

    @cached_property
    def _first_tokens(self) -> list[int]:
        """First token of the name of each speaker."""
        return [encode_speaker(self.tokenizer, name)[0] for name in self.cast]

    def _start_scene(self) -> TurnState | None:
        """Return the state of the turn model at the start of a scene; None without a turn model."""
        return None if self.turn_model is None else self.turn_model.start()

    def _follow(self, state: DialogueState, tokens: Sequence[int], model_state: ModelState) -> DialogueState:
        """Return the state after `tokens`, given the language model's."""
        turns, line = state.turns, state.line
        if self.turn_model is None or turns is None:
            return DialogueState(model_state, None)
        for token in tokens:
            if token not in self._line_end_ids:
                line = (*line, token) if len(line) < MAX_LINE_TOKENS else line
                continue
            for text in self.tokenizer.decode((*line, token)).split("\n")[:-1]:
                turn = parse_line(text)
                if turn is not None:
                    spoken = SpokenLine(cast_index(turn.speaker, self.cast), turn.text)
                    turns = self.turn_model.read_turn(turns, spoken)
                elif not text.strip():
                    turns = self.turn_model.start()
            line = ()
        return DialogueState(model_state, turns, line)
