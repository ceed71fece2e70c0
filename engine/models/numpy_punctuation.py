"""The punctuation softmax in numpy, for inference; `engine.models.punctuation_softmax` explains it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from engine.data.arrays import Float32Array
from engine.data.punctuation import PunctuationIds
from engine.models.matmul import Matrix
from engine.storage.tensor_file import StoredTensor, to_float32

MIN_PROB = np.finfo(np.float32).tiny
"""Lower bound of a probability, so that its logarithm is finite."""


@dataclass(frozen=True)
class NumpyPunctuationSoftmax:
    """Mixture of softmaxes with one component for each punctuation class."""

    output: Matrix  # [vocabulary, hidden]
    gate_weight: Float32Array  # [hidden, classes]
    gate_bias: Float32Array  # [classes]
    scale: Float32Array  # [classes, hidden]
    bias: Float32Array
    """`[classes, vocabulary]`: sum of both biases and of the logits that the shift of the hidden state contributes."""

    @classmethod
    def from_weights(cls, weights: Mapping[str, StoredTensor], output: Matrix, output_weight: Float32Array) -> Self:
        """Prepare the tensors of a model. `output` multiplies by `output_weight` `[vocabulary, hidden]`."""
        gate_weight, gate_bias, scale, shift, bias = (
            to_float32(weights[f"punctuation_softmax.{name}"])
            for name in ("gate_weight", "gate_bias", "scale", "shift", "bias")
        )
        return cls(
            output=output,
            gate_weight=np.ascontiguousarray(gate_weight.T),
            gate_bias=gate_bias,
            scale=1 + scale,
            bias=bias + to_float32(weights["output.bias"]) + shift @ output_weight.T,
        )

    def gate_probs(self, hidden: Float32Array) -> Float32Array:
        """Return the probabilities `[texts, classes]` of the punctuation after the hidden states `[texts, hidden]`."""
        gates: Float32Array = hidden @ self.gate_weight
        gates += self.gate_bias
        return softmax(gates)

    def conditional_probs(self, hidden: Float32Array, punctuation: PunctuationIds) -> Float32Array:
        """Return the probabilities `[texts, vocabulary]` of the tokens after the classes `punctuation` `[texts]`."""
        logits = self.output.matmul(hidden * self.scale[punctuation])
        logits += self.bias[punctuation]
        return softmax(logits)

    def marginal_log_probs(self, hidden: Float32Array) -> Float32Array:
        """Return the log-probabilities `[texts, vocabulary]` of the tokens, summed over the punctuation before them."""
        probs = self.output.matmul(hidden[:, None] * self.scale)  # [texts, classes, vocabulary]
        probs += self.bias
        probs -= probs.max(axis=2, keepdims=True)
        np.exp(probs, out=probs)
        gates = self.gate_probs(hidden)
        gates /= probs.sum(axis=2)
        mixed: Float32Array = np.matmul(gates[:, None], probs)[:, 0]
        np.maximum(mixed, MIN_PROB, out=mixed)
        log_probs: Float32Array = np.log(mixed, out=mixed)
        return log_probs


def softmax(logits: Float32Array) -> Float32Array:
    """Return the softmax over the last axis, computed in place."""
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits
