"""Worker processes of a search, which train its trials as ordinary runs, one after the other."""

import bisect
import math
import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from multiprocessing.synchronize import Event, Lock
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState as StudyState

from engine.config import Config
from engine.control import ControlCommand
from engine.errors import TrainingError, describe_error
from engine.events import Evaluated, Finished, Warned
from engine.runs.directory import find_run
from engine.runs.summary import COMPLETE, summarize_run
from engine.runtime.process import limit_openmp_spinning
from engine.training.initial_run import TrainingInput, load_training_input
from engine.training.job import prepare_job, resume_job
from engine.training.search.study import (
    RECORD,
    REDUCTION,
    Limits,
    SearchPlan,
    TrialRecord,
    TrialState,
    open_study,
    propose,
)


def run_worker(path: Path, plan: SearchPlan, limits: Limits, index: int, stop: Event, lock: Lock) -> None:
    """Train trials of the study in `path`, one after the other, until there is none or `stop` is set."""
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, signal.SIG_IGN)  # the process of the search handles signals
    limit_openmp_spinning()
    search = multiprocessing.parent_process()

    def is_stopped() -> bool:
        return stop.is_set() or (search is not None and not search.is_alive())

    seed = plan.config.training.seed + index
    with lock:
        study = open_study(path, plan, seed)
    inputs: dict[object, TrainingInput] = {}

    def load(config: Config, runs_dir: Path | None) -> TrainingInput:
        key = (config.data, config.training.init, config.training.teachers)  # what the trials of a search share
        if key not in inputs:
            inputs[key] = load_training_input(config, runs_dir)
        return inputs[key]

    while not is_stopped():
        with lock:  # no two workers propose the same
            proposal = propose(study, plan, limits, path.name)
        if proposal is None:
            return
        trial, record = proposal
        trainer = TrialTrainer(plan, path.parent, trial, record, load)
        result = trainer.train(is_stopped)
        if result.state == "complete":
            study.tell(trial, result.valid_perplexity)
        else:  # later proposals avoid settings that diverged or were pruned
            is_bad = result.state in ("pruned", "diverged")
            study.tell(trial, state=StudyState.PRUNED if is_bad else StudyState.FAIL)


class TrialTrainer:
    """Trainer of one trial, with a run for each split."""

    def __init__(
        self,
        plan: SearchPlan,
        runs_dir: Path,
        trial: optuna.Trial,
        record: TrialRecord,
        load: Callable[[Config, Path | None], TrainingInput] = load_training_input,
    ) -> None:
        """Prepare to train a trial, or to continue it, with runs in `runs_dir`."""
        self.record = record
        self._plan, self._runs_dir, self._trial, self._load = plan, runs_dir, trial, load
        self._start_time = time.monotonic() - record.seconds
        self._num_rungs = 0
        """Number of rungs that the trial has reached."""

    def train(self, is_stopped: Callable[[], bool]) -> TrialRecord:
        """Train the runs that are not complete, and return the trial with its result."""
        state: TrialState = "complete"
        message = ""
        try:
            for index in range(len(self.record.perplexities), len(self.record.runs)):
                state = self._train_run(index, is_stopped)
                if state != "complete":
                    break
        except TrainingError as error:
            state, message = "diverged", describe_error(error)
            self._trial.report(math.inf, REDUCTION**self._num_rungs)
        except Exception as error:  # whatever ends a trial, the search continues
            state, message = "failed", describe_error(error)
        self._save(state=state, message=message or self.record.message)
        return self.record

    def _train_run(self, index: int, is_stopped: Callable[[], bool]) -> TrialState:
        """Train a run, or continue it, and return the state of the trial after it."""
        name = self.record.runs[index]
        config = self._plan.config.with_values(
            **self.record.settings,
            split_seed=self._plan.split_seeds[index],
            threads=self._plan.config.training.threads or 1,
            score_test=False,
            keep_epoch_checkpoints=False,
        )
        run_dir, best = find_run(name, self._runs_dir), math.inf
        if run_dir is not None:  # of an earlier budget
            summary = summarize_run(run_dir)
            best = summary.valid_perplexity or math.inf
            if summary.state in COMPLETE:
                return "pruned" if summary.state == "pruned" or self._is_worse(index, 1.0, best) else "complete"
            job = resume_job(name, self._runs_dir)
        else:
            job = prepare_job(config, name, self._runs_dir, self._load)
        epochs = config.training.epochs + config.training.fine_tune_epochs
        for event in job.events(is_stopped):
            match event:
                case Evaluated():
                    best = min(best, event.valid_perplexity)
                    fraction = event.epoch / epochs
                    # The end is reported when the run is complete.
                    if 0 < fraction < 1 and self._is_worse(index, fraction, best):
                        job.command_queue.send(ControlCommand("prune"))
                case Warned():
                    self._save(message=event.message)
                case Finished(reason="stopped" | "detached"):
                    return "stopped"
                case Finished(reason="pruned"):
                    return "pruned"
        return "pruned" if self._is_worse(index, 1.0, best) else "complete"

    def _is_worse(self, index: int, fraction: float, perplexity: float) -> bool:
        """Record the progress of a run. Return True if the trial is in the worse half at a new rung."""
        perplexities = [*self.record.perplexities, perplexity]
        value = statistics.geometric_mean(perplexities)
        num_runs = round(index + fraction, 4)
        self._save(
            perplexities=perplexities if fraction == 1 else self.record.perplexities,
            valid_perplexity=value,
            fraction=num_runs / len(self.record.runs),
        )
        num_rungs = bisect.bisect_right(self._plan.rungs, num_runs)
        if num_rungs == self._num_rungs:
            return False
        self._num_rungs = num_rungs
        self._trial.report(value, REDUCTION ** (num_rungs - 1))  # optuna's rungs are powers of the reduction factor
        return num_runs < len(self.record.runs) and self._trial.should_prune()

    def _save(self, **changes: Any) -> None:
        self.record = replace(self.record, seconds=time.monotonic() - self._start_time, **changes)
        self._trial.set_user_attr(RECORD, asdict(self.record))
