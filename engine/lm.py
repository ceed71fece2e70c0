"""The one protocol that playing, the lens and evaluation need of a language model."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.vocabulary import Ids, Vocabulary

LogProbs = npt.NDArray[np.float32]
"""Natural-log probabilities `[vocabulary]` of the next word; they sum to one."""

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


class TextScorer(Protocol):
    """A model that has a faster way than word by word to score a whole text."""

    def score(self, ids: Ids) -> npt.NDArray[np.float64]:
        """Natural-log probability `[time]` of each word of `ids`, the first one predicted after `<eos>`."""
