"""Fine-tuning: averaged SGD from the best weights, after the configured epochs (Merity et al. 2017, section 5)."""

import math

from engine.training.averaging import WeightAverage
from engine.training.optim import build_fine_tuning_optimizer
from engine.training.state import TrainerState


def start_fine_tuning(state: TrainerState) -> None:
    """Load the best weights, replace the optimizer by SGD, and average the weights from here on.

    Fine-tuning lasts `fine_tune_epochs`, or until the non-monotone trigger fires.
    """
    assert state.best_weights is not None, "fine-tuning starts from validated weights"
    options, progress = state.config.training, state.progress
    state.network.load_weights(state.best_weights)
    state.optimizer = build_fine_tuning_optimizer(state.network, options)
    state.weight_average = WeightAverage(state.network)
    state.windows.discard_epoch()
    progress.fine_tuning = True
    progress.early_stopped = False
    progress.valid_perplexities = []
    progress.evaluations_since_best = 0
    progress.epoch_index = math.ceil(progress.epoch)
    progress.end_epoch = progress.epoch_index + options.fine_tune_epochs
