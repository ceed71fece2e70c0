"""The one protocol that playing, the lens and evaluation need of a language model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.data.vocabulary import EOS_ID, Ids, Vocabulary

LogProbs = npt.NDArray[np.float32]
"""Natural-log probabilities `[vocabulary]` of the next word; they sum to one."""

Hidden = npt.NDArray[np.float32]
"""The vector `[hidden]` a model predicts the next word from; of size 0 where it has none."""

State = Any
"""What a model remembers of the words so far. A value: kept, it is a place to branch from."""


class LanguageModel(Protocol):
    """Predicts the next word from the words before it. Nothing is hidden on the model itself."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The words it knows."""

    def start(self) -> State:
        """The state before any word. The first word is predicted by advancing it with `<eos>`."""

    def advance(self, state: State, token: int) -> tuple[LogProbs, State]:
        """Read one word: the distribution of the word after it, and the new state; `state` stays valid."""


@dataclass(frozen=True)
class Trace:
    """What a model made of a text, token by token."""

    scores: npt.NDArray[np.float64]
    """Natural-log probability `[time]` of each token, the first one predicted after `<eos>`."""
    hidden: Hidden
    """The vectors `[time, hidden]` that they were predicted from."""


class TextReader(Protocol):
    """A model with a faster way than word by word to read a whole text."""

    def trace(self, ids: Ids) -> Trace:
        """Read `ids`, the state carried from the first to the last."""


def scores_of(model: LanguageModel | TextReader, ids: Ids) -> npt.NDArray[np.float64]:
    """The scores of `trace` alone; a model that can do without keeping all its hidden vectors does."""
    if hasattr(model, "score"):
        alone: npt.NDArray[np.float64] = model.score(ids)
        return alone
    return trace(model, ids).scores


def advance_all(model: LanguageModel, states: Sequence[State], tokens: Sequence[int]) -> list[tuple[LogProbs, State]]:
    """Read a word in each of several texts, in the model's fastest way.

    It is what `advance` gives for each, to within rounding: products of several vectors add up in another order.
    """
    if len(states) > 1 and hasattr(model, "advance_all"):
        read: list[tuple[LogProbs, State]] = model.advance_all(states, tokens)
        return read
    return [model.advance(state, token) for state, token in zip(states, tokens, strict=True)]


def hidden_of(model: LanguageModel, state: State) -> Hidden:
    """The vector that the word after `state` is predicted from."""
    if hasattr(model, "hidden"):
        vector: Hidden = model.hidden(state)
        return vector
    return np.empty(0, np.float32)


def trace(model: LanguageModel | TextReader, ids: Ids) -> Trace:
    """Read `ids` with `model`, in its fastest way."""
    if hasattr(model, "trace"):
        whole: Trace = model.trace(ids)
        return whole
    scores, hidden = np.empty(len(ids), np.float64), []
    log_probs, state = model.advance(model.start(), EOS_ID)
    for position, token in enumerate(ids):
        scores[position] = log_probs[token]
        hidden.append(hidden_of(model, state))
        log_probs, state = model.advance(state, int(token))
    return Trace(scores, np.stack(hidden) if hidden else np.empty((0, 0), np.float32))
