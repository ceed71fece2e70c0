"""Next words of a model of counts at a place in a line, and how it computes the probability of one of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.generation.prompt import prefill
from engine.models.ngram import Backoff, BackoffLevel, KneserNey
from lotr_tui.learn.line_place import LinePlace


@dataclass(frozen=True)
class NgramView:
    """Distribution of the next word, and the back-off of one word."""

    token: int
    """Id of the word at the place, or the likeliest one at the end of the line."""
    prob: float
    """Probability of that word."""
    rank: int
    """Rank of that word by probability; 1 is the likeliest."""
    backoff: Backoff
    """Parts of that probability."""
    likeliest: tuple[tuple[int, float], ...]
    """Ids and probabilities of the likeliest words, in descending order."""


def view_ngrams(model: KneserNey, place: LinePlace, top_n: int) -> NgramView:
    """Return the `top_n` likeliest words at a place, and the back-off of the word there."""
    log_probs, state, *_ = prefill(model, place.ids)
    probs = np.exp(log_probs.astype(np.float64))
    ranked = np.argsort(-probs, kind="stable")[:top_n].tolist()
    token = ranked[0] if place.token is None else place.token
    return NgramView(
        token=token,
        prob=float(probs[token]),
        rank=int((probs > probs[token]).sum()) + 1,
        backoff=model.explain_backoff(state, token),
        likeliest=tuple((id, float(probs[id])) for id in ranked),
    )


def count_plainly(models: Mapping[int, KneserNey], backoff: Backoff, token: int) -> BackoffLevel:
    """Return how often the longest context that was seen occurs, and how often before `token`, without smoothing.

    Args:
        models: Models of all orders from 1 to the one of `backoff`.
        backoff: Contexts of `token`.
        token: The next word.
    """
    plain = [models[len(each.context) + 1].explain_backoff(each.context, token).levels[0] for each in backoff.levels]
    return next((level for level in plain if level.context_count), plain[-1])
