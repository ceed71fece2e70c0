"""A search within a budget: proposals of the study become trials in worker processes, until the budget is used."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from engine.training.search.pool import WorkerPool
from engine.training.search.records import UNFINISHED, SearchFolder, TrialRecord
from engine.training.search.study import Proposal, SearchStudy
from engine.training.search.worker import Assignment, RunWarning, TrialEnd, TrialProgress

POLL_INTERVAL = 0.2
"""Maximum seconds between two looks at the clock and for an interruption."""
MAX_FAILURES = 5
"""Trials in a row that diverge or fail, after which the search ends."""

EndReason = Literal["budget", "trials", "interrupted", "exhausted", "failures"]


@dataclass(frozen=True)
class Budget:
    """Limits of a search; whichever is reached first ends it."""

    seconds: float = math.inf
    num_trials: float = math.inf
    """Number of trials to start."""


@dataclass(frozen=True)
class TrialEnded:
    """End of a trial."""

    record: TrialRecord
    best: TrialRecord | None
    """Best complete trial so far."""
    seconds_left: float


@dataclass(frozen=True)
class SearchWarned:
    """Problem that does not end the search."""

    message: str


@dataclass(frozen=True)
class SearchEnded:
    """End of a search."""

    reason: EndReason
    records: tuple[TrialRecord, ...]
    """All trials by number, including trials of earlier budgets."""
    importances: dict[str, float]
    """Importance of each setting, highest first; empty if too few trials are complete."""
    seconds: float


SearchEvent = TrialEnded | SearchWarned | SearchEnded


@dataclass
class _Trial:
    """A trial that a worker trains."""

    record: TrialRecord
    proposal: Proposal
    start_time: float


def run_search(
    folder: SearchFolder, budget: Budget, num_jobs: int, cancelled: Callable[[], bool]
) -> Iterator[SearchEvent]:
    """Try settings until the budget is used or `cancelled` returns True; the last event is `SearchEnded`.

    Trials that are still trained then are saved and stopped; a search that is resumed trains them first.

    Raises:
        InvalidInputError: If optuna is not installed.
    """
    search = _Search(folder, budget, num_jobs, cancelled)
    try:
        yield from search.run()
    finally:
        search.close()


class _Search:
    """State of a running search."""

    def __init__(self, folder: SearchFolder, budget: Budget, num_jobs: int, cancelled: Callable[[], bool]) -> None:
        """Replay the records of the folder in a new study."""
        self._folder = folder
        self._plan = folder.plan
        self._budget = budget
        self._cancelled = cancelled
        self._start_time = time.monotonic()
        self._study = SearchStudy(self._plan.space, self._plan.seed, self._plan.rungs)
        self._pool = WorkerPool(num_jobs, folder.path.parent)
        self._active: dict[int, _Trial] = {}
        self._unfinished: list[tuple[TrialRecord, Proposal]] = []
        self._num_started = self._num_failures = 0
        self._is_stopping = False
        self._end_reason: EndReason | None = None
        """Reason why no more trials are started; None while there is time, or only too little of it."""
        self._problem = ""
        for record in folder.records.values():
            proposal = self._study.replay(record)
            if record.state in UNFINISHED:
                self._unfinished.append((record, proposal))
            else:
                self._study.finish(proposal, record.state, record.value)

    def close(self) -> None:
        """End the workers, and release the folder."""
        self._pool.close()
        self._folder.close()

    def run(self) -> Iterator[SearchEvent]:
        """Yield the events of the search."""
        if self._folder.num_damaged:
            yield SearchWarned(f"{self._folder.num_damaged} damaged lines in {self._folder.path} are left out")
        while True:
            self._stop_at_the_end()
            yield from self._start_trials()
            if not self._active:
                break
            for number, message in self._pool.messages(POLL_INTERVAL):
                match message:
                    case TrialProgress():
                        self._pool.answer(number, may_continue=self._report(self._active[number], message))
                    case RunWarning():
                        yield SearchWarned(f"{message.run}: {message.message}")
                    case TrialEnd():
                        yield from self._end_trial(self._active.pop(number), message)
        yield SearchEnded(
            reason=self._end_reason or "budget",
            records=tuple(self._folder.records.values()),
            importances=self._study.importances(),
            seconds=time.monotonic() - self._start_time,
        )

    @property
    def _seconds_left(self) -> float:
        return max(0.0, self._start_time + self._budget.seconds - time.monotonic())

    def _stop_at_the_end(self) -> None:
        """Stop all trials once the budget is used, or the search is cancelled."""
        is_cancelled = self._cancelled()
        if not self._is_stopping and (is_cancelled or not self._seconds_left):
            self._is_stopping = True
            self._end_reason = "interrupted" if is_cancelled else "budget"
            self._pool.stop()

    def _start_trials(self) -> Iterator[SearchEvent]:
        """Give trials to all idle workers, unless the time left is too short for a typical trial."""
        while self._end_reason is None and self._pool.num_busy < self._pool.size:
            if self._seconds_left < self._typical_seconds() or (trial := self._next_trial()) is None:
                return
            record = trial.record
            self._active[record.number] = trial
            yield from self._write(record)
            self._pool.start(
                Assignment(
                    number=record.number,
                    config=self._plan.config,
                    settings=record.settings,
                    split_seeds=self._plan.split_seeds,
                    run_names=tuple(record.runs),
                    num_done=len(record.perplexities),
                )
            )

    def _typical_seconds(self) -> float:
        """Return the median duration of the trials that are complete or pruned; 0 before the first one."""
        ended = [item.seconds for item in self._folder.records.values() if item.state in ("complete", "pruned")]
        return statistics.median(ended) if ended else 0.0

    def _next_trial(self) -> _Trial | None:
        """Return an unfinished trial of an earlier budget, or a new one; None, with the reason, if there is none."""
        if self._num_failures >= MAX_FAILURES:
            self._end_reason = "failures"
            return None
        if self._unfinished:
            record, proposal = self._unfinished.pop(0)
            return _Trial(replace(record, state="running"), proposal, time.monotonic())
        if self._num_started >= self._budget.num_trials:
            self._end_reason = "trials"
            return None
        if (new_proposal := self._study.propose()) is None:
            self._end_reason = "exhausted"
            return None
        self._num_started += 1
        number = max(self._folder.records, default=-1) + 1
        record = TrialRecord(number, "running", new_proposal.settings, self._folder.run_names(number))
        return _Trial(record, new_proposal, time.monotonic())

    def _report(self, trial: _Trial, progress: TrialProgress) -> bool:
        """Record the progress of a trial. Return True if it may continue."""
        perplexities = [*trial.record.perplexities, progress.perplexity]
        value = statistics.geometric_mean(perplexities)
        num_runs = round(progress.run_index + progress.fraction, 4)
        trial.record = replace(trial.record, reports=[*trial.record.reports, (num_runs, value)])
        if progress.fraction == 1:
            trial.record = replace(trial.record, perplexities=perplexities)
        is_last = num_runs == len(self._plan.split_seeds)
        return not trial.proposal.report(num_runs, value) or is_last

    def _end_trial(self, trial: _Trial, end: TrialEnd) -> Iterator[SearchEvent]:
        record = replace(
            trial.record,
            state=end.state,
            message=end.message,
            seconds=trial.record.seconds + time.monotonic() - trial.start_time,
        )
        self._study.finish(trial.proposal, record.state, record.value)
        if record.state in ("diverged", "failed"):
            self._num_failures += 1
        elif record.state in ("complete", "pruned"):
            self._num_failures = 0
        yield from self._write(record)
        yield TrialEnded(record, find_best(self._folder.records.values()), self._seconds_left)

    def _write(self, record: TrialRecord) -> Iterator[SearchEvent]:
        """Write a record; yield a warning about a problem that is new."""
        problem = self._folder.write(record)
        if problem and problem != self._problem:
            yield SearchWarned(f"{problem}; the search continues and tries again")
        self._problem = problem


def find_best(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """Return the complete trial with the lowest perplexity, or None if no trial is complete."""
    complete = [record for record in records if record.state == "complete"]
    return min(complete, key=lambda record: record.value or math.inf, default=None)
