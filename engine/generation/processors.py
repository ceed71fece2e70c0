"""The stages of the sampler chain: pure functions from log-scores `[vocabulary]` to log-scores; -inf drops a word."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]


def normalize(scores: Scores) -> Scores:
    """Shift log-scores so that their probabilities sum to one."""
    highest = float(scores.max())
    normalized: Scores = scores - (highest + math.log(np.exp(scores - highest).sum()))
    return normalized


def penalize_repetition(scores: Scores, history: Sequence[int], penalty: float) -> Scores:
    """Make words of `history` less likely: positive scores are divided by the penalty, negative ones multiplied."""
    seen = np.array(sorted(set(history)), dtype=np.int64)
    penalized = scores.copy()
    values = scores[seen]
    penalized[seen] = np.where(values > 0, values / penalty, values * penalty)
    return penalized


def temper(scores: Scores, temperature: float) -> Scores:
    """Divide log-scores by the temperature; at 0 only the likeliest word stays."""
    if temperature < 1e-3:  # below, words that are not within a thousandth of the best have no chance left
        greedy = np.full_like(scores, -np.inf)
        greedy[np.argmax(scores)] = 0.0
        return greedy
    return scores / temperature


def keep_top_k(scores: Scores, k: int) -> Scores:
    """Keep the k likeliest words."""
    if k >= len(scores):
        return scores
    dropped = np.argpartition(-scores, k)[k:]
    kept = scores.copy()
    kept[dropped] = -np.inf
    return kept


def keep_top_p(scores: Scores, p: float) -> Scores:
    """Keep the fewest likeliest words whose probabilities reach p; at least one."""
    order = np.argsort(-scores, kind="stable")
    cumulative = np.cumsum(np.exp(normalize(scores))[order])
    number = int(np.searchsorted(cumulative, p)) + 1
    kept = scores.copy()
    kept[order[number:]] = -np.inf
    return kept


def keep_min_p(scores: Scores, share: float) -> Scores:
    """Keep words at least `share` as likely as the likeliest."""
    return np.where(scores >= scores.max() + math.log(share), scores, -np.inf)
