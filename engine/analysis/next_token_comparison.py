"""Comparison of two distributions of the next token."""

import math
from dataclasses import dataclass

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.tokenizers.base import TokenIds
from engine.models.base import LogProbs


def kl_divergence_bits(log_probs: LogProbs, other: LogProbs) -> float:
    """Return the Kullback-Leibler divergence D(P ‖ Q) in bits, with P in `log_probs` and Q in `other`, `[vocabulary]`.

    A token costs this number of bits more, on average, if it is drawn from P and coded with Q. The divergence is 0 for
    equal distributions, and infinite if Q excludes a token of P.
    """
    possible = np.isfinite(log_probs)  # a token with probability 0 adds nothing
    first, second = log_probs[possible].astype(np.float64), other[possible].astype(np.float64)
    return max(0.0, float(np.exp(first) @ (first - second)) / math.log(2))


@dataclass(frozen=True)
class NextTokenComparison:
    """The likeliest next tokens of two distributions."""

    ids: TokenIds
    """Tokens `[count]` by their larger probability, in descending order."""
    probs: Float64Array
    """Probabilities `[2, count]` of the tokens in the first and in the second distribution."""
    best: tuple[int, int]
    """Likeliest token of the first and of the second distribution."""
    divergence_bits: float
    """Kullback-Leibler divergence D(first ‖ second) in bits."""

    @property
    def agrees(self) -> bool:
        """True if both distributions have the same likeliest token."""
        return self.best[0] == self.best[1]


def compare_next_tokens(log_probs: LogProbs, other: LogProbs, count: int) -> NextTokenComparison:
    """Compare two distributions `[vocabulary]`; list the `count` tokens that are likeliest in either."""
    both = np.stack([log_probs, other])
    ids = np.argsort(-both.max(axis=0), kind="stable")[:count].astype(np.int32)
    probs: Float64Array = np.exp(both[:, ids].astype(np.float64))
    first, second = both.argmax(axis=1).tolist()
    return NextTokenComparison(ids, probs, (first, second), kl_divergence_bits(log_probs, other))
