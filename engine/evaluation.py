"""Perplexity: every token once, state carried from the first to the last, `<unk>` counted like any word."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import CorpusError
from engine.lm import LanguageModel, TextScorer
from engine.vocabulary import EOS_ID, UNK_ID, Ids


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text."""

    tokens: int
    unk_rate: float
    """Share of tokens that are `<unk>`; a high one makes perplexity low without merit."""
    perplexity: float
    bits_per_token: float


def token_log_probs(model: LanguageModel | TextScorer, ids: Ids) -> npt.NDArray[np.float64]:
    """Natural-log probability `[time]` of each token, the first one predicted after `<eos>`.

    Raises:
        CorpusError: there is no token to score.
    """
    if len(ids) == 0:
        raise CorpusError("there is no token to score, so there is no perplexity; give a longer text")
    if hasattr(model, "score"):
        scored: npt.NDArray[np.float64] = model.score(ids)
        return scored
    scores = np.empty(len(ids), dtype=np.float64)
    log_probs, state = model.advance(model.start(), EOS_ID)
    for position, token in enumerate(ids):
        scores[position] = log_probs[token]
        log_probs, state = model.advance(state, int(token))
    return scores


def evaluate(model: LanguageModel | TextScorer, ids: Ids) -> Evaluation:
    """Score `ids` with `model`.

    Raises:
        CorpusError: there is no token to score.
    """
    mean = float(-token_log_probs(model, ids).mean())
    return Evaluation(
        tokens=len(ids),
        unk_rate=float(np.mean(ids == UNK_ID)),
        perplexity=math.exp(mean) if mean < 700 else math.inf,
        bits_per_token=mean / math.log(2),
    )
