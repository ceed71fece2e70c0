"""The language model protocol, and optional protocols for models with faster or richer abilities."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer

LogProbs = npt.NDArray[np.float32]
"""Natural-log probabilities `[vocabulary]` of the next token; the probabilities sum to one."""

HiddenVector = npt.NDArray[np.float32]
"""The vector `[hidden]` that a model predicts the next token from; empty if the model has none."""

EXCLUDED_LOG_PROB = -1e4
"""Log-probability of a token that cannot come next: finite, so that sums over the vocabulary stay numbers."""

ModelState = Any
"""Everything a model remembers of the tokens read so far. An immutable value: a kept state is a branch point."""


class LanguageModel(Protocol):
    """A model that predicts the next token from the tokens before it, with all state passed explicitly."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokens that the model can predict."""

    def start(self) -> ModelState:
        """Return the state before any token. Advance it with `<eos>` to predict the first token."""

    def advance(self, state: ModelState, token: int) -> tuple[LogProbs, ModelState]:
        """Read one token; return the distribution of the next token and the new state. `state` stays valid."""


@dataclass(frozen=True)
class SequenceOutput:
    """Per-token output of a model that read a whole text."""

    log_probs: npt.NDArray[np.float64]
    """Natural-log probability `[time]` of each token; the first is predicted after `<eos>`."""
    hidden_states: HiddenVector
    """Vectors `[time, hidden]` that the tokens were predicted from."""


@runtime_checkable
class SequenceModel(Protocol):
    """A model that reads a whole text faster than token by token."""

    def forward_sequence(self, ids: TokenIds) -> SequenceOutput:
        """Read `ids`, carrying the state from the first to the last token."""


@runtime_checkable
class SequenceScorer(Protocol):
    """A model that scores a whole text without keeping its hidden vectors."""

    def score_sequence(self, ids: TokenIds) -> npt.NDArray[np.float64]:
        """Return the natural-log probability `[time]` of each token."""


@runtime_checkable
class DistributionModel(Protocol):
    """A model that computes the distributions of the tokens of a whole text faster than token by token."""

    def iter_log_probs(self, ids: TokenIds) -> Iterator[LogProbs]:
        """Yield the distribution that each token of `ids` is predicted with; the first is predicted after `<eos>`."""


@runtime_checkable
class BatchModel(Protocol):
    """A model that advances several texts together faster than one after the other."""

    def advance_batch(self, states: Sequence[Any], tokens: Sequence[int]) -> list[tuple[LogProbs, Any]]:
        """Read one token in each of several texts; equal to `advance` for each, to within rounding."""


@runtime_checkable
class PrefillModel(Protocol):
    """A model that reads several tokens of a text faster if only the distribution after the last one is needed."""

    def advance_tokens(self, state: Any, tokens: Sequence[int]) -> tuple[LogProbs, Any]:
        """Read at least one token; return the distribution after the last one, and the state there.

        The result equals `advance` for each token, to within rounding.
        """


@runtime_checkable
class ParallelModel(PrefillModel, Protocol):
    """A model that reads several tokens of one text together faster than one after the other."""

    def predict_tokens(self, state: Any, tokens: Sequence[int]) -> tuple[Float32Array, Any]:
        """Read at least one token; return the distributions `[tokens, vocabulary]` after each, and the last state."""


@runtime_checkable
class HiddenVectorModel(Protocol):
    """A model that predicts the next token from a hidden vector."""

    def hidden_vector(self, state: Any) -> HiddenVector:
        """Return the vector that the token after `state` is predicted from."""


def score_sequence(model: LanguageModel | SequenceModel, ids: TokenIds) -> npt.NDArray[np.float64]:
    """Return the natural-log probability `[time]` of each token of `ids`, in the model's fastest way."""
    if isinstance(model, SequenceScorer):
        return model.score_sequence(ids)
    return forward_sequence(model, ids).log_probs


def iter_log_probs(model: LanguageModel, ids: TokenIds) -> Iterator[LogProbs]:
    """Yield the distribution that each token of `ids` is predicted with, in the model's fastest way."""
    if isinstance(model, DistributionModel):
        yield from model.iter_log_probs(ids)
        return
    state, previous = model.start(), EOS_ID
    for token in ids.tolist():
        log_probs, state = model.advance(state, previous)
        yield log_probs
        previous = token


def advance_batch(
    model: LanguageModel, states: Sequence[ModelState], tokens: Sequence[int]
) -> list[tuple[LogProbs, ModelState]]:
    """Read one token in each of several texts, in the model's fastest way.

    The result equals `advance` for each text, to within rounding: batched products sum in another order.
    """
    if len(states) > 1 and isinstance(model, BatchModel):
        return model.advance_batch(states, tokens)
    return [model.advance(state, token) for state, token in zip(states, tokens, strict=True)]


def advance_tokens(model: LanguageModel, state: ModelState, tokens: Sequence[int]) -> tuple[LogProbs, ModelState]:
    """Read at least one token of a text, in the model's fastest way; return the distribution and state after the last.

    The result equals `advance` for each token, to within rounding.
    """
    if len(tokens) > 1 and isinstance(model, PrefillModel):
        return model.advance_tokens(state, tokens)
    log_probs = None
    for token in tokens:
        log_probs, state = model.advance(state, token)
    assert log_probs is not None, "at least one token"
    return log_probs, state


def predict_tokens(model: LanguageModel, state: ModelState, tokens: Sequence[int]) -> tuple[Float32Array, ModelState]:
    """Read at least one token, in the model's fastest way.

    Returns:
        The distributions `[tokens, vocabulary]` after each token, and the state after the last.
    """
    if isinstance(model, ParallelModel):
        return model.predict_tokens(state, tokens)
    rows = np.empty((len(tokens), len(model.tokenizer)), np.float32)
    for index, token in enumerate(tokens):
        rows[index], state = model.advance(state, token)
    return rows, state


def hidden_vector_function(model: LanguageModel) -> Callable[[ModelState], HiddenVector]:
    """Return the function from a state of `model` to its hidden vector.

    Loops over tokens call this once: a protocol check costs up to a tenth of the time that a model takes per token.
    """
    return model.hidden_vector if isinstance(model, HiddenVectorModel) else _empty_hidden_vector


def _empty_hidden_vector(state: ModelState) -> HiddenVector:
    return np.empty(0, np.float32)


def forward_sequence(model: LanguageModel | SequenceModel, ids: TokenIds) -> SequenceOutput:
    """Read `ids` with `model`, in its fastest way."""
    if isinstance(model, SequenceModel):
        return model.forward_sequence(ids)
    get_hidden_vector = hidden_vector_function(model)
    scores, hidden = np.empty(len(ids), np.float64), []
    log_probs, state = model.advance(model.start(), EOS_ID)
    for position, token in enumerate(ids):
        scores[position] = log_probs[token]
        hidden.append(get_hidden_vector(state))
        log_probs, state = model.advance(state, int(token))
    return SequenceOutput(scores, np.stack(hidden) if hidden else np.empty((0, 0), np.float32))
