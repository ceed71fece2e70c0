"""Dialogue model: any language model whose vocabulary has speakers, held to the form of a scene.

A scene is a sequence of lines, each a speaker, the tokens of the text, and `<eos>`. One more `<eos>` ends the scene.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.errors import InvalidInputError
from engine.models import base
from engine.models.base import EXCLUDED_LOG_PROB, HiddenVector, LanguageModel, LogProbs, ModelState
from engine.models.speaker_text import SpeakerTextModel
from engine.models.speaker_words import SpeakerWords
from engine.models.turn_features import SpokenLine, TurnState
from engine.models.turn_taking import TurnModel

TURN_WEIGHT = 0.9
"""Weight of the turn model in the distribution of the next speaker; the rest is the language model's."""
MAX_LINE_TOKENS = 256
"""Maximum number of tokens of a line that the turn model reads; only the last ones of a longer line."""


@dataclass(frozen=True)
class DialogueState:
    """State of a dialogue model; its size does not grow with the scene."""

    model_state: ModelState
    """State of the language model."""
    turns: TurnState | None
    """The scene's lines before the current one, as the turn model knows them; None without a turn model."""
    speaker: int | None = None
    """Index in the cast of the speaker of the current line; None after `<eos>`."""
    line: tuple[int, ...] = ()
    """Last tokens of the current line, without its speaker; empty without a turn model."""


