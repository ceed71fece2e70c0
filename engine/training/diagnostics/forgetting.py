"""Fine-tuning that destroys what the initial model has learned."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from engine.events import DiagnosisKind, Evaluated
from engine.training.diagnostics.detector import Detector, Finding, Observation, Outcome, TrainingSetup
from engine.training.diagnostics.remedies import USUAL_LR
from engine.training.diagnostics.wording import format_lr, format_perplexity

MIN_RISE_AT_ONCE = 1.1
"""Perplexity divided by the perplexity of the initial model that is reported at once."""
MIN_RISE = 1.02
"""The same for the first evaluations, if all are worse; a large corpus raises it by 0.3 % for a while."""
MIN_EVALUATIONS = 2
MUCH_WORSE = 1.5
"""Perplexity divided by the perplexity of the initial model from which the learning rate is far too high."""
FINE_TUNING_LR = {"adamw": 0.001, "adam": 0.001, "sgd": 1.0}
"""Learning rate instead of one that is too high even for random weights: the rate of the preset `finetune`."""


@dataclass(frozen=True)
class Forgetting(Detector):
    """Perplexity of the initial model, and the number of worse evaluations since then.

    Once an evaluation is better than the initial model, a small rise is for `RisingValidation`.
    """

    kind: ClassVar[DiagnosisKind] = "forgetting"

    initial_perplexity: float = math.nan
    num_worse: int = 0
    has_improved: bool = False

    def observe(self, observation: Observation, setup: TrainingSetup) -> tuple["Forgetting", Outcome]:
        """Return a finding if the latest evaluations are worse than the initial model."""
        if not isinstance(observation, Evaluated) or not setup.config.training.init:
            return self, None
        perplexity = observation.valid_perplexity
        if not observation.step:
            return Forgetting(perplexity), None
        rise = perplexity / self.initial_perplexity
        has_improved = self.has_improved or rise < 1
        num_worse = self.num_worse + 1 if rise >= MIN_RISE and not has_improved else 0
        state = replace(self, num_worse=num_worse, has_improved=has_improved)
        if not (rise >= MIN_RISE_AT_ONCE or state.num_worse >= MIN_EVALUATIONS):
            return state, None
        options = setup.config.training
        is_unusual = options.lr > USUAL_LR[options.optimizer][1]
        lr = FINE_TUNING_LR[options.optimizer] if is_unusual else options.lr / (10 if rise >= MUCH_WORSE else 3)
        message = (
            f"fine-tuning destroys what was learned: validation perplexity was "
            f"{format_perplexity(self.initial_perplexity)} before it and is {format_perplexity(perplexity)} at epoch "
            f"{observation.epoch:.1f}"
        )
        return state, Finding(message, f"stop, and train again with --set lr={format_lr(lr)}")
