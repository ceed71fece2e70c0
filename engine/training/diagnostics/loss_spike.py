"""Spikes of the training loss, measured against a running median."""

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import ClassVar

from engine.events import DiagnosisKind, Step
from engine.training.diagnostics.detector import Detector, Finding, Observation, Outcome, TrainingSetup
from engine.training.diagnostics.remedies import lower_lr
from engine.training.diagnostics.wording import format_perplexity

WINDOW = 40
"""Reports in the running median; about ten seconds."""
MIN_REPORTS = 20
"""Reports before a spike is possible: at the start, the loss falls too fast for a level."""
MIN_RISE = math.log(2)
"""Rise of the loss that is a spike: the perplexity doubles. The last window of an epoch can be much harder than others,
since it may have a single time step."""
MAX_DEVIATIONS = 6.0
"""Standard deviations above the median that are still noise, for losses that vary much, as with small batches."""
MAD_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution, divided by its median absolute deviation."""
MIN_CONSECUTIVE = 2
"""High reports in a row. A single one may consist of one unusual window."""


@dataclass(frozen=True)
class LossSpike(Detector):
    """Losses of the latest normal reports, and the number of high reports after them."""

    kind: ClassVar[DiagnosisKind] = "loss_spike"

    losses: tuple[float, ...] = ()
    num_high: int = 0

    def observe(self, observation: Observation, setup: TrainingSetup) -> tuple["LossSpike", Outcome]:
        """Return a finding if the latest reports are far above the running median."""
        if not isinstance(observation, Step) or not observation.train_perplexity >= 1:
            return self, None
        loss = math.log(observation.train_perplexity)
        level = median(self.losses) if self.losses else loss
        deviation = MAD_TO_DEVIATION * median(abs(other - level) for other in self.losses) if self.losses else 0.0
        is_high = len(self.losses) >= MIN_REPORTS and loss > level + max(MIN_RISE, MAX_DEVIATIONS * deviation)
        if not is_high:
            return LossSpike((*self.losses, loss)[-WINDOW:]), None
        state = replace(self, num_high=self.num_high + 1)
        if state.num_high < MIN_CONSECUTIVE:
            return state, None
        options = setup.config.training
        message = (
            f"training perplexity jumped from about {format_perplexity(math.exp(level))} to "
            f"{format_perplexity(observation.train_perplexity)} at step {observation.step:,}"
        )
        change = lower_lr(options) if options.clip else f"--set clip=1, or {lower_lr(options)}"
        return state, Finding(message, f"if it does not fall back soon, train again with {change}")
