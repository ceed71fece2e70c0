"""The language model protocol, and optional protocols for models with faster or richer abilities."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array, Float64Array
from engine.data.tokenizers import EOS_ID, TokenIds, Tokenizer

LogProbs = npt.NDArray[np.float32]  # natural-log probabilities `[vocabulary]` of the next token
# `[hidden]`, which the next token is predicted from; empty if the model has none
HiddenVector = npt.NDArray[np.float32]
EXCLUDED_LOG_PROB = -1e4  # of a token that cannot come next: finite, so that sums over the vocabulary stay numbers
# Everything a model remembers of the tokens read: an immutable value, so a kept state is a branch point.
ModelState = Any
SCORING_CHUNK = 256  # tokens whose distributions are in memory at once


class LanguageModel(Protocol):
    """A model that predicts the next token from the tokens before it, with all state passed explicitly."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def start(self) -> ModelState:
        """Return the state before any token. Advance it with `<eos>` to predict the first token."""

    def advance(self, state: ModelState, token: int) -> tuple[LogProbs, ModelState]:
        """Read one token; return the distribution of the next token and the new state. `state` stays valid."""


@dataclass(frozen=True)
class SequenceOutput:
    """Output for consecutive tokens of a text, the first of which is predicted after `<eos>`."""

    log_probs: Float64Array  # natural-log probability `[time]` of each token
    hidden_states: HiddenVector  # vectors `[time, hidden]` that the tokens were predicted from


@runtime_checkable
class SequenceModel(Protocol):
    """A model that scores a whole text faster than token by token."""

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        """Carry the state from the first to the last token; yield the output of consecutive parts."""


@runtime_checkable
class BatchModel(Protocol):
    """A model that reads several tokens together faster than one by one, equal to `advance` within rounding."""

    def predict_tokens(
        self, state: Any, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, ModelState]:
        """Return distributions `[tokens, vocabulary]`, or `[1, vocabulary]` with `last_only`, and the last state."""

    def advance_batch(self, states: Sequence[Any], tokens: Sequence[int]) -> list[tuple[LogProbs, ModelState]]:
        """Read one token in each of several texts."""


@runtime_checkable
class HiddenVectorModel(Protocol):
    """A model that predicts the next token from a hidden vector."""

    def hidden_vector(self, state: Any) -> HiddenVector:
        """Return the vector that the token after `state` is predicted from."""


@runtime_checkable
class AdaptedModel(LanguageModel, Protocol):
    """A model with changes, such as adapters, each with a strength: 0 leaves the base as it came, 1 is as trained."""

    @property
    def strengths(self) -> Mapping[str, float]:
        """Strength by the name of the change, in their order."""

    def with_strengths(self, strengths: Mapping[str, float]) -> Self:
        """Return the same model with other strengths; changes that are left out keep theirs.

        The models share all matrices. One can continue a state of the other, which then has read the text before at
        the other strengths.
        """

    def read_last_again(self, state: ModelState) -> tuple[LogProbs, ModelState]:
        """Read only the last token of a text again, such as at other strengths than before; `state` has read one."""


@runtime_checkable
class LimitedModel(LanguageModel, Protocol):
    """A model that predicts from a window of at most `context_size` tokens."""

    context_size: int

    def with_context_size(self, context_size: int) -> Self:
        """Return the same model with a smaller window."""


def strengths_of(model: LanguageModel) -> Mapping[str, float]:
    """Return the strengths of the changes of a model; none of a model without changes."""
    return model.strengths if isinstance(model, AdaptedModel) else {}


def score_sequence(model: LanguageModel | SequenceModel, ids: TokenIds) -> Float64Array:
    """Return the natural-log probability `[time]` of each token of `ids`, in the model's fastest way."""
    if isinstance(model, SequenceModel):
        return np.concatenate([np.empty(0), *(output.log_probs for output in model.score_chunks(ids))])
    scores, state, inputs = np.empty(len(ids)), model.start(), [EOS_ID, *ids[:-1].tolist()]
    for start in range(0, len(ids), SCORING_CHUNK):
        chunk = slice(start, start + SCORING_CHUNK)
        rows, state = predict_tokens(model, state, inputs[chunk])
        scores[chunk] = rows[np.arange(len(rows)), ids[chunk]]
    return scores


def forward_sequence(model: LanguageModel | SequenceModel, ids: TokenIds) -> SequenceOutput:
    """Score the tokens of `ids`, with their hidden vectors if the model scores whole texts."""
    if not isinstance(model, SequenceModel) or not len(ids):
        return SequenceOutput(score_sequence(model, ids), np.empty((len(ids), 0), np.float32))
    outputs = list(model.score_chunks(ids))
    log_probs, hidden = [output.log_probs for output in outputs], [output.hidden_states for output in outputs]
    return SequenceOutput(np.concatenate(log_probs), np.concatenate(hidden))


def advance_batch(
    model: LanguageModel, states: Sequence[ModelState], tokens: Sequence[int]
) -> list[tuple[LogProbs, ModelState]]:
    """Read one token in each of several texts, in the model's fastest way; see `BatchModel`."""
    if len(states) > 1 and isinstance(model, BatchModel):
        return model.advance_batch(states, tokens)
    return [model.advance(state, token) for state, token in zip(states, tokens, strict=True)]


def predict_tokens(
    model: LanguageModel, state: ModelState, tokens: Sequence[int], *, last_only: bool = False
) -> tuple[Float32Array, ModelState]:
    """Read at least one token of a text, in the model's fastest way; see `BatchModel`."""
    if len(tokens) > 1 and isinstance(model, BatchModel):
        return model.predict_tokens(state, tokens, last_only=last_only)
    return predict_one_by_one(model, state, tokens, last_only=last_only)


def predict_one_by_one(
    model: LanguageModel, state: ModelState, tokens: Sequence[int], *, last_only: bool = False
) -> tuple[Float32Array, ModelState]:
    """Read at least one token as `BatchModel.predict_tokens` does, but one after the other."""
    rows = list[LogProbs]()
    for token in tokens:
        if last_only:
            rows.clear()
        log_probs, state = model.advance(state, token)
        rows.append(log_probs)
    return np.stack(rows), state


def advance_tokens(model: LanguageModel, state: ModelState, tokens: Sequence[int]) -> tuple[LogProbs, ModelState]:
    """Read at least one token of a text; return the distribution after the last one, and the state there."""
    if len(tokens) == 1:
        return model.advance(state, tokens[0])
    rows, state = predict_tokens(model, state, tokens, last_only=True)
    return rows[0], state


def hidden_vector(model: LanguageModel, state: ModelState) -> HiddenVector:
    """Return the hidden vector that the token after `state` is predicted from; empty if the model has none."""
    return model.hidden_vector(state) if isinstance(model, HiddenVectorModel) else np.empty(0, np.float32)
