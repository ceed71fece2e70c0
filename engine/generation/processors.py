"""Stages of the sampler chain: pure functions from logits `[vocabulary]` to logits, where -inf removes a token."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float64]
"""Unnormalized log-probabilities `[vocabulary]`."""


def log_softmax(logits: Logits) -> Logits:
    """Normalize logits, so that their probabilities sum to one."""
    highest = float(logits.max())
    normalized: Logits = logits - (highest + math.log(np.exp(logits - highest).sum()))
    return normalized


def apply_repetition_penalty(logits: Logits, history: Sequence[int], penalty: float) -> Logits:
    """Make the tokens of `history` less likely: divide positive logits by the penalty, multiply negative ones."""
    seen = np.array(sorted(set(history)), dtype=np.int64)
    penalized = logits.copy()
    values = logits[seen]
    penalized[seen] = np.where(values > 0, values / penalty, values * penalty)
    return penalized


def apply_temperature(logits: Logits, temperature: float) -> Logits:
    """Divide the logits by the temperature; at 0, keep the likeliest token only."""
    if temperature < 1e-3:  # lower temperatures are greedy in effect, and the division could overflow
        greedy = np.full_like(logits, -np.inf)
        greedy[np.argmax(logits)] = 0.0
        return greedy
    return logits / temperature


def apply_top_k(logits: Logits, top_k: int) -> Logits:
    """Keep the `top_k` likeliest tokens."""
    if top_k >= len(logits):
        return logits
    dropped = np.argpartition(-logits, top_k)[top_k:]
    kept = logits.copy()
    kept[dropped] = -np.inf
    return kept


def apply_top_p(logits: Logits, top_p: float) -> Logits:
    """Keep the smallest set of likeliest tokens with a total probability of at least `top_p` (nucleus sampling)."""
    order = np.argsort(-logits, kind="stable")
    cumulative = np.cumsum(np.exp(log_softmax(logits))[order])
    num_kept = int(np.searchsorted(cumulative, top_p)) + 1
    kept = logits.copy()
    kept[order[num_kept:]] = -np.inf
    return kept


def apply_min_p(logits: Logits, min_p: float) -> Logits:
    """Keep the tokens with at least `min_p` times the probability of the likeliest token."""
    return np.where(logits >= logits.max() + math.log(min_p), logits, -np.inf)
