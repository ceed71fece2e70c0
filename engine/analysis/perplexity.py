"""Perplexity: every token once, state carried from the first to the last, `<unk>` counted like any word."""

import math
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.data.vocabulary import UNK_ID, Ids
from engine.errors import CorpusError
from engine.models.base import LanguageModel, TextReader, scores_of

BLOCK = 20
"""Tokens that a bootstrap keeps together, since neighbours are alike in how hard they are."""
LARGEST = math.log(sys.float_info.max)
"""What exp can be taken of."""


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text."""

    tokens: int
    unk_rate: float
    """Share of tokens that are `<unk>`; a high one makes perplexity low without merit."""
    perplexity: float
    bits_per_token: float


def token_log_probs(model: LanguageModel | TextReader, ids: Ids) -> npt.NDArray[np.float64]:
    """Natural-log probability `[time]` of each token, the first one predicted after `<eos>`.

    Raises:
        CorpusError: there is no token to score.
    """
    if len(ids) == 0:
        raise CorpusError("there is no token to score, so there is no perplexity; give a longer text")
    return scores_of(model, ids)


def evaluate(model: LanguageModel | TextReader, ids: Ids) -> Evaluation:
    """Score `ids` with `model`.

    Raises:
        CorpusError: there is no token to score.
    """
    return summarize(token_log_probs(model, ids), ids)


def summarize(scores: npt.NDArray[np.float64], ids: Ids) -> Evaluation:
    """What `scores`, the natural-log probabilities `[time]` of `ids`, say of the model."""
    mean = float(-scores.mean())
    return Evaluation(
        tokens=len(ids),
        unk_rate=float(np.mean(ids == UNK_ID)),
        perplexity=perplexity(mean),
        bits_per_token=mean / math.log(2),
    )


def perplexity(mean_negative_log_prob: float) -> float:
    """exp of it; infinite where that is too large for a float."""
    return math.exp(mean_negative_log_prob) if mean_negative_log_prob <= LARGEST else math.inf


def confidence_interval(scores: npt.NDArray[np.float64], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Where the perplexity of 95 in 100 other texts of this kind and length would lie.

    A bootstrap over blocks of neighbouring tokens, which wrap around at the end (Politis and Romano 1992).

    Args:
        scores: natural-log probabilities `[time]`.
        resamples: texts put together from the blocks of this one.
        seed: of the blocks drawn.
    """
    length = min(BLOCK, len(scores))
    blocks = math.ceil(len(scores) / length)
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([scores, scores[: length - 1]]))])
    means = (sums[length:] - sums[:-length]) / length
    draws = np.random.default_rng(seed).integers(0, len(scores), (resamples, blocks))
    low, high = np.quantile(-means[draws].mean(axis=1), [0.025, 0.975])
    return perplexity(float(low)), perplexity(float(high))
