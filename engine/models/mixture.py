"""Several models as one: probabilities interpolated with fixed weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data.vocabulary import Ids, Vocabulary
from engine.errors import UnusableInput
from engine.models.base import LanguageModel, LogProbs, Trace, advance_all, hidden_of, trace

Floats = npt.NDArray[np.float64]


class Mixture:
    """The weighted mean of several models' distributions; equal weights make it an ensemble.

    Its hidden vector is that of its first model, so that a cache may stand on a mixture.
    """

    def __init__(self, models: Sequence[LanguageModel], weights: Sequence[float]) -> None:
        """Put `models` together.

        Raises:
            UnusableInput: the weights are not one for each model, not positive, or do not sum to 1; or the models
                do not have the same vocabulary.
        """
        check_weights(weights, len(models))
        if any(model.vocabulary != models[0].vocabulary for model in models[1:]):
            raise UnusableInput("models of different vocabularies cannot be mixed; train them on the same split")
        self.models = tuple(models)
        self.weights = tuple(weights)
        with np.errstate(divide="ignore"):
            self._log_weights = np.log(np.asarray(weights))

    @property
    def vocabulary(self) -> Vocabulary:
        """The words that all of its models know."""
        return self.models[0].vocabulary

    def start(self) -> tuple[Any, ...]:
        """Every model's start."""
        return tuple(model.start() for model in self.models)

    def advance(self, state: tuple[Any, ...], token: int) -> tuple[LogProbs, tuple[Any, ...]]:
        """Every model reads `token`."""
        read = [model.advance(its, token) for model, its in zip(self.models, state, strict=True)]
        return self._of_parts(read)

    def advance_all(
        self, states: Sequence[tuple[Any, ...]], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, tuple[Any, ...]]]:
        """Every model reads a word in each of several texts."""
        its_states = zip(*states, strict=True)
        read = [advance_all(model, its, tokens) for model, its in zip(self.models, its_states, strict=True)]
        return [self._of_parts(parts) for parts in zip(*read, strict=True)]

    def _of_parts(self, read: Sequence[tuple[LogProbs, Any]]) -> tuple[LogProbs, tuple[Any, ...]]:
        mixed = _mix(np.stack([log_probs for log_probs, _ in read]), self._log_weights)
        return mixed.astype(np.float32), tuple(new for _, new in read)

    def hidden(self, state: tuple[Any, ...]) -> npt.NDArray[np.float32]:
        """The first model's."""
        return hidden_of(self.models[0], state[0])

    def trace(self, ids: Ids) -> Trace:
        """All of a text at once."""
        return self.mix([trace(model, ids) for model in self.models])

    def mix(self, traces: Sequence[Trace]) -> Trace:
        """What its models made of a text, one trace each, as what it makes of it."""
        scores = _mix(np.stack([item.scores for item in traces]), self._log_weights)
        return Trace(scores, traces[0].hidden)


def check_weights(weights: Sequence[float], parts: int) -> None:
    """Refuse weights that are none of a mixture of so many parts.

    Raises:
        UnusableInput: they are too few or too many, one is negative, or they do not sum to 1.
    """
    if len(weights) != parts:
        raise UnusableInput(f"{len(weights)} weights for {parts} models; give one for each")
    if not all(weight >= 0 for weight in weights) or abs(sum(weights) - 1) > 1e-6:  # NaN fails the first
        given = ",".join(f"{weight:g}" for weight in weights)
        raise UnusableInput(f"weights {given} sum to {sum(weights):g}; they must be 0 or more and sum to 1")


def _mix(log_probs: npt.NDArray[Any], log_weights: Floats) -> Floats:
    """The logarithm of the weighted mean over the first axis."""
    weighted = log_probs + log_weights[:, None]
    highest = weighted.max(axis=0)
    mixed: Floats = highest + np.log(np.exp(weighted - highest).sum(axis=0))
    return mixed


def choose_weights(scores: Floats, rounds: int = 200) -> tuple[float, ...]:
    """The weights under which a text is most probable, by expectation maximisation.

    Args:
        scores: natural-log probabilities `[models, time]` of the text's tokens.
        rounds: each brings the weights nearer; the likelihood has one maximum alone.
    """
    probs = np.exp(scores - scores.max(axis=0))
    weights = np.full(len(probs), 1 / len(probs))
    for _ in range(rounds):
        shares = weights[:, None] * probs
        weights = (shares / shares.sum(axis=0)).mean(axis=1)
    return tuple(float(weight) for weight in weights / weights.sum())