class DialogueModel:
    """A language model that says lines in the form of a scene, and the turn model that knows who speaks next.

    After `<eos>` only speakers and `<eos>` are possible, elsewhere only text and `<eos>`. The probabilities of the
    possible tokens are renormalized. The probability that the scene ends is the language model's, and the probabilities
    of the speakers are a weighted mean of the language model's and the turn model's. Inside a line, the speaker's own
    words become more likely (see `SpeakerWords`).
    """

    def __init__(
        self,
        model: LanguageModel,
        turn_model: TurnModel | None = None,
        turn_weight: float = TURN_WEIGHT,
        speaker_words: SpeakerWords | None = None,
        load_text_model: Callable[[], SpeakerTextModel] | None = None,
    ) -> None:
        """Wrap `model`; without the other parts, only the form is enforced.

        Args:
            model: Language model whose vocabulary has a cast.
            turn_model: Model of who speaks next.
            turn_weight: Weight of the turn model in the distribution of the next speaker.
            speaker_words: Word frequencies of each speaker.
            load_text_model: Function that returns the model of who says a text, which predictions do not need.

        Raises:
            InvalidInputError: If the vocabulary has no speakers, a part belongs to another one, or the weight is
                invalid.
        """
        self.model = model
        tokenizer = model.tokenizer
        if not tokenizer.cast:
            raise InvalidInputError("the model knows no speakers; use a model that was trained with --mode dialogue")
        if turn_model is not None and turn_model.cast != tokenizer.cast:
            raise InvalidInputError("the turn model has another cast than the vocabulary; use the files of one run")
        if speaker_words is not None:
            self._check_cast("speaker words have", speaker_words.num_speakers)
        if not 0 <= turn_weight <= 1:
            raise InvalidInputError(f"turn weight {turn_weight:g} is out of range; use a number from 0 to 1")
        self.turn_model = turn_model
        self.turn_weight = turn_weight
        self.speaker_words = speaker_words
        self._load_text_model = load_text_model
        self._num_text_tokens = tokenizer.num_text_tokens
        self._boosts = speaker_words.boosts(self._num_text_tokens) if speaker_words else None
        self._model_hidden_vector = base.hidden_vector_function(model)

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary of the model, with the speakers at its end."""
        return self.model.tokenizer

    @cached_property
    def text_model(self) -> SpeakerTextModel | None:
        """Model of who says a text, loaded when it is first used; None if there is none."""
        if self._load_text_model is None:
            return None
        text_model = self._load_text_model()
        self._check_cast("text model has", text_model.num_speakers)
        return text_model

    def _check_cast(self, part: str, num_speakers: int) -> None:
        if num_speakers != len(self.tokenizer.cast):
            raise InvalidInputError(f"the {part} another cast than the vocabulary; use the files of one run")

    def start(self) -> DialogueState:
        """Return the start state of the model, before the first scene."""
        return DialogueState(self.model.start(), self._start_scene())

    def advance(self, state: DialogueState, token: int) -> tuple[LogProbs, DialogueState]:
        """Read `token`; return the distribution of the next token and the new state."""
        return self._finish_step(state, token, self.model.advance(state.model_state, token))

    def advance_batch(
        self, states: Sequence[DialogueState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, DialogueState]]:
        """Read one token in each of several texts."""
        outputs = base.advance_batch(self.model, [state.model_state for state in states], tokens)
        return list(map(self._finish_step, states, tokens, outputs))

    def advance_tokens(self, state: DialogueState, tokens: Sequence[int]) -> tuple[LogProbs, DialogueState]:
        """Read at least one token; return the distribution after the last one, and the state there."""
        log_probs, model_state = base.advance_tokens(self.model, state.model_state, tokens)
        for token in tokens:
            state = self._next_state(state, token, model_state)
        return self._restrict(log_probs, state, tokens[-1]), state

    def hidden_vector(self, state: DialogueState) -> HiddenVector:
        """Return the hidden vector of the language model."""
        return self._model_hidden_vector(state.model_state)

    def iter_log_probs(self, ids: TokenIds) -> Iterator[LogProbs]:
        """Yield the distribution that each token of `ids` is predicted with, in the language model's fastest way."""
        state, previous = DialogueState(None, self._start_scene()), EOS_ID
        for log_probs, token in zip(base.iter_log_probs(self.model, ids), ids.tolist(), strict=True):
            restricted, state = self._finish_step(state, previous, (log_probs, None))
            yield restricted
            previous = token

    def score_sequence(self, ids: TokenIds) -> Float64Array:
        """Return the natural-log probability `[time]` of each token of `ids`."""
        rows = zip(self.iter_log_probs(ids), ids.tolist(), strict=True)
        return np.fromiter((log_probs[token] for log_probs, token in rows), np.float64, len(ids))

    def _finish_step(
        self, state: DialogueState, token: int, output: tuple[LogProbs, ModelState]
    ) -> tuple[LogProbs, DialogueState]:
        """Return the restricted distribution after `token` and the new state, given the language model's `output`."""
        log_probs, model_state = output
        new_state = self._next_state(state, token, model_state)
        return self._restrict(log_probs, new_state, token), new_state

    def _next_state(self, state: DialogueState, token: int, model_state: ModelState) -> DialogueState:
        """Return the state after `token`, given the language model's."""
        if token == EOS_ID:
            return DialogueState(model_state, self._end_line(state))
        if token >= self._num_text_tokens:
            is_inside_line = state.speaker is not None or state.line
            turns = self._end_line(state) if is_inside_line else state.turns
            return DialogueState(model_state, turns, token - self._num_text_tokens)
        line = (*state.line[1 - MAX_LINE_TOKENS :], token) if self.turn_model else ()
        return DialogueState(model_state, state.turns, state.speaker, line)

    def _restrict(self, log_probs: LogProbs, state: DialogueState, token: int) -> LogProbs:
        """Return the distribution of the tokens that are possible in `state`, which is the one after `token`."""
        if token == EOS_ID:
            return self._speaker_log_probs(log_probs, state.turns)
        return self._text_log_probs(log_probs, state.speaker)

    def _start_scene(self) -> TurnState | None:
        """Return the state of the turn model at the start of a scene; None without a turn model."""
        return None if self.turn_model is None else self.turn_model.start()

    def _end_line(self, state: DialogueState) -> TurnState | None:
        """Return the state of the turn model after `<eos>`, which ends the current line or else the scene."""
        if self.turn_model is None or state.turns is None:
            return None
        if state.speaker is not None:
            return self.turn_model.read_turn(state.turns, SpokenLine(state.speaker, self.tokenizer.decode(state.line)))
        return state.turns if state.line else self.turn_model.start()  # a line without a speaker

    def _text_log_probs(self, log_probs: LogProbs, speaker: int | None) -> LogProbs:
        """Exclude the speakers from a distribution `[vocabulary]`, rescale the speaker's words, and renormalize."""
        restricted = np.full_like(log_probs, EXCLUDED_LOG_PROB)
        text = restricted[: self._num_text_tokens]
        text[:] = log_probs[: self._num_text_tokens]
        if self._boosts is not None and speaker is not None:
            tokens, boosts = self._boosts[speaker]
            text[tokens] += boosts
        text -= _log_sum_exp(text)
        return restricted

    def _speaker_log_probs(self, log_probs: LogProbs, turns: TurnState | None) -> LogProbs:
        """Exclude all but the speakers and `<eos>` from a distribution `[vocabulary]`, and mix in the turn model's."""
        speakers = log_probs[self._num_text_tokens :].astype(np.float64)
        total = _log_sum_exp(speakers)
        normalizer = np.logaddexp(total, log_probs[EOS_ID])
        if self.turn_model is not None and turns is not None:
            by_turns = self.turn_model.log_probs(turns)
            mixed = (1 - self.turn_weight) * np.exp(speakers - total) + self.turn_weight * np.exp(by_turns)
            speakers = total + np.log(np.maximum(mixed, np.finfo(np.float64).tiny))
        restricted = np.full_like(log_probs, EXCLUDED_LOG_PROB)
        restricted[EOS_ID] = log_probs[EOS_ID] - normalizer
        restricted[self._num_text_tokens :] = speakers - normalizer
        return restricted


def _log_sum_exp(log_probs: LogProbs | Float64Array) -> float:
    """Return the logarithm of the sum of probabilities `[any]`."""
    highest = float(log_probs.max())
    return highest + float(np.log(np.exp(log_probs - highest).sum()))
