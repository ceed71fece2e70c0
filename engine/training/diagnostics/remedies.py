"""Settings that several detectors recommend."""

from engine.config import TrainingConfig
from engine.training.diagnostics.wording import format_lr

USUAL_LR = {"adamw": (0.001, 0.02), "adam": (0.001, 0.02), "sgd": (1.0, 50.0)}
"""Lowest and highest learning rate with which the models of this program learn from random weights."""
GOOD_LR = {"adamw": 0.003, "adam": 0.003, "sgd": 10.0}
MAX_DECAY_PER_STEP = 0.01
"""Fraction of a weight that weight decay may remove per step; the presets stay below 0.003."""
GOOD_DECAY_PER_STEP = 0.001


def lower_lr(options: TrainingConfig) -> str:
    """Return the setting with a lower learning rate: a usual one if the rate is far too high, otherwise a third."""
    _, highest = USUAL_LR[options.optimizer]
    lr = GOOD_LR[options.optimizer] if options.lr > highest else options.lr / 3
    return f"--set lr={format_lr(lr)}"


def weaker_decay(options: TrainingConfig) -> str:
    """Return the setting with a lower weight decay if it removes the weights faster than they learn; otherwise ""."""
    if options.lr * options.weight_decay <= MAX_DECAY_PER_STEP:
        return ""
    return f"--set weight_decay={GOOD_DECAY_PER_STEP / options.lr:.2g}"
