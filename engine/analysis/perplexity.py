"""Perplexity of a model on a text: each token is scored once, in one pass, and `<unk>` counts like any token."""

import math
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float64Array
from engine.data.tokenizers.base import UNK_ID, TokenIds
from engine.errors import CorpusError
from engine.models.base import LanguageModel, SequenceModel, score_sequence

MAX_EXP_ARGUMENT = math.log(sys.float_info.max)


@dataclass(frozen=True)
class Evaluation:
    """Quality of a model's predictions on one text."""

    tokens: int
    unk_rate: float  # fraction of `<unk>`; a high rate lowers the perplexity although the model is no better
    perplexity: float
    bits_per_token: float


def token_log_probs(model: LanguageModel | SequenceModel, ids: TokenIds) -> Float64Array:
    """Return the natural-log probability `[time]` of each token; an empty text raises a CorpusError."""
    if len(ids) == 0:
        raise CorpusError("the text has no token to score; use a longer text")
    return score_sequence(model, ids)


def evaluate(
    model: LanguageModel | SequenceModel, ids: TokenIds, is_scored: npt.NDArray[np.bool_] | None = None
) -> Evaluation:
    """Score the tokens `ids` `[time]` with `model`; a text without a token that counts raises a CorpusError.

    `is_scored` `[time]` is True for the tokens that count, such as the utterances of a script; None for all.
    """
    log_probs = token_log_probs(model, ids)
    if is_scored is None:
        return summarize_log_probs(log_probs, ids)
    if not is_scored.any():
        raise CorpusError("the text has no utterance to score; use a longer text")
    return summarize_log_probs(log_probs[is_scored], ids[is_scored])


def summarize_log_probs(log_probs: Float64Array, ids: TokenIds, unk_id: int | None = UNK_ID) -> Evaluation:
    """Return the evaluation of a model that predicts `ids` `[time]` with natural-log probabilities `log_probs`.

    `unk_id` is the id of `<unk>`; None for an open vocabulary.
    """
    mean_nll = float(-log_probs.mean())
    return Evaluation(
        tokens=len(ids),
        unk_rate=0.0 if unk_id is None else float(np.mean(ids == unk_id)),
        perplexity=perplexity(mean_nll),
        bits_per_token=mean_nll / math.log(2),
    )


def perplexity(mean_nll: float) -> float:
    """Return the exponential of the mean negative log-probability; infinity where a float overflows, or for NaN."""
    return math.exp(mean_nll) if mean_nll <= MAX_EXP_ARGUMENT else math.inf
