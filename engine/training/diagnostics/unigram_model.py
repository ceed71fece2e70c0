"""A model that still knows no more than the frequencies of the tokens."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from engine.config import Config
from engine.events import DiagnosisKind, Evaluated, Started, Step
from engine.training.diagnostics.detector import Detector, Finding, Observation, Outcome, TrainingSetup
from engine.training.diagnostics.remedies import GOOD_LR, USUAL_LR, lower_lr, weaker_decay
from engine.training.diagnostics.wording import format_lr, format_perplexity

UNIGRAM_FRACTION = 0.95
"""Fraction of the unigram perplexity that a model which uses the context is below after an epoch."""
OVERFITTED_FRACTION = 0.7
"""Fraction of the unigram perplexity below which the training perplexity shows that the model uses the context of the
training text, so that it overfits."""
MIN_IMPROVEMENT = 0.97
"""Best perplexity divided by the best one an epoch earlier: below this ratio, the model is still learning. Transformers
from random weights are above the unigram perplexity after an epoch, and at half of it after four."""
MIN_EPOCHS = 1.0
MIN_STEPS = 100
"""Steps between the two best perplexities, besides an epoch: a short text has too few steps per epoch to learn much."""
ENDED_LR = 0.1
"""Fraction of the highest learning rate so far at which the model learns no more, so that fewer steps are enough."""
MIN_WARM_UP = 0.25
"""Fraction of the peak learning rate that must have been used; before, the warm-up has hardly begun."""
MAX_ADAM_DECAY = 1e-4
"""Weight decay that Adam adds to the gradients and divides by their size (Loshchilov and Hutter 2019, section 2)."""
MUCH_DROPOUT = 0.7
"""Dropout above which a small model hardly learns."""
GOOD_DROPOUT = 0.4
FEW_STEPS = 500
"""Steps in which a healthy model may not get beyond the frequencies, because the learning rate falls too early."""
MORE_EPOCHS = 3


@dataclass(frozen=True)
class UnigramModel(Detector):
    """Unigram baseline, highest learning rate so far, and the best perplexities of the last epoch."""

    kind: ClassVar[DiagnosisKind] = "unigram_model"

    unigram_perplexity: float = math.nan
    loss_sum: float = 0.0
    num_reports: int = 0
    """Number of step reports since the latest evaluation, whose losses are in `loss_sum`."""
    lr: float = 0.0
    max_lr: float = 0.0
    bests: tuple[Evaluated, ...] = ()
    """Evaluations with the best perplexity up to each; the first is old enough to compare with, if any is."""

    def observe(self, observation: Observation, setup: TrainingSetup) -> tuple["UnigramModel", Outcome]:
        """Return a finding if an evaluation after an epoch is as bad as the unigram model, and not getting better."""
        if isinstance(observation, Started):
            return replace(self, unigram_perplexity=observation.unigram_perplexity), None
        if isinstance(observation, Step) and observation.train_perplexity >= 1:
            state = replace(
                self,
                loss_sum=self.loss_sum + math.log(observation.train_perplexity),
                num_reports=self.num_reports + 1,
                lr=observation.lr,
                max_lr=max(self.max_lr, observation.lr),
            )
            return state, None
        if not isinstance(observation, Evaluated) or not math.isfinite(observation.valid_perplexity):
            return self, None
        perplexity = observation.valid_perplexity
        best = min(perplexity, self.bests[-1].valid_perplexity) if self.bests else perplexity
        bests = (*self.bests, replace(observation, valid_perplexity=best, model=None))
        train_perplexity = math.exp(self.loss_sum / self.num_reports) if self.num_reports else math.nan
        min_steps = 1 if self.lr <= ENDED_LR * self.max_lr else MIN_STEPS
        while len(bests) > 1 and _is_old(bests[1], observation, min_steps):
            bests = bests[1:]
        is_unigram = (
            _is_old(bests[0], observation, min_steps)
            and perplexity >= UNIGRAM_FRACTION * self.unigram_perplexity
            and not train_perplexity < OVERFITTED_FRACTION * self.unigram_perplexity
            and best > MIN_IMPROVEMENT * bests[0].valid_perplexity
            and self.max_lr >= MIN_WARM_UP * setup.config.training.lr
        )
        state = replace(self, bests=bests, loss_sum=0.0, num_reports=0)
        if not is_unigram:
            return state, None
        message = (
            f"after {observation.epoch:.1f} epochs the model knows no more than token frequencies: validation "
            f"perplexity {format_perplexity(perplexity)}, a unigram model has "
            f"{format_perplexity(self.unigram_perplexity)}"
        )
        return state, Finding(message, f"stop, and train again with {_better_learning(setup.config, observation.step)}")


def _is_old(earlier: Evaluated, latest: Evaluated, min_steps: int) -> bool:
    """Return True if an epoch, and `min_steps` steps, are between two evaluations."""
    return latest.epoch - earlier.epoch >= MIN_EPOCHS and latest.step - earlier.step >= min_steps


def _better_learning(config: Config, num_steps: int) -> str:
    """Return the settings that likely let the model learn more than in `num_steps` steps of these."""
    options, model = config.training, config.model
    if options.validation_metric == "notebook" and options.schedule == "plateau":
        return "--set validation_metric=perplexity; the notebook's metric halves the learning rate after every epoch"
    if decay := weaker_decay(options):
        return decay
    lowest, highest = USUAL_LR[options.optimizer]
    if not lowest <= options.lr <= highest:
        problem = "low" if options.lr < lowest else "high"
        return f"--set lr={format_lr(GOOD_LR[options.optimizer])}; lr={format_lr(options.lr)} is {problem}"
    if options.optimizer == "adam" and options.weight_decay > MAX_ADAM_DECAY:
        return "--set optimizer=adamw; the weight decay of adam keeps weights with small gradients at zero"
    too_much = [name for name in ("input_dropout", "output_dropout") if getattr(model, name) > MUCH_DROPOUT]
    if too_much:
        return " ".join(f"--set {name}={GOOD_DROPOUT}" for name in too_much)
    if num_steps < FEW_STEPS:
        return f"--epochs {MORE_EPOCHS * options.epochs}, since {num_steps:,} steps are few"
    return f"{lower_lr(options)}, and check that the order of words in the text has a meaning"
