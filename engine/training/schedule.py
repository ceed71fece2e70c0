"""How fast to learn, and over how many words at a time: pure functions of the configuration."""

import math
import random

from engine.config import TrainingConfig


def window_length(options: TrainingConfig, chance: random.Random) -> int:
    """The next BPTT window: fixed, or drawn around the full one and now and then around half of it (4.1)."""
    if not options.variable_window:
        return options.window
    base = options.window if chance.random() < 0.95 else options.window / 2
    return max(5, int(chance.gauss(base, 5)))


def scheduled_lr(options: TrainingConfig, progress: float, plateau_factor: float) -> float:
    """The learning rate when `progress` (0 to 1) of the training is done."""
    if options.schedule == "plateau":
        return options.lr * plateau_factor
    if options.schedule == "constant":
        return options.lr
    if progress < options.warmup:
        return options.lr * (0.04 + 0.96 * progress / options.warmup)
    after = (progress - options.warmup) / max(1e-9, 1 - options.warmup)
    return options.lr * max(1e-4, 0.5 * (1 + math.cos(math.pi * min(1.0, after))))
