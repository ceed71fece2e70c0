"""Gradients that vanish or explode, by the norm of all gradients before clipping."""

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import ClassVar

from engine.config import Config
from engine.events import DiagnosisKind, Step
from engine.training.diagnostics.detector import Detector, Finding, Observation, Outcome, TrainingSetup
from engine.training.diagnostics.remedies import GOOD_LR, lower_lr, weaker_decay

NUM_EARLY_REPORTS = 20
"""Reports whose median is the early level of the norm."""
VANISHED_FRACTION = 1e-3
"""Fraction of the early level below which the gradient has vanished. Over a healthy training, the norm changes by a
factor of 0.5 to 4."""
VANISHED_NORM = 1e-7
"""Norm that is vanishing whatever the early level was: about the rounding error of 32-bit numbers around 1."""
NUM_VANISHED_REPORTS = 20
"""Reports in a row with vanishing gradients; about five seconds."""
MEMORIZED_PERPLEXITY = 2.0
"""Training perplexity below which small gradients are natural: the text is nearly known by heart."""
EXPLODED_RATIO = 20.0
"""Norm divided by the clipping limit that is far too large. The presets have ratios up to 4."""
EXPLODED_WINDOW = 40
MIN_EXPLODED = 36
"""Reports with far too large gradients among the last `EXPLODED_WINDOW` that are "nearly all"."""


@dataclass(frozen=True)
class VanishingGradients(Detector):
    """Early norms, and the number of vanishing ones in a row.

    Only the norm of all gradients is known: lower layers whose gradients vanish alone are not seen.
    """

    kind: ClassVar[DiagnosisKind] = "vanishing_gradients"

    early_norms: tuple[float, ...] = ()
    num_vanished: int = 0

    def observe(self, observation: Observation, setup: TrainingSetup) -> tuple["VanishingGradients", Outcome]:
        """Return a finding if the norm has been tiny for many reports, although there is something left to learn."""
        if not isinstance(observation, Step) or not math.isfinite(observation.gradient_norm):
            return self, None
        norm = observation.gradient_norm
        early_norms = self.early_norms
        if len(early_norms) < NUM_EARLY_REPORTS:
            early_norms = (*early_norms, norm)
        level = median(early_norms)
        limit = VANISHED_NORM if len(early_norms) < NUM_EARLY_REPORTS else max(VANISHED_NORM, VANISHED_FRACTION * level)
        has_vanished = norm < limit and observation.train_perplexity > MEMORIZED_PERPLEXITY
        state = VanishingGradients(early_norms, self.num_vanished + 1 if has_vanished else 0)
        if state.num_vanished < NUM_VANISHED_REPORTS:
            return state, None
        message = (
            f"the gradients have vanished, so the model no longer learns: their norm is {norm:.1e}, after about "
            f"{level:.1e} at the start"
        )
        return state, Finding(message, f"train again with {_more_gradient(setup.config)}")


@dataclass(frozen=True)
class ExplodingGradients(Detector):
    """Recent reports, each True if its norm was far above the clipping limit."""

    kind: ClassVar[DiagnosisKind] = "exploding_gradients"

    recent: tuple[bool, ...] = ()

    def observe(self, observation: Observation, setup: TrainingSetup) -> tuple["ExplodingGradients", Outcome]:
        """Return a finding if nearly all recent gradients were clipped to a small fraction."""
        options = setup.config.training
        if not isinstance(observation, Step) or not options.clip or math.isnan(observation.gradient_norm):
            return self, None
        ratio = observation.gradient_norm / options.clip
        state = replace(self, recent=(*self.recent, ratio > EXPLODED_RATIO)[-EXPLODED_WINDOW:])
        if sum(state.recent) < MIN_EXPLODED or not state.recent[-1]:
            return state, None
        message = (
            f"the gradients explode: nearly every step is clipped, now from {observation.gradient_norm:.3g} to "
            f"{options.clip:g}"
        )
        return state, Finding(message, f"train again with {lower_lr(options)}")


def _more_gradient(config: Config) -> str:
    """Return the settings that likely keep the gradients alive."""
    options = config.training
    if decay := weaker_decay(options):  # the weights have decayed to zero, and with them the gradients
        return decay
    if options.optimizer == "sgd":
        return f"--set optimizer=adamw --set lr={GOOD_LR['adamw']}"
    if config.model.num_layers > 1:
        return f"--set num_layers={config.model.num_layers // 2} {lower_lr(options)}"
    return lower_lr(options)
