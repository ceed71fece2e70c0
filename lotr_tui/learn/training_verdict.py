"""Verdict on a live training: it is too slow, its loss has jumped, or it beats the counting models."""

import math
from dataclasses import dataclass

import numpy as np

from engine.events import Started
from lotr_tui.monitor.training_view import TrainingView

JUMP_RATIO = 3.0
"""A perplexity this many times the lowest one before is a jump.

The perplexity of a few windows may be 1.6 times as high as of others, because the text differs.
"""
SLOW_FRACTION = 0.4
"""Fraction of the training after which a network that still predicts worse than word frequencies is too slow."""
EVALUATIONS_AFTER_JUMP = 3
"""Evaluations after a jump that still show it, before the training is ended."""
FALL_RATIO = 0.8
"""A curve below this ratio of its value two evaluations before is falling again, and the training continues."""


@dataclass(frozen=True)
class Verdict:
    """Facts that the events of a training show so far."""

    is_too_slow: bool = False
    """True if the network is worse than the unigram model after `SLOW_FRACTION` of the training, without a jump."""
    has_jumped: bool = False
    """True if the perplexity of the training text was `JUMP_RATIO` times the lowest one before, or not finite."""
    beats_ngram: bool = False
    """True if an evaluation was better than the 5-gram model."""
    is_hopeless: bool = False
    """True if the rest of the training has nothing to show."""


def judge(view: TrainingView) -> Verdict:
    """Return the verdict on the events of a training so far."""
    started, evaluations = view.started, view.evaluations
    if started is None or not evaluations:
        return Verdict()
    jump_step = _find_jump(view)
    has_jumped = jump_step is not None or view.failure.startswith("the loss is")
    is_too_slow = not has_jumped and _is_too_slow(view, started)
    is_hopeless = is_too_slow
    if jump_step is not None:
        best = min(event.valid_perplexity for event in evaluations if event.step < jump_step)
        after = [event.valid_perplexity for event in evaluations if event.step >= jump_step]
        last = after[-EVALUATIONS_AFTER_JUMP:]
        is_falling = last[-1] < min(FALL_RATIO * last[0], evaluations[0].valid_perplexity) if last else False
        is_bad = len(last) == EVALUATIONS_AFTER_JUMP and min(last) > min(best, started.unigram_perplexity)
        is_hopeless = is_bad and not is_falling
    return Verdict(
        is_too_slow=is_too_slow,
        has_jumped=has_jumped,
        beats_ngram=any(event.valid_perplexity < started.kneser_ney_perplexity for event in evaluations),
        is_hopeless=is_hopeless,
    )


def _is_too_slow(view: TrainingView, started: Started) -> bool:
    """Return True if the network has been worse than the unigram model for `SLOW_FRACTION` of the training.

    A network that has learned a short text by heart is not slow, although it predicts the held-out text badly.
    """
    best = math.inf
    for event in view.evaluations:
        best = min(best, event.valid_perplexity)
        if event.epoch >= SLOW_FRACTION * started.epochs and best > started.unigram_perplexity:
            step = view.steps.last
            return step is not None and step.train_perplexity > started.unigram_perplexity
    return False


def _find_jump(view: TrainingView) -> int | None:
    """Return the step of the first report whose perplexity is a jump, or None."""
    perplexities = view.steps.column("train_perplexity")
    # Before the first step, the training text is as hard as the validation text.
    before = np.concatenate([[view.evaluations[0].valid_perplexity], perplexities])[:-1]
    jumps = np.flatnonzero(~(perplexities <= JUMP_RATIO * np.fmin.accumulate(before)))
    return int(view.steps.column("step")[jumps[0]]) if len(jumps) else None
