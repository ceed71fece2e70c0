"""Validation perplexity that rises: the model overfits, or the learning rate is too high."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from engine.config import Config
from engine.events import DiagnosisKind, Evaluated, Step
from engine.training.diagnostics.detector import Detector, Finding, Observation, Outcome, TrainingSetup
from engine.training.diagnostics.remedies import lower_lr
from engine.training.diagnostics.wording import format_perplexity

MIN_EVALUATIONS = 4
"""Evaluations without a new best. Up to three are noise, as with a constant learning rate on a short text."""
MIN_RISE = 1.05
"""Perplexity divided by the best one: a generalization loss of 5 % (Prechelt 1998, "Early Stopping - But When?", GL).
The flat end of a healthy training rises by up to 2 %."""
LOW_DROPOUT = 0.3
"""Dropout below which more of it is worth a try; the presets for the dialogues use 0.3 to 0.65."""
MORE_DROPOUT = 0.5


@dataclass(frozen=True)
class RisingValidation(Detector):
    """Best evaluation so far, and the evaluations since then.

    A training with `patience` is left out, since it stops by itself. The weights before the first step are not counted
    as a best evaluation, because `Forgetting` and `UnigramModel` compare with them.
    """

    kind: ClassVar[DiagnosisKind] = "rising_validation"

    best_perplexity: float = math.inf
    best_epoch: float = 0.0
    best_train_perplexity: float = math.nan
    """Training perplexity before the best evaluation; NaN if unknown."""
    evaluations_since_best: int = 0
    highest_since_best: float = 0.0
    loss_sum: float = 0.0
    num_reports: int = 0
    """Number of step reports since the latest evaluation, whose losses are in `loss_sum`."""

    def observe(self, observation: Observation, setup: TrainingSetup) -> tuple["RisingValidation", Outcome]:
        """Return a finding if the latest evaluation is the worst since a best one that is long enough ago."""
        if isinstance(observation, Step) and math.isfinite(observation.train_perplexity):
            loss = math.log(max(1.0, observation.train_perplexity))
            return replace(self, loss_sum=self.loss_sum + loss, num_reports=self.num_reports + 1), None
        if not isinstance(observation, Evaluated) or not observation.step:
            return self, None
        perplexity = observation.valid_perplexity
        train_perplexity = math.exp(self.loss_sum / self.num_reports) if self.num_reports else math.nan
        if not perplexity >= self.best_perplexity:
            state = RisingValidation(
                best_perplexity=perplexity if math.isfinite(perplexity) else self.best_perplexity,
                best_epoch=observation.epoch,
                best_train_perplexity=train_perplexity,
            )
            return state, None
        state = replace(
            self,
            evaluations_since_best=self.evaluations_since_best + 1,
            highest_since_best=max(self.highest_since_best, perplexity),
            loss_sum=0.0,
            num_reports=0,
        )
        options = setup.config.training
        delay = options.nonmonotone_interval if options.averaging == "nt_asgd" else 0  # averaging is then due to start
        is_rising = (
            not options.patience
            and state.evaluations_since_best >= MIN_EVALUATIONS + delay
            and perplexity >= max(MIN_RISE * self.best_perplexity, state.highest_since_best)
        )
        if not is_rising:
            return state, None
        is_overfitted = not train_perplexity > self.best_train_perplexity
        reason = "the model overfits" if is_overfitted else "training perplexity rises too: the learning rate is high"
        message = (
            f"validation perplexity rose from its best, {format_perplexity(self.best_perplexity)} at epoch "
            f"{self.best_epoch:.1f}, to {format_perplexity(perplexity)} in {state.evaluations_since_best} evaluations; "
            f"{reason}"
        )
        change = _more_dropout(setup.config) if is_overfitted else f" {lower_lr(options)}"
        is_over = observation.epoch >= options.epochs + options.fine_tune_epochs
        now = "the best model is kept" if is_over else f"lotr-tui stop {setup.run} keeps the best model"
        return state, Finding(message, f"{now}; next time --set patience={MIN_EVALUATIONS}{change}")


def _more_dropout(config: Config) -> str:
    """Return settings with more dropout, after a space; empty if the model has much dropout already."""
    if config.model.output_dropout > LOW_DROPOUT:
        return ""
    return f" --set input_dropout={MORE_DROPOUT} --set output_dropout={MORE_DROPOUT}"
