"""Mixture of several models: their probabilities, interpolated with fixed weights."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array, Float64Array
from engine.data.tokenizers.base import TokenIds
from engine.errors import InvalidInputError
from engine.models import base
from engine.models.base import HiddenVector, LanguageModel, LogProbs, ModelState, SequenceOutput

MixtureState = tuple[ModelState, ...]
"""State of each model."""


class Mixture:
    """Weighted mean of the distributions of several models; with equal weights, an ensemble.

    The hidden vector of a mixture is the vector of its first model, so that a cache can be added to a mixture.
    """

    def __init__(self, models: Sequence[LanguageModel], weights: Sequence[float]) -> None:
        """Combine `models` with one weight each; invalid weights and other vocabularies raise an InvalidInputError."""
        validate_mixture_weights(weights, len(models))
        if any(model.tokenizer != models[0].tokenizer for model in models[1:]):
            raise InvalidInputError("models of different vocabularies cannot be mixed; train them on the same split")
        self.models, self.weights, self.tokenizer = tuple(models), tuple(weights), models[0].tokenizer
        with np.errstate(divide="ignore"):
            self._log_weights = np.log(np.asarray(weights))
        self._first_hidden_vector = base.hidden_vector_function(models[0])

    def start(self) -> MixtureState:
        return tuple(model.start() for model in self.models)

    def advance(self, state: MixtureState, token: int) -> tuple[LogProbs, MixtureState]:
        outputs = [model.advance(model_state, token) for model, model_state in zip(self.models, state, strict=True)]
        return self._combine(outputs)

    def predict_tokens(
        self, state: MixtureState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, MixtureState]:
        outputs = [
            base.predict_tokens(model, model_state, tokens, last_only=last_only)
            for model, model_state in zip(self.models, state, strict=True)
        ]
        return self._combine(outputs)

    def advance_batch(
        self, states: Sequence[MixtureState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, MixtureState]]:
        outputs_by_model = [
            base.advance_batch(model, model_states, tokens)
            for model, model_states in zip(self.models, zip(*states, strict=True), strict=True)
        ]
        return [self._combine(outputs) for outputs in zip(*outputs_by_model, strict=True)]

    def hidden_vector(self, state: MixtureState) -> HiddenVector:
        return self._first_hidden_vector(state[0])

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        yield self.mix_outputs([base.forward_sequence(model, ids) for model in self.models])

    def mix_outputs(self, outputs: Sequence[SequenceOutput]) -> SequenceOutput:
        """Combine the outputs of the models, one per model and all for the same text."""
        return SequenceOutput(self._mix([output.log_probs for output in outputs]), outputs[0].hidden_states)

    def _combine(self, outputs: Sequence[tuple[Float32Array, ModelState]]) -> tuple[Float32Array, MixtureState]:
        mixed = self._mix([log_probs for log_probs, _ in outputs]).astype(np.float32)
        return mixed, tuple(state for _, state in outputs)

    def _mix(self, log_probs: Sequence[npt.NDArray[np.floating]]) -> Float64Array:
        """Return the logarithm of the weighted mean of the probabilities of each model."""
        weighted = np.stack(log_probs) + self._log_weights.reshape(-1, *[1] * log_probs[0].ndim)
        highest = weighted.max(axis=0)
        mixed: Float64Array = highest + np.log(np.exp(weighted - highest).sum(axis=0))
        return mixed


def validate_mixture_weights(weights: Sequence[float], num_models: int) -> None:
    """Raise an InvalidInputError unless `weights` are one per model, not negative, and sum to 1."""
    if len(weights) != num_models:
        raise InvalidInputError(f"{len(weights)} weights for {num_models} models; use one weight per model")
    if not all(weight >= 0 for weight in weights) or abs(sum(weights) - 1) > 1e-6:  # NaN fails the first test
        listed = ",".join(f"{weight:g}" for weight in weights)
        raise InvalidInputError(f"weights {listed} sum to {sum(weights):g}; they must be 0 or more and sum to 1")


def tune_mixture_weights(log_probs: Float64Array, num_iterations: int = 200) -> tuple[float, ...]:
    """Return the mixture weights that maximize the likelihood of a text, by expectation maximization.

    `log_probs` are the natural-log probabilities `[models, time]` of the text's tokens. Each iteration increases the
    likelihood, which has a single maximum.
    """
    probs = np.exp(log_probs - log_probs.max(axis=0))
    weights = np.full(len(probs), 1 / len(probs))
    for _ in range(num_iterations):
        joint = weights[:, None] * probs
        weights = (joint / joint.sum(axis=0)).mean(axis=1)
    return tuple(float(weight) for weight in weights / weights.sum())
