"""The study of optuna: it proposes settings, and decides which trials end early by successive halving."""

import bisect
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import InvalidInputError
from engine.training.search.records import TrialRecord, TrialState
from engine.training.search.space import Choice, Range, SearchSpace, Value

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

REDUCTION = 2
"""Number of trials that reach a rung for each one that continues."""
NUM_RANDOM_TRIALS = 10
"""Trials with random settings before the model of optuna's TPE sampler is used."""
MIN_TRIALS_FOR_IMPORTANCES = 10
MAX_DUPLICATES = 20
"""Proposals of settings that were tried before, after which an untried combination is chosen."""


def check_optuna() -> None:
    """Raise an InvalidInputError if optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise InvalidInputError("search needs optuna; pip install 'lotr-tui[search]'") from error


class Proposal:
    """Settings that are being tried, and their comparison with other trials."""

    def __init__(self, settings: dict[str, Value], trial: "optuna.Trial", rungs: Sequence[float]) -> None:
        """Wrap a trial of optuna that tries `settings` and is compared at `rungs`."""
        self.settings = settings
        self.trial = trial
        self._rungs = rungs
        self._num_rungs = 0
        """Number of rungs that the trial has reached."""

    def report(self, num_runs: float, value: float) -> bool:
        """Report the value after `num_runs` runs, with fraction. Return True if the trial should be pruned."""
        num_rungs = bisect.bisect_right(self._rungs, num_runs)
        if num_rungs == self._num_rungs:
            return False
        self._num_rungs = num_rungs
        self.trial.report(value, self._to_step(num_rungs))
        return self.trial.should_prune()

    def report_divergence(self) -> None:
        """Report an infinite value at the next rung."""
        self.trial.report(math.inf, self._to_step(self._num_rungs + 1))

    @staticmethod
    def _to_step(num_rungs: int) -> int:
        """Return the step of the study at a rung: optuna's pruner has its rungs at powers of the reduction factor."""
        return int(REDUCTION ** (num_rungs - 1))


class SearchStudy:
    """Study of optuna in memory: multivariate TPE and successive halving, both seeded."""

    def __init__(self, space: SearchSpace, seed: int, rungs: Sequence[float]) -> None:
        """Create an empty study, which compares trials after `rungs` runs.

        Raises:
            InvalidInputError: If optuna is not installed.
        """
        check_optuna()
        import optuna

        self._space = space
        self._rungs = rungs
        self._distributions = {dimension.name: _to_distribution(dimension) for dimension in space.dimensions}
        self._tried: list[dict[str, Value]] = []
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=NUM_RANDOM_TRIALS, multivariate=True, constant_liar=True, seed=seed
            )
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
        self._study = optuna.create_study(sampler=sampler, pruner=pruner)

    def propose(self) -> Proposal | None:
        """Return settings that were not tried before; None if all combinations were."""
        if len(self._tried) >= self._space.size:
            return None
        for _ in range(MAX_DUPLICATES):
            proposal = self._ask()
            if proposal.settings not in self._tried:
                break
            self.finish(proposal, "failed")
        else:
            untried = next((item for item in self._space.combinations() if item not in self._tried), None)
            if untried is None:
                return None
            proposal = self._ask(untried)
        self._tried.append(proposal.settings)
        return proposal

    def replay(self, record: TrialRecord) -> Proposal:
        """Return the trial of an earlier search with everything it reported; it is still to be finished.

        The settings of a trial that failed, for example on a full disk, may be proposed again.
        """
        proposal = self._ask(record.settings)
        if record.state != "failed":
            self._tried.append(record.settings)
        for num_runs, value in record.reports:
            proposal.report(num_runs, value)
        return proposal

    def finish(self, proposal: Proposal, outcome: TrialState, value: float | None = None) -> None:
        """Tell the study how a trial ended. Later proposals avoid settings that diverged or were pruned."""
        from optuna.trial import TrialState

        if outcome == "complete":
            self._study.tell(proposal.trial, value)
            return
        if outcome == "diverged":
            proposal.report_divergence()
        is_bad = outcome in ("pruned", "diverged")
        self._study.tell(proposal.trial, state=TrialState.PRUNED if is_bad else TrialState.FAIL)

    def importances(self) -> dict[str, float]:
        """Return the importance of each setting (PED-ANOVA), highest first; {} with too few complete trials."""
        import optuna

        num_complete = len(self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE]))
        if num_complete < MIN_TRIALS_FOR_IMPORTANCES or len(self._distributions) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(self._study, evaluator=evaluator)

    def _ask(self, settings: dict[str, Value] | None = None) -> Proposal:
        """Return a new trial with `settings`; None lets the sampler choose."""
        if settings is not None:
            self._study.enqueue_trial(settings)
        trial = self._study.ask(self._distributions)
        rounded = {
            dimension.name: dimension.round(trial.params[dimension.name])
            if isinstance(dimension, Range)
            else trial.params[dimension.name]
            for dimension in self._space.dimensions
        }
        return Proposal(rounded, trial, self._rungs)


def _to_distribution(dimension: Range | Choice) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.options)
    kind = IntDistribution if dimension.is_integer else FloatDistribution
    return kind(dimension.low, dimension.high, log=dimension.is_logarithmic)  # type: ignore[arg-type]
